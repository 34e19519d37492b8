//! Descriptors of files on their way from one process to another.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// What goes with it, since something must.
const BYTE: [u8; 1] = [0];

/// Sends one.
pub(crate) fn send(socket: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let rights = [descriptor.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&BYTE)], &message, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if there will be none.
pub(crate) fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = BYTE;
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut received = received.cmsgs()?.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let descriptor = received.next().ok_or_else(|| io::Error::other("no descriptor came"))?;
    // SAFETY: the kernel has just made it for this process, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Takes over one that was there when this program began.
pub(crate) fn take_over(descriptor: RawFd) -> OwnedFd {
    // SAFETY: whoever started this program left it to it, and only its beginning calls this, once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
