//! What system calls are given: the kernel describes each in tracefs, as an event that no one needs to enable.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::OnceLock;

use gadgets::capture;
use gadgets::names::syscall;
use gadgets::schema::{Kind, Schema};
use gadgets::wire::{ArgEntry, Dictionary, Frame, SyscallEntry};
use libbpf_rs::Object;

use super::load;
use crate::host::TRACEFS;

/// The map of the shapes of what is copied (`bpf/include/capture.h`). Only a gadget that shows arguments has it.
pub(crate) const SHAPES: &str = "capture_shapes";
/// What is missing where the kernel describes no call.
pub(crate) const WITHOUT: &str = "arguments are shown as registers, since the kernel does not describe its system calls: that needs \
                                  CONFIG_FTRACE_SYSCALLS and tracefs";

/// How the names of the events begin, one for each of the kernel's functions.
const EVENT: &str = "sys_enter_";
/// Descriptions that are read; a kernel has less than half as many.
const MOST: usize = 1024;
/// Bytes of a description. One has less than a quarter of that.
const LONGEST: u64 = 4096;
/// Calls in a frame.
const ENTRIES: usize = 64;

/// All calls that the kernel describes, in the order of their numbers. They are read once.
fn all() -> &'static [SyscallEntry] {
    static ALL: OnceLock<Vec<SyscallEntry>> = OnceLock::new();
    ALL.get_or_init(|| read(&Path::new(TRACEFS).join("events/syscalls")))
}

/// Whether an object that was loaded makes use of them.
pub(crate) fn are_wanted(object: &Object) -> bool {
    load::map(object, SHAPES).is_ok()
}

/// Whether there are none.
pub(crate) fn are_missing() -> bool {
    all().is_empty()
}

/// Keys and values of the map of shapes.
pub(crate) fn shapes() -> Vec<(Vec<u8>, Vec<u8>)> {
    let calls = all().iter().filter(|call| call.number < capture::CALLS);
    calls.filter_map(|call| Some((call.number.to_ne_bytes().to_vec(), capture::shape(call)?.to_vec()))).collect()
}

/// What a client needs to know of calls to show records of this schema.
pub(crate) fn frames(schema: &Schema) -> Vec<Frame> {
    if schema.fields().all(|field| field.kind != Kind::Arguments) {
        return Vec::new();
    }
    let frame =
        |calls: &[SyscallEntry]| Frame::Dictionary(Dictionary { syscalls: calls.to_vec(), ..Dictionary::default() });
    all().chunks(ENTRIES).map(frame).collect()
}

/// The calls that are described in a folder of tracefs. What cannot be read is left out.
fn read(folder: &Path) -> Vec<SyscallEntry> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut calls: Vec<SyscallEntry> = entries
        .take(2 * MOST)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let (number, name) = syscall::of_function(entry.file_name().to_str()?.strip_prefix(EVENT)?)?;
            let mut text = String::new();
            File::open(entry.path().join("format")).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
            Some(SyscallEntry { number, name: name.to_owned(), args: args(&text) })
        })
        .take(MOST)
        .collect();
    calls.sort_unstable_by_key(|call| call.number);
    calls.dedup_by_key(|call| call.number);
    calls
}

/// The arguments in an event's description.
fn args(format: &str) -> Vec<ArgEntry> {
    let arg = |line: &str| {
        let (declaration, _) = line.trim().strip_prefix("field:")?.split_once(';')?;
        let (kind, name) = declaration.rsplit_once(' ')?;
        // The event's own: its head, the call's number, and, since 6.19, texts that it copies.
        let is_own = name.starts_with("common_") || name.starts_with("__") || kind.starts_with("__data_loc");
        (!is_own).then(|| ArgEntry { name: name.to_owned(), kind: plain(kind) })
    };
    format.lines().filter_map(arg).collect()
}

/// A type without what compilers are told beside it: `__attribute__((…))`.
fn plain(kind: &str) -> String {
    const ATTRIBUTE: &str = "__attribute__((";
    let mut plain = kind.to_owned();
    while let Some(from) = plain.find(ATTRIBUTE) {
        // What is in it has parentheses of its own, and is one word.
        let to = plain[from..].find(' ').map_or(plain.len(), |length| from + length + 1);
        plain.replace_range(from..to, "");
    }
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "\
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:int __syscall_nr;	offset:8;	size:4;	signed:1;
";
    const OPENAT: &str = "\
	field:int dfd;	offset:16;	size:8;	signed:0;
	field:const char * filename;	offset:24;	size:8;	signed:0;
	field:int flags;	offset:32;	size:8;	signed:0;
	field:umode_t mode;	offset:40;	size:8;	signed:0;

print fmt: \"dfd: 0x%08lx, filename: 0x%08lx, flags: 0x%08lx, mode: 0x%08lx\", ((unsigned long)(REC->dfd))
";
    /// As 6.19 has it, and as a kernel would that was built by clang.
    const NEWER: &str = "\
	field:const char __attribute__((btf_type_tag(\"user\"))) * filename;	offset:16;	size:8;	signed:0;
	field:struct stat * statbuf;	offset:24;	size:8;	signed:0;
	field:__data_loc char[] __filename_val;	offset:32;	size:4;	signed:0;
";

    fn folder(files: &[(&str, &str)]) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("signatures-{}-{}", std::process::id(), files.len()));
        for (name, arguments) in files {
            let event = folder.join(name);
            fs::create_dir_all(&event).expect("a folder");
            fs::write(event.join("format"), format!("name: {name}\nID: 7\n{HEAD}{arguments}")).expect("a file");
        }
        folder
    }

    fn arg(kind: &str, name: &str) -> ArgEntry {
        ArgEntry { name: name.into(), kind: kind.into() }
    }

    #[test]
    fn calls_are_described_by_tracefs() {
        let files = [
            ("sys_enter_openat", OPENAT),
            ("sys_enter_newstat", NEWER),
            ("sys_enter_getppid", ""),
            ("sys_exit_openat", OPENAT),
            ("sys_enter_nobody_knows", OPENAT),
        ];
        let folder = folder(&files);
        fs::create_dir_all(folder.join("sys_enter_close")).expect("a folder without a file");
        let calls = read(&folder);
        fs::remove_dir_all(&folder).expect("a folder");
        let args = |name: &str| calls.iter().find(|call| call.name == name).map(|call| call.args.clone());
        let openat =
            [arg("int", "dfd"), arg("const char *", "filename"), arg("int", "flags"), arg("umode_t", "mode")].to_vec();
        assert_eq!(args("openat"), Some(openat));
        assert_eq!(args("getppid"), Some(Vec::new()));
        #[cfg(target_arch = "x86_64")]
        assert_eq!(args("stat"), Some([arg("const char *", "filename"), arg("struct stat *", "statbuf")].to_vec()));
        #[cfg(target_arch = "x86_64")]
        assert_eq!(calls.iter().map(|call| call.number).collect::<Vec<_>>(), [4, 110, 257]);
    }

    #[test]
    fn without_tracefs_there_are_none() {
        assert_eq!(read(Path::new("/nowhere")), []);
    }

    #[test]
    fn what_is_no_description_says_nothing() {
        for text in
            ["", "field:", "field:;", "\tfield:int;\toffset", "\tfield:int fd", "\tfield: ;", "\u{0}\u{1b}field:a b;"]
        {
            assert_eq!(args(text).iter().map(|arg| &*arg.name).find(|name| !name.is_empty()), None, "{text:?}");
        }
    }
}
