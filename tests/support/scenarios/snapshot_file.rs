//! snapshot-file shows every open descriptor of a container, as /proc has it, and nobody else's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use gadgets::names::open_flags;
use serde_json::Value;

use super::families::{self, Families};
use super::{Containers, Scenario};
use crate::Seen;

/// All of it.
pub(super) static SNAPSHOT_FILE: Scenario = Scenario {
    gadget: "snapshot-file",
    client: "kubectl-gadget",
    agent: "gadget-agent",
    of_sockets: false,
    exact,
    // There are no events.
    storm: None,
};

/// O_CLOEXEC, which is of the descriptor and no flag of the file; and O_LARGEFILE, which most have and nobody asked for.
const NOT_SHOWN: u64 = 0o2_000_000 | 0o100_000;

#[derive(Debug, PartialEq, Eq)]
struct OpenFile {
    kind: String,
    flags: Vec<String>,
    offset: u64,
    size: u64,
    inode: u64,
    links: u64,
    /// Path, or what the kernel calls an anonymous one.
    name: String,
}

/// A descriptor, as /proc/PID/fd and fdinfo have it.
fn of_proc(link: &Path) -> OpenFile {
    let place = fs::read_link(link).unwrap();
    let (metadata, place) = (fs::metadata(link).unwrap(), place.into_os_string().into_string().unwrap());
    let info = link.parent().unwrap().with_file_name("fdinfo").join(link.file_name().unwrap());
    let info = fs::read_to_string(info).unwrap();
    let of_info = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}: {info}")).trim().to_owned()
    };
    let is = metadata.file_type();
    // net:[4026531840], pidfd:[17] (6.9).
    let numbered = place.split_once(":[").map(|(what, _)| if what == "pidfd" { "[pidfd]" } else { what });
    let numbered = numbered.filter(|what| !["pipe", "socket", "anon_inode"].contains(what));
    let anonymous = place.strip_prefix("anon_inode:").or(numbered);
    let kind = match () {
        () if anonymous.is_some() => "anonymous",
        () if is.is_fifo() => "pipe",
        () if is.is_socket() => "socket",
        () if is.is_char_device() => "character",
        () if is.is_dir() => "directory",
        () if is.is_file() => "regular",
        () => panic!("{place}"),
    };
    let is_nowhere = ["pipe:[", "socket:["].iter().any(|start| place.starts_with(start));
    let name = anonymous.unwrap_or(if is_nowhere { "" } else { place.strip_suffix(" (deleted)").unwrap_or(&place) });
    let flags = u64::from_str_radix(&of_info("flags"), 8).unwrap() & !NOT_SHOWN;
    OpenFile {
        kind: kind.to_owned(),
        flags: open_flags::names(flags).0.iter().map(ToString::to_string).collect(),
        offset: of_info("pos").parse().unwrap(),
        size: metadata.size(),
        inode: metadata.ino(),
        links: metadata.nlink(),
        name: name.to_owned(),
    }
}

fn of_event(event: &Value) -> OpenFile {
    let number = |name: &str| event[name].as_u64().unwrap_or_else(|| panic!("{name}: {event}"));
    let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name}: {event}")).to_owned();
    OpenFile {
        kind: text("kind"),
        flags: event["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap().to_owned()).collect(),
        offset: number("offset"),
        size: number("size"),
        inode: number("inode"),
        links: number("links"),
        name: event["path"].as_str().unwrap_or(&text("name")).to_owned(),
    }
}

fn exact(containers: &mut dyn Containers, options: &[&str], members: usize) -> Seen {
    let families = Families::start(containers, members.min(20));
    let seen = families.first().take(&SNAPSHOT_FILE, options);
    let all = families.first().processes();
    let of_process = |process: &PathBuf| -> Vec<_> {
        let pid: u64 = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let open = families::descriptors(process).into_iter();
        open.map(|path| ((pid, path.file_name().unwrap().to_str().unwrap().parse().unwrap()), of_proc(&path))).collect()
    };
    let expected: BTreeMap<(u64, u64), OpenFile> = all.iter().flat_map(of_process).collect();
    let events = seen.events();
    let key = |event: &Value| (event["pid"].as_u64().unwrap(), event["fd"].as_u64().unwrap());
    let shown: BTreeMap<_, _> = events.iter().map(|event| (key(event), of_event(event))).collect();
    assert_eq!((&shown, events.len()), (&expected, expected.len()));
    let kinds = ["regular", "directory", "pipe", "socket", "character", "anonymous"];
    for kind in kinds {
        assert!(expected.values().any(|file| file.kind == kind), "no {kind}");
    }
    assert!(expected.values().any(|file| file.links == 0 && file.kind == "regular"));
    for name in ["[eventfd]", "[pidfd]", "net"] {
        assert!(expected.values().any(|file| file.name == name && file.kind == "anonymous"), "no {name}");
    }
    families.end(containers);
    seen
}
