//! Files of a container, by their paths there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::PathBuf;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Opens a file below a root, which no path and no link leads out of. Only ordinary files are opened: to open another may do something.
pub(super) fn open(root: &impl AsFd, path: &str) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found = File::from(openat2(root, path, how)?);
    if !found.metadata()?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    File::open(path_of(&found))
}

/// A path to a file that is open.
pub(super) fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out_of_a_root() {
        let folder = std::env::temp_dir().join(format!("gadget-agent-root-{}", std::process::id()));
        fs::create_dir_all(folder.join("etc")).expect("a folder");
        fs::write(folder.join("etc/hostname"), "inside").expect("a file");
        for (link, to) in [("absolute", "/etc/hostname"), ("up", "../../../etc/hostname"), ("own", "/proc/self/exe")] {
            let _ = fs::remove_file(folder.join(link));
            symlink(to, folder.join(link)).expect("a link");
        }
        let root = File::open(&folder).expect("the root");
        let read = |path: &str| open(&root, path).and_then(io::read_to_string);
        for path in ["/etc/hostname", "absolute", "up", "../../etc/hostname"] {
            assert_eq!(read(path).expect("it is inside"), "inside", "{path}");
        }
        assert!(read("own").is_err() && read("/etc").is_err() && read("/nothing").is_err());
        fs::remove_dir_all(folder).expect("it goes");
    }
}
