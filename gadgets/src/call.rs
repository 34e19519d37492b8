//! What a system call was given, as people and programs read it: much like strace writes it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use linux_raw_sys::general;
use serde_json::{Map, Value as Json};

use crate::capture::{self, Kind};
use crate::dictionary::{ArgEntry, SyscallEntry};
use crate::names::{constant, open_flags, syscall};
use crate::record::{Arguments, Piece};
use crate::socket_address::{self, quoted};

/// Most arguments of a call.
const MOST: usize = 6;
/// Longest name, and longest type, in bytes.
const LONGEST: usize = 128;
/// Behind what was cut off, as strace has it.
const CUT: &str = "...";
/// Numbers that readers of JSON keep: they may have 53 bits for them.
const EXACT: u64 = 1 << 53;

/// What a system call is given, by the kernel's own account.
#[derive(Clone, Debug)]
pub struct Signature {
    call: SyscallEntry,
    /// It is one of arm64, where some flags have other numbers.
    on_arm64: bool,
}

/// What is said of an argument.
enum Said<'a> {
    /// A quantity, or an id.
    Number(i128),
    /// A name, an address, or what else has no quotes.
    Word(String),
    /// What it points to.
    Text { bytes: &'a [u8], cut: bool },
    /// The same, of several texts, each with its NUL.
    List { bytes: &'a [u8], cut: bool },
    /// The first of several buffers.
    First { bytes: &'a [u8], cut: bool },
}

impl Signature {
    /// That of a call; `None` if it cannot be one: it may come from anywhere.
    pub fn new(call: SyscallEntry) -> Option<Self> {
        let is_name = |name: &str| {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_part)
        };
        let is_right = is_name(&call.name)
            && call.args.len() <= MOST
            && call.args.iter().all(|arg| is_name(&arg.name) && arg.kind.len() <= LONGEST);
        let number = u64::from(call.number);
        let on_arm64 =
            syscall::on_aarch64(number) == Some(&call.name) && syscall::on_x86_64(number) != Some(&call.name);
        is_right.then_some(Self { call, on_arm64 })
    }

    /// The call's number.
    pub fn number(&self) -> u32 {
        self.call.number
    }

    /// Adds what it was given as a table shows it, with commas in between: one line, without anything that a terminal would obey.
    pub fn cell(&self, given: &Arguments<'_>, out: &mut String) {
        let mut is_first = true;
        self.each(given, |_, said| {
            out.push_str(if std::mem::take(&mut is_first) { "" } else { ", " });
            match said {
                Said::Number(number) => _ = write!(out, "{number}"),
                Said::Word(word) => out.push_str(&word),
                Said::Text { bytes, cut } => {
                    quoted(bytes, out);
                    out.push_str(if cut { CUT } else { "" });
                }
                Said::First { bytes, cut } => {
                    out.push('[');
                    quoted(bytes, out);
                    out.push_str(if cut { "..., ...]" } else { "]" });
                }
                Said::List { bytes, cut } => {
                    out.push('[');
                    for (index, text) in texts(bytes).enumerate() {
                        out.push_str(if index > 0 { ", " } else { "" });
                        quoted(text, out);
                    }
                    out.push_str(if cut { "...]" } else { "]" });
                }
            }
        });
    }

    /// The same as a JSON object, by the arguments' names: numbers as numbers, text as it is, and all else as a table shows it. Text
    /// that is not UTF-8 has its bytes in `NAME_base64`, and what was cut off is told by `NAME_truncated`, as
    /// [`crate::format::json`] has it.
    pub fn json(&self, given: &Arguments<'_>) -> Json {
        let mut object = Map::new();
        self.each(given, |name, said| {
            let mut add = |suffix: &str, value: Json| _ = object.insert(format!("{name}{suffix}"), value);
            let mut cut_off = false;
            match said {
                Said::Number(number) => match i64::try_from(number) {
                    Ok(number) if number.unsigned_abs() <= EXACT => add("", number.into()),
                    _ => add("", number.to_string().into()),
                },
                Said::Word(word) => add("", word.into()),
                Said::Text { bytes, cut } | Said::First { bytes, cut } => {
                    cut_off = cut;
                    add("", String::from_utf8_lossy(bytes).into());
                    if str::from_utf8(bytes).is_err() {
                        add("_base64", BASE64_STANDARD.encode(bytes).into());
                    }
                }
                Said::List { bytes, cut } => {
                    cut_off = cut;
                    add("", texts(bytes).map(String::from_utf8_lossy).collect());
                    if str::from_utf8(bytes).is_err() {
                        add("_base64", texts(bytes).map(|text| BASE64_STANDARD.encode(text)).collect());
                    }
                }
            }
            if cut_off {
                add("_truncated", true.into());
            }
        });
        Json::Object(object)
    }

    /// Tells of each argument that counts.
    fn each<'a>(&self, given: &Arguments<'a>, mut tell: impl FnMut(&str, Said<'a>)) {
        let pieces: Vec<(Piece<'a>, Kind, bool)> = given
            .pieces()
            .filter_map(|piece| Kind::of_piece(piece.kind).map(|(kind, has_started)| (piece, kind, has_started)))
            .collect();
        // Then the registers tell nothing of the call.
        let has_started = pieces.iter().any(|(.., has_started)| *has_started);
        for (at, (arg, register)) in self.call.args.iter().zip(given.registers).enumerate() {
            let piece = pieces.iter().find(|(piece, ..)| usize::from(piece.argument) == at);
            if let Some(said) = piece.and_then(|(piece, kind, _)| pointed_to(&self.call.name, arg, piece, *kind)) {
                tell(&arg.name, said);
            } else if !has_started && self.counts(&arg.name, &given.registers) {
                tell(&arg.name, self.in_register(arg, register, &given.registers));
            }
        }
    }

    /// Whether the call looks at an argument, as far as that depends on another: else what it holds is chance.
    fn counts(&self, argument: &str, registers: &[u64; 6]) -> bool {
        let makes_file = |flags: u64| {
            let flags = self.portable(flags);
            flags & u64::from(general::O_CREAT) != 0 || flags & open_flags::TEMPORARY != 0
        };
        match (self.call.name.as_str(), argument) {
            ("open" | "mq_open", "mode" | "u_attr") => makes_file(registers[1]),
            ("openat", "mode") => makes_file(registers[2]),
            ("mremap", "new_addr") => registers[3] & u64::from(general::MREMAP_FIXED) != 0,
            ("fcntl", "arg") => !matches!(
                registers[1] as u32,
                general::F_GETFD
                    | general::F_GETFL
                    | general::F_GETOWN
                    | general::F_GETSIG
                    | general::F_GETLEASE
                    | general::F_GETPIPE_SZ
                    | general::F_GET_SEALS
            ),
            ("futex", name) => {
                let last = match registers[1] as u32 & !(general::FUTEX_PRIVATE_FLAG | general::FUTEX_CLOCK_REALTIME) {
                    general::FUTEX_WAKE => "val",
                    general::FUTEX_WAIT => "utime",
                    _ => return true,
                };
                let place = |name: &str| self.call.args.iter().position(|arg| arg.name == name);
                place(name) <= place(last)
            }
            _ => true,
        }
    }

    /// What is said of an argument from its register alone.
    fn in_register(&self, arg: &ArgEntry, register: u64, registers: &[u64; 6]) -> Said<'static> {
        let call = self.call.name.as_str();
        let (signed, name) = (i128::from(register as u32 as i32), arg.name.as_str());
        if name.contains("dfd") && signed == i128::from(general::AT_FDCWD) {
            return Said::Word("AT_FDCWD".into());
        }
        let is_open = matches!((call, name), ("open" | "openat", "flags") | ("mq_open", "oflag"))
            || (call == "fcntl" && name == "arg" && registers[1] as u32 == general::F_SETFL);
        if is_open {
            let (names, rest) = open_flags::names(self.portable(u64::from(register as u32)));
            let rest = (rest != 0).then(|| format!("|{rest:#x}"));
            return Said::Word(names.join("|") + &rest.unwrap_or_default());
        }
        // Names are for what the kernel takes of a register.
        let number = if is_long(arg) { register } else { u64::from(register as u32) };
        if let Some(word) = constant::of(call, name, registers).and_then(|names| names.text(number)) {
            return Said::Word(word);
        }
        plain(call, arg, register)
    }

    /// Flags of open(2), numbered as on x86-64 (`portable_open_flags` of `compat.h`).
    fn portable(&self, flags: u64) -> u64 {
        const DIRECTORY_AND_NOFOLLOW: u64 = 0xc000;
        const DIRECT_AND_LARGEFILE: u64 = 0x30000;
        if !self.on_arm64 {
            return flags;
        }
        (flags & !(DIRECTORY_AND_NOFOLLOW | DIRECT_AND_LARGEFILE))
            | (flags & DIRECTORY_AND_NOFOLLOW) << 2
            | (flags & DIRECT_AND_LARGEFILE) >> 2
    }
}

fn is_long(arg: &ArgEntry) -> bool {
    matches!(without_const(&arg.kind), "unsigned long" | "long" | "size_t" | "loff_t" | "off_t" | "u64" | "__u64")
}

fn without_const(kind: &str) -> &str {
    kind.strip_prefix("const ").unwrap_or(kind)
}

/// A number that has no name.
fn plain(call: &str, arg: &ArgEntry, register: u64) -> Said<'static> {
    /// What a long number is if it is no address and no mask.
    const QUANTITIES: [&str; 12] = [
        "len",
        "old_len",
        "new_len",
        "size",
        "count",
        "bytecount",
        "vlen",
        "nr_segs",
        "maxnode",
        "nr_pages",
        "liovcnt",
        "riovcnt",
    ];
    let hex = |number: u64| Said::Word(if number == 0 { "0".into() } else { format!("{number:#x}") });
    let signed = Said::Number((register as u32 as i32).into());
    let name = arg.name.as_str();
    match without_const(&arg.kind) {
        _ if matches!(name, "fd" | "oldfd" | "newfd" | "fildes") => signed,
        // umask's is called int.
        "umode_t" => Said::Word(format!("{:04o}", register as u16)),
        "int" if call == "umask" => Said::Word(format!("{:04o}", register as u16)),
        "int" if matches!(name, "flag" | "flags") => hex(u64::from(register as u32)),
        "int" | "s32" | "__s32" | "pid_t" | "key_t" | "key_serial_t" | "mqd_t" | "timer_t" | "clockid_t" => signed,
        // No user or group: -1.
        "uid_t" | "gid_t" | "qid_t" if register as u32 == u32::MAX => signed,
        "uid_t" | "gid_t" | "qid_t" => Said::Number((register as u32).into()),
        "unsigned int" | "unsigned" | "u32" | "__u32" | "rwf_t"
            if name.contains("flag") || name == "mask" || name == "cmd" =>
        {
            hex(u64::from(register as u32))
        }
        "unsigned int" | "unsigned" | "u32" | "__u32" | "rwf_t" => Said::Number((register as u32).into()),
        "long" | "loff_t" | "off_t" => Said::Number((register as i64).into()),
        "size_t" => Said::Number(register.into()),
        "unsigned long" | "u64" | "__u64" if QUANTITIES.contains(&name) => Said::Number(register.into()),
        kind if kind.ends_with('*') && register == 0 => Said::Word("NULL".into()),
        kind if kind.starts_with("enum ") => Said::Number((register as u32).into()),
        _ => hex(register),
    }
}

/// What is said of that to which an argument points; `None` if nothing can be.
fn pointed_to<'a>(call: &str, arg: &ArgEntry, piece: &Piece<'a>, kind: Kind) -> Option<Said<'a>> {
    let Piece { bytes, cut, .. } = *piece;
    Some(match kind {
        // A setting is a number most of the time.
        Kind::BytesIn | Kind::BytesSized if arg.name == "optval" && bytes.len() == 4 => Said::Word(numbers(bytes)?),
        // Its result counts the NUL.
        Kind::BytesOut if call == "getcwd" => Said::Text { bytes: bytes.strip_suffix(b"\0").unwrap_or(bytes), cut },
        Kind::Text | Kind::Program | Kind::BytesIn | Kind::BytesOut | Kind::BytesSized => Said::Text { bytes, cut },
        Kind::ProgramArguments => Said::List { bytes, cut },
        Kind::VectorIn | Kind::VectorOut | Kind::MessageIn | Kind::MessageOut => Said::First { bytes, cut },
        Kind::AddressIn | Kind::AddressOut => {
            let mut text = String::new();
            socket_address::text(bytes, &mut text);
            Said::Word(text)
        }
        Kind::ValueIn | Kind::ValueOut => match capture::pointee(arg)? {
            "int" => Said::Word(numbers(bytes)?),
            "struct __kernel_timespec" => {
                let (seconds, rest) = bytes.split_first_chunk()?;
                let nanoseconds = i64::from_le_bytes(*rest.first_chunk()?);
                Said::Word(format!("{{tv_sec={}, tv_nsec={nanoseconds}}}", i64::from_le_bytes(*seconds)))
            }
            _ => return None,
        },
    })
}

/// Numbers of 32 bits; `None` if it is none.
fn numbers(bytes: &[u8]) -> Option<String> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    let numbers: Vec<String> = numbers.iter().map(|bytes| i32::from_le_bytes(*bytes).to_string()).collect();
    (!numbers.is_empty() && rest.is_empty()).then(|| format!("[{}]", numbers.join(", ")))
}

/// Texts, each with its NUL, but for the last if it was cut.
fn texts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let most = if bytes.is_empty() { 0 } else { usize::MAX };
    whole.split(|byte| *byte == 0).take(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::capture::tests::call;
    use crate::record::{HEADER_SIZE, Value, records};
    use crate::schema::{ARGUMENTS_SIZE, Field, Kind as Meaning};

    /// What is said of a call with these pieces, as a table shows it and in JSON.
    fn shown(call: &SyscallEntry, registers: [u64; 6], pieces: &[Copied<'_>]) -> (String, Json) {
        let mut captured = Vec::new();
        for (argument, kind, bytes, cut) in pieces {
            let length = bytes.len() as u16 | if *cut { 0x8000 } else { 0 };
            captured.extend([&[*argument, *kind], &length.to_le_bytes()[..], bytes].concat());
        }
        let size = HEADER_SIZE + ARGUMENTS_SIZE as usize;
        let mut bytes = vec![0; HEADER_SIZE];
        bytes.extend(registers.iter().flat_map(|register| register.to_le_bytes()));
        bytes.extend(call.number.to_le_bytes());
        bytes.extend([size as u16, captured.len() as u16].map(u16::to_le_bytes).concat());
        bytes.extend(captured);
        let whole = bytes.len() as u32;
        bytes[..4].copy_from_slice(&whole.to_le_bytes());
        let record = records(&bytes).next().expect("one").expect("a record");
        let field = Field {
            name: "args".into(),
            offset: HEADER_SIZE as u32,
            size: ARGUMENTS_SIZE,
            kind: Meaning::Arguments,
            values: Vec::new(),
            doc: String::new(),
        };
        let Ok(Value::Arguments(given)) = record.value(&field) else { panic!("no arguments") };
        let signature = Signature::new(call.clone()).expect("a signature");
        let mut cell = String::new();
        signature.cell(&given, &mut cell);
        (cell, signature.json(&given))
    }

    /// Argument, kind, bytes, and whether there were more.
    type Copied<'a> = (u8, u8, &'a [u8], bool);

    fn cell(declaration: &str, registers: [u64; 6], pieces: &[Copied<'_>]) -> String {
        shown(&call(0, declaration), registers, pieces).0
    }

    const OPENAT: &str = "openat(int dfd, const char * filename, int flags, umode_t mode)";
    const HERE: u64 = 0xffff_ff9c;

    #[test]
    fn calls_are_written_as_strace_writes_them() {
        let text = Kind::Text as u8;
        let path: &[Copied<'_>] = &[(1, text, b"/etc/passwd", false)];
        assert_eq!(
            cell(OPENAT, [HERE, 7, 0o2_000_000, 99, 0, 0], path),
            r#"AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC"#
        );
        assert_eq!(
            cell(OPENAT, [3, 7, 0o101, 0o644, 0, 0], &[(1, text, b"a\"b\n\x1b[m", true)]),
            r#"3, "a\"b\n\e[m"..., O_WRONLY|O_CREAT, 0644"#
        );
        // Where nothing was copied there is the address.
        assert_eq!(cell(OPENAT, [3, 0xff00, 0, 0, 0, 0], &[]), "3, 0xff00, O_RDONLY");
        assert_eq!(cell(OPENAT, [3, 0, 0, 0, 0, 0], &[]), "3, NULL, O_RDONLY");
        let write = "write(unsigned int fd, const char * buf, size_t count)";
        assert_eq!(
            cell(write, [1, 7, 6, 0, 0, 0], &[(1, Kind::BytesIn as u8, b"hello\n", false)]),
            r#"1, "hello\n", 6"#
        );
        let mmap = "mmap(unsigned long addr, unsigned long len, unsigned long prot, unsigned long flags, unsigned long fd, unsigned long off)";
        assert_eq!(
            cell(mmap, [0, 8192, 3, 0x22, u64::MAX, 0], &[]),
            "0, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0"
        );
        let connect = "connect(int fd, struct sockaddr * uservaddr, int addrlen)";
        let address = [2, 0, 1, 187, 10, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            cell(connect, [3, 7, 16, 0, 0, 0], &[(1, Kind::AddressIn as u8, &address, false)]),
            "3, {AF_INET, 10.0.0.7:443}, 16"
        );
        let pipe = "pipe2(int * fildes, int flags)";
        assert_eq!(
            cell(pipe, [7, 0o2_000_000, 0, 0, 0, 0], &[(0, Kind::ValueOut as u8, &[3, 0, 0, 0, 4, 0, 0, 0], false)]),
            "[3, 4], O_CLOEXEC"
        );
        let fcntl = "fcntl(unsigned int fd, unsigned int cmd, unsigned long arg)";
        assert_eq!(cell(fcntl, [3, 3, 99, 0, 0, 0], &[]), "3, F_GETFL");
        assert_eq!(cell(fcntl, [3, 2, 1, 0, 0, 0], &[]), "3, F_SETFD, FD_CLOEXEC");
        assert_eq!(cell(fcntl, [3, 4, 0o4002, 0, 0, 0], &[]), "3, F_SETFL, O_RDWR|O_NONBLOCK");
        assert_eq!(cell("setuid(uid_t uid)", [u64::MAX, 0, 0, 0, 0, 0], &[]), "-1");
        assert_eq!(
            cell("lseek(unsigned int fd, off_t offset, unsigned int whence)", [3, u64::MAX, 2, 0, 0, 0], &[]),
            "3, -1, SEEK_END"
        );
    }

    #[test]
    fn a_program_that_was_started_has_registers_of_its_own() {
        let execve = "execve(const char * filename, const char *const * argv, const char *const * envp)";
        let pieces: &[Copied<'_>] = &[(0, 0x80 | 13, b"/bin/sh", false), (1, 0x80 | 14, b"sh\0-c\0", true)];
        assert_eq!(cell(execve, [1, 2, 3, 4, 5, 6], pieces), r#""/bin/sh", ["sh", "-c"...]"#);
        assert_eq!(cell(execve, [1, 2, 0, 4, 5, 6], &[(0, 13, b"/none", false)]), r#""/none", 0x2, NULL"#);
    }

    #[test]
    fn flags_of_arm64_have_their_own_numbers() {
        // openat is 56 there. O_DIRECTORY, which is O_DIRECT elsewhere.
        let on_arm64 = shown(&call(56, OPENAT), [HERE, 0, 0o40_000, 0, 0, 0], &[]).0;
        let on_x86_64 = shown(&call(257, OPENAT), [HERE, 0, 0o40_000, 0, 0, 0], &[]).0;
        assert_eq!(
            (&*on_arm64, &*on_x86_64),
            ("AT_FDCWD, NULL, O_RDONLY|O_DIRECTORY", "AT_FDCWD, NULL, O_RDONLY|O_DIRECT")
        );
    }

    #[test]
    fn json_has_arguments_by_name() {
        let read = call(0, "read(unsigned int fd, char * buf, size_t count)");
        let json = shown(&read, [3, 7, u64::MAX, 0, 0, 0], &[(1, Kind::BytesOut as u8, b"\xffa", true)]).1;
        let expected = json!({
            "fd": 3,
            "buf": "\u{fffd}a",
            "buf_base64": "/2E=",
            "buf_truncated": true,
            "count": "18446744073709551615",
        });
        assert_eq!(json, expected);
        let json = shown(&call(0, OPENAT), [HERE, 7, 0, 0, 0, 0], &[(1, 1, b"/x", false)]).1;
        assert_eq!(json, json!({"dfd": "AT_FDCWD", "filename": "/x", "flags": "O_RDONLY"}));
    }

    #[test]
    fn what_cannot_be_a_call_is_none() {
        assert!(Signature::new(call(0, "read(unsigned int fd, char * buf, size_t count)")).is_some());
        for declaration in [
            "re\u{1b}ad(int fd)",
            "read(int f\"d)",
            "(int fd)",
            "read(int a, int b, int c, int d, int e, int f, int g)",
        ] {
            assert!(Signature::new(call(0, declaration)).is_none(), "{declaration:?}");
        }
        let long = ArgEntry { name: "fd".into(), kind: "i".repeat(LONGEST + 1) };
        assert!(Signature::new(SyscallEntry { number: 0, name: "read".into(), args: vec![long] }).is_none());
    }

    proptest! {
        #[test]
        fn any_call_is_one_harmless_line(
            name in "open|openat|fcntl|futex|execve|getcwd|setsockopt|x",
            args in proptest::collection::vec(
                ("[a-z_]{1,8}|flags|mode|optval|dfd|fd|arg|op", "int|umode_t|unsigned long|size_t|uid_t|const char *|int *|\\PC{0,12}"), 0..7),
            registers in any::<[u64; 6]>(),
            pieces in proptest::collection::vec(
                (0u8..8, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..32), any::<bool>()), 0..4),
        ) {
            let args: Vec<_> = args.into_iter().map(|(name, kind)| ArgEntry { name, kind }).collect();
            let call = SyscallEntry { number: 56, name, args };
            if Signature::new(call.clone()).is_some() {
                let pieces: Vec<_> = pieces.iter().map(|(at, kind, bytes, cut)| (*at, *kind, bytes.as_slice(), *cut)).collect();
                let (cell, json) = shown(&call, registers, &pieces);
                prop_assert!(!cell.contains(char::is_control), "{:?}", cell);
                prop_assert!(json.is_object());
            }
        }
    }
}
