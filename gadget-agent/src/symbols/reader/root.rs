//! A container's root, and files below it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Where a process finds what it has open, by its numbers.
pub(super) const DESCRIPTORS: &str = "/proc/self/fd";

/// The root of a container.
pub(super) struct Root {
    folder: OwnedFd,
    /// Where this process finds what it has open.
    descriptors: &'static Path,
}

impl Root {
    /// For a process that is locked into its own descriptors: [`super::confinement`].
    pub(super) fn of_confined(folder: OwnedFd) -> Self {
        Self { folder, descriptors: Path::new("/") }
    }

    /// For one that is not.
    #[cfg(test)]
    pub(super) fn of_anybody(folder: &Path) -> Self {
        Self { folder: File::open(folder).expect("a folder").into(), descriptors: Path::new(DESCRIPTORS) }
    }

    /// Opens a file below it, which no path and no link leads out of. Only ordinary files are opened: to open another may do something.
    pub(super) fn open(&self, path: &str) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let found = File::from(openat2(&self.folder, path, how)?);
        if !found.metadata()?.is_file() {
            return Err(io::Error::other("it is no ordinary file"));
        }
        File::open(self.path_of(&found))
    }

    /// A path to a file that is open.
    pub(super) fn path_of(&self, file: &File) -> PathBuf {
        self.descriptors.join(file.as_raw_fd().to_string())
    }
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
        let root = Root::of_anybody(&folder);
        let read = |path: &str| root.open(path).and_then(io::read_to_string);
        for path in ["/etc/hostname", "absolute", "up", "../../etc/hostname"] {
            assert_eq!(read(path).expect("it is inside"), "inside", "{path}");
        }
        assert!(read("own").is_err() && read("/etc").is_err() && read("/nothing").is_err());
        fs::remove_dir_all(folder).expect("it goes");
    }
}
