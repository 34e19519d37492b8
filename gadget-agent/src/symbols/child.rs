//! The reader of symbols, as the agent sees it: a process that may end at any moment, or say anything.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::message::{self, Answer, Question, Silence};
use super::reader::COMMAND;
use crate::runtime::descriptor;

/// How long it may take for an answer: the first about a file includes reading that.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest text that it may answer with, in bytes.
const TEXT: usize = 1024;
/// Functions that it may find in the place of one.
const INLINED: usize = 64;

/// The process. Dropping it ends it.
pub(super) struct Child {
    process: std::process::Child,
    socket: UnixStream,
}

impl Child {
    /// Starts it: this program once more.
    ///
    /// # Errors
    /// If there can be no other process, or it cannot be confined.
    pub(super) fn start() -> io::Result<Self> {
        let (socket, of_child) = UnixStream::pair()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(std::env::args_os().next().unwrap_or_default());
        command.arg(COMMAND).env_clear().stdin(OwnedFd::from(of_child)).stdout(Stdio::null());
        let started = Self { process: command.spawn()?, socket };
        let confined: Result<(), String> = message::read(&started.socket)?;
        confined.map_err(io::Error::other)?;
        Ok(started)
    }

    /// Asks it about something below this root.
    ///
    /// # Errors
    /// If it is gone, takes too long, or makes no sense. It is of no use then.
    pub(super) fn ask(&mut self, root: BorrowedFd<'_>, question: &Question) -> io::Result<Answer> {
        descriptor::send(&self.socket, root)?;
        message::write(question, &self.socket)?;
        let answer: Answer = message::read(&self.socket)?;
        let is_sound = |answer: &Answer| match answer {
            Ok(found) => {
                found.len() == question.addresses.len()
                    && found.iter().all(|names| names.len() <= INLINED)
                    && found
                        .iter()
                        .flatten()
                        .flat_map(|frame| [&frame.function, &frame.file])
                        .flatten()
                        .all(|text| is_short(text))
            }
            Err(Silence::Missing) => true,
            Err(Silence::Unreadable(why)) => is_short(why),
        };
        if is_sound(&answer) { Ok(answer) } else { Err(io::Error::other("it makes no sense")) }
    }
}

fn is_short(text: &str) -> bool {
    text.len() <= TEXT
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
