//! What is copied of that to which a system call's arguments point: derived from what the kernel says of the call. The kernel side
//! is `bpf/include/capture.h`, which has the same numbers.

use crate::dictionary::{ArgEntry, SyscallEntry};

/// Numbers of calls that can have a shape.
pub const CALLS: u32 = 512;
/// Pieces of a call.
const PIECES: usize = 4;
/// Bytes of a shape in the kernel: `struct capture_shape`.
pub const SHAPE_SIZE: usize = PIECES * 4;
/// Bytes of a text at most.
const TEXT: u8 = 255;
/// Bytes of a buffer at most.
const BUFFER: u8 = 64;
/// Bytes of the longest address that is known: `struct sockaddr_un`.
const ADDRESS: u8 = 110;
/// In the kind of a piece: a program was started, and the registers are its own.
const STARTED: u8 = 0x80;

/// Where the bytes of a piece are, and how many there are: `enum capture_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Up to a NUL.
    Text = 1,
    /// As many as another argument says.
    BytesIn = 2,
    /// As many as the call returned.
    BytesOut = 3,
    /// As many as is said where another argument points to.
    BytesSized = 4,
    /// Of a socket: as many as another argument says.
    AddressIn = 5,
    /// As many as is said where another argument points to.
    AddressOut = 6,
    /// Always the same number.
    ValueIn = 7,
    /// The same, if the call did not fail.
    ValueOut = 8,
    /// The first buffer of an iovec, of which another argument says how many there are.
    VectorIn = 9,
    /// The same, as far as the call has filled it.
    VectorOut = 10,
    /// The first buffer of a msghdr.
    MessageIn = 11,
    /// The same, as far as the call has filled it.
    MessageOut = 12,
    /// Text: the file to execute.
    Program = 13,
    /// Texts, each with its NUL: of a program that was started.
    ProgramArguments = 14,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Text,
        Self::BytesIn,
        Self::BytesOut,
        Self::BytesSized,
        Self::AddressIn,
        Self::AddressOut,
        Self::ValueIn,
        Self::ValueOut,
        Self::VectorIn,
        Self::VectorOut,
        Self::MessageIn,
        Self::MessageOut,
        Self::Program,
        Self::ProgramArguments,
    ];

    /// That of a piece, and whether the registers are those of a program that the call has started; `None` if it is not known.
    pub fn of_piece(kind: u8) -> Option<(Self, bool)> {
        let known = Self::ALL.into_iter().find(|known| *known as u8 == kind & !STARTED)?;
        Some((known, kind & STARTED != 0))
    }
}

/// A piece that is to be copied: `struct capture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Capture {
    kind: Kind,
    argument: u8,
    size: u8,
    most: u8,
}

/// What to copy of a call, as the kernel reads it; `None` if there is nothing.
pub fn shape(call: &SyscallEntry) -> Option<[u8; SHAPE_SIZE]> {
    let captures: Vec<Capture> = (0..call.args.len()).filter_map(|at| capture(call, at)).take(PIECES).collect();
    let mut shape = [0; SHAPE_SIZE];
    for (place, Capture { kind, argument, size, most }) in shape.chunks_mut(4).zip(&captures) {
        place.copy_from_slice(&[*kind as u8, *argument, *size, *most]);
    }
    (!captures.is_empty()).then_some(shape)
}

/// Calls that read a buffer to which the kernel's declaration would let them write.
const READERS: [&str; 4] = ["sendto", "sethostname", "setdomainname", "setsockopt"];
/// Names of the argument that says how large the one before it is.
const SIZES: [&str; 8] = ["size", "count", "len", "bufsiz", "bufsize", "msg_len", "plen", "optlen"];
/// What is an address and no text.
const NO_TEXT: &str = "shmaddr";
/// Times that the call is given; others it writes.
const TIMES_IN: [&str; 2] = ["rqtp", "timeout"];
const TIMES_OUT: [&str; 2] = ["tp", "interval"];

/// What to copy of an argument, if anything.
fn capture(call: &SyscallEntry, at: usize) -> Option<Capture> {
    let (arg, next) = (&call.args[at], call.args.get(at + 1));
    let argument = u8::try_from(at).ok()?;
    let piece = |kind, most| Some(Capture { kind, argument, size: argument.saturating_add(1), most });
    let is_constant = arg.kind.starts_with("const ");
    let reads = is_constant || READERS.contains(&call.name.as_str());
    let has_size = next.is_some_and(|next| !is_pointer(next) && SIZES.contains(&next.name.as_str()));
    let has_size_behind = next.is_some_and(|next| pointee(next) == Some("int") && next.name.ends_with("len"));
    match pointee(arg)? {
        "char *const" if arg.name == "argv" => piece(Kind::ProgramArguments, TEXT),
        "char" | "void" if has_size => piece(if reads { Kind::BytesIn } else { Kind::BytesOut }, BUFFER),
        "char" if has_size_behind => piece(Kind::BytesSized, BUFFER),
        "char" if call.name.starts_with("execve") => piece(Kind::Program, TEXT),
        "char" if arg.name != NO_TEXT => piece(Kind::Text, TEXT),
        "struct sockaddr" if has_size_behind || next.is_some_and(|next| pointee(next) == Some("int")) => {
            piece(Kind::AddressOut, ADDRESS)
        }
        "struct sockaddr" => piece(Kind::AddressIn, ADDRESS),
        "int" if arg.name == "fildes" || arg.name == "usockvec" => piece(Kind::ValueOut, 8),
        "int" if arg.name.ends_with("len") => piece(Kind::ValueOut, 4),
        "struct __kernel_timespec" if is_constant || TIMES_IN.contains(&arg.name.as_str()) => piece(Kind::ValueIn, 16),
        "struct __kernel_timespec" if TIMES_OUT.contains(&arg.name.as_str()) => piece(Kind::ValueOut, 16),
        "struct iovec" if call.name.contains("readv") && arg.name == "vec" => piece(Kind::VectorOut, BUFFER),
        "struct iovec" if call.name.contains("write") && arg.name == "vec" => piece(Kind::VectorIn, BUFFER),
        "struct user_msghdr" if call.name == "recvmsg" => piece(Kind::MessageOut, BUFFER),
        "struct user_msghdr" | "struct mmsghdr" if call.name.starts_with("send") => piece(Kind::MessageIn, BUFFER),
        _ => None,
    }
}

fn is_pointer(arg: &ArgEntry) -> bool {
    arg.kind.contains('*')
}

/// What an argument points to, without saying whether it may be changed.
pub(crate) fn pointee(arg: &ArgEntry) -> Option<&str> {
    let pointee = arg.kind.strip_suffix('*')?.trim_end();
    Some(pointee.strip_prefix("const ").unwrap_or(pointee))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A call as the kernel declares it: `name(type name, …)`.
    pub(crate) fn call(number: u32, declaration: &str) -> SyscallEntry {
        let (name, args) = declaration.strip_suffix(')').and_then(|text| text.split_once('(')).expect("a declaration");
        let arg = |arg: &str| {
            let (kind, name) = arg.trim().rsplit_once(' ').expect("a type and a name");
            ArgEntry { name: name.into(), kind: kind.into() }
        };
        let args = args.split(',').filter(|arg| !arg.is_empty()).map(arg).collect();
        SyscallEntry { number, name: name.into(), args }
    }

    fn kinds(declaration: &str) -> Vec<(u8, Kind)> {
        let shape = shape(&call(0, declaration)).unwrap_or_default();
        let kinds = shape.chunks(4).filter_map(|piece| Some((piece[1], Kind::of_piece(piece[0])?.0)));
        kinds.collect()
    }

    #[test]
    fn what_is_copied_follows_from_the_declaration() {
        use Kind::*;
        for (declaration, expected) in [
            ("getppid()", vec![]),
            ("close(unsigned int fd)", vec![]),
            ("shmdt(char * shmaddr)", vec![]),
            ("openat(int dfd, const char * filename, int flags, umode_t mode)", vec![(1, Text)]),
            ("truncate(const char * path, long length)", vec![(0, Text)]),
            ("rename(const char * oldname, const char * newname)", vec![(0, Text), (1, Text)]),
            ("write(unsigned int fd, const char * buf, size_t count)", vec![(1, BytesIn)]),
            ("read(unsigned int fd, char * buf, size_t count)", vec![(1, BytesOut)]),
            ("readlink(const char * path, char * buf, int bufsiz)", vec![(0, Text), (1, BytesOut)]),
            (
                "sendto(int fd, void * buff, size_t len, unsigned int flags, struct sockaddr * addr, int addr_len)",
                vec![(1, BytesIn), (4, AddressIn)],
            ),
            (
                "recvfrom(int fd, void * ubuf, size_t size, unsigned int flags, struct sockaddr * addr, int * addr_len)",
                vec![(1, BytesOut), (4, AddressOut), (5, ValueOut)],
            ),
            (
                "accept(int fd, struct sockaddr * upeer_sockaddr, int * upeer_addrlen)",
                vec![(1, AddressOut), (2, ValueOut)],
            ),
            ("pipe2(int * fildes, int flags)", vec![(0, ValueOut)]),
            ("writev(unsigned long fd, const struct iovec * vec, unsigned long vlen)", vec![(1, VectorIn)]),
            ("readv(unsigned long fd, const struct iovec * vec, unsigned long vlen)", vec![(1, VectorOut)]),
            ("sendmsg(int fd, struct user_msghdr * msg, unsigned int flags)", vec![(1, MessageIn)]),
            (
                "execve(const char * filename, const char *const * argv, const char *const * envp)",
                vec![(0, Program), (1, ProgramArguments)],
            ),
        ] {
            assert_eq!(kinds(declaration), expected, "{declaration}");
        }
    }

    #[test]
    fn the_kernel_has_the_same_numbers() {
        let header = include_str!("../../bpf/include/capture.h");
        let names: Vec<&str> = header.lines().filter_map(|line| line.trim().strip_prefix("CAPTURE_")).collect();
        for kind in Kind::ALL {
            // TEXT = 1, of Text
            let said = names
                .iter()
                .filter_map(|line| line.split_once(" = "))
                .find(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next() == Some(&(kind as u8).to_string()));
            let name = said.map(|(name, _)| name.replace('_', "").to_lowercase());
            assert_eq!(name, Some(format!("{kind:?}").to_lowercase()));
        }
        for (name, value) in
            [("CALLS", CALLS), ("PIECES", PIECES as u32), ("LENGTH", TEXT.into()), ("STARTED", STARTED.into())]
        {
            let line = header.lines().find_map(|line| line.strip_prefix(&format!("#define CAPTURE_{name} ")));
            let said = line.and_then(|line| line.split_whitespace().next()).map(str::to_owned);
            assert!(said == Some(value.to_string()) || said == Some(format!("{value:#x}")), "{name}: {said:?}");
        }
    }
}
