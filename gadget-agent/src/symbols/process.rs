//! A process whose stacks are named: what is mapped where, and the root that its paths begin at.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use gadgets::wire::StackFrame;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};

use super::ProgramId;
use super::message::Source;

/// Bytes of what /proc says that are read: a mapping takes some 100.
const MOST: u64 = 16 << 20;
/// Bytes that are shown of a path.
const MODULE: usize = 255;
/// What most of it fits into.
const USUAL: usize = 8 << 10;
const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
/// Folders above a process's root that are gone through to find where its mounts begin.
const DEEPEST: usize = 256;
const GONE: &str = "the process, or its first thread, had ended before its functions were looked up";
const REPLACED: &str = "the process had become another program before its functions were looked up";
/// What /proc counts in: a hundredth of a second on all processors that we build for.
pub(super) const CLOCK_TICK_NS: u64 = 10_000_000;

/// A folder, as the kernel tells it from others: device and inode.
pub(super) type RootId = (u64, u64);

pub(super) struct Process {
    /// Its folder in /proc: that of no other process, even if its id is another's by now.
    folder: OwnedFd,
    /// Where its own paths begin.
    root: OwnedFd,
    /// Where the paths of what it has mapped begin: that of its mount namespace.
    files: OwnedFd,
    /// Its id as it sees it itself.
    own_pid: u32,
    /// By where they begin.
    mappings: Vec<Mapping>,
}

/// A part of a process's memory that can be executed.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    begin: u64,
    end: u64,
    /// Where in the file it begins.
    offset: u64,
    /// Where it is written what is there.
    source: Option<Rc<Source>>,
    /// The end of the file's path; or as in `[vdso]`.
    module: Option<Rc<str>>,
}

/// Where an address lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// Where it is written what is there.
    pub(super) source: Option<Rc<Source>>,
    /// The address as it is called there.
    pub(super) address: u64,
    /// Of a file.
    pub(super) module: Option<Rc<str>>,
}

impl Process {
    /// Looks at one, or says why that cannot be done.
    pub(super) fn look_at(program: ProgramId) -> Result<Self, String> {
        let process = folder(&format!("/proc/{}", program.pid)).map_err(|_| GONE)?;
        let status = read(&process, "status").map_err(|_| GONE)?;
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let own_pid = ids.and_then(|ids| ids.split_whitespace().last()?.parse().ok()).ok_or(GONE)?;
        Self::look(process, own_pid, program)
    }

    /// Looks at it once more, if it is still that program.
    pub(super) fn look_again(&self, program: ProgramId) -> Option<Self> {
        Self::look(self.folder.try_clone().ok()?, self.own_pid, program).ok()
    }

    /// Whether it is not there any more.
    pub(super) fn has_ended(&self) -> bool {
        openat(&self.folder, "root", FOLDER, Mode::empty()).is_err()
    }

    /// Bytes that it takes, but for some.
    pub(super) fn size(&self) -> usize {
        self.mappings.iter().map(Mapping::size).sum()
    }

    fn look(process: OwnedFd, own_pid: u32, program: ProgramId) -> Result<Self, String> {
        let gone = |_| GONE.to_owned();
        let maps = read(&process, "maps").map_err(gone)?;
        let mappings: Vec<_> = maps.lines().filter_map(|line| Mapping::parse(line, own_pid)).collect();
        // One that is ending has none any more.
        if mappings.is_empty() {
            return Err(GONE.to_owned());
        }
        let refused = |error: io::Error| {
            // One that waits for its parent has no files any more, and of one that is gone nothing may be looked at.
            let is_gone = error.kind() == io::ErrorKind::NotFound || read(&process, "stat").is_err();
            if is_gone { GONE.to_owned() } else { format!("the agent may not look at the process's files: {error}") }
        };
        let root = openat(&process, "root", FOLDER, Mode::empty()).map_err(|error| refused(error.into()))?;
        let files = top(&root).map_err(refused)?;
        // Last: what it is now it has been all the time, since it was already when its stack was taken.
        match identity_in(&read(&process, "stat").map_err(gone)?) {
            Some(now) if now == of_clock_ticks(program) => Ok(Self { folder: process, root, files, own_pid, mappings }),
            Some(_) => Err(REPLACED.to_owned()),
            None => Err(GONE.to_owned()),
        }
    }

    /// The root of the mounts that it sees: each container has one of its own.
    pub(super) fn mounts(&self) -> Option<RootId> {
        identity(&self.files).ok()
    }

    /// Where the paths of a source begin.
    pub(super) fn root_of(&self, source: &Source) -> BorrowedFd<'_> {
        match source {
            Source::File { .. } => self.files.as_fd(),
            Source::PerfMap { .. } => self.root.as_fd(),
        }
    }

    /// Which root that is: of all that there are at a time.
    pub(super) fn root_id(&self, source: &Source) -> Option<RootId> {
        identity(self.root_of(source)).ok()
    }

    /// Whether there was something that can be executed.
    pub(super) fn has_code_at(&self, address: u64) -> bool {
        self.mapping(address).is_some()
    }

    fn mapping(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.begin <= address);
        after.checked_sub(1).map(|at| &self.mappings[at]).filter(|mapping| address < mapping.end)
    }

    /// Where an address of its lies.
    pub(super) fn spot(&self, address: u64) -> Spot {
        let Some(mapping) = self.mapping(address) else { return Spot::default() };
        let Mapping { begin, offset, source, module, .. } = mapping;
        let address = if module.is_some() { address - begin + offset } else { address };
        Spot { source: source.clone(), address, module: module.clone() }
    }
}

fn folder(path: &str) -> io::Result<OwnedFd> {
    Ok(open(path, FOLDER, Mode::empty())?)
}

/// What a file of a process says.
fn read(process: &OwnedFd, file: &str) -> io::Result<String> {
    let file = File::from(openat(process, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?);
    let mut text = Vec::with_capacity(USUAL);
    file.take(MOST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Which program `/proc/PID/stat` is about: start in ticks, where the stack ends, where data end (proc_pid_stat(5): fields 22, 28 and 46).
pub(super) fn identity_in(stat: &str) -> Option<[u64; 3]> {
    // The name before them may have anything in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some([field(22)?, field(28)?, field(46)?])
}

/// Which program the kernel means, as `/proc/PID/stat` has it.
fn of_clock_ticks(program: ProgramId) -> [u64; 3] {
    [program.started / CLOCK_TICK_NS, program.stack_end, program.data_end]
}

fn identity(folder: impl AsFd) -> io::Result<RootId> {
    let status = fstat(folder)?;
    Ok((status.st_dev, status.st_ino))
}

/// The root of the mounts that a folder is in: what paths in `/proc/PID/maps` begin at, also those of a process that has changed its own root.
fn top(folder: &OwnedFd) -> io::Result<OwnedFd> {
    let mut here = folder.try_clone()?;
    for _ in 0..DEEPEST {
        let above = openat(&here, "..", FOLDER, Mode::empty())?;
        if identity(&above)? == identity(&here)? {
            break;
        }
        here = above;
    }
    Ok(here)
}

impl Mapping {
    /// A line of `/proc/PID/maps`, of what can be executed, of a process that knows itself by this id.
    fn parse(line: &str, own_pid: u32) -> Option<Self> {
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
            rest = after;
            word
        };
        let (begin, end) = word().split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (begin, end) = (hex(begin)?, hex(end)?);
        if !word().contains('x') {
            return None;
        }
        let (offset, device, inode) = (hex(word())?, word(), word().parse().ok()?);
        let name = rest.trim_start();
        // It can still be found by its path.
        let is_of_file = name.starts_with('/') && !name.starts_with("//") && !name.starts_with("/memfd:");
        // The kernel's own, or a stack.
        let is_special = name.starts_with('[') && !name.starts_with("[anon") && name != "[heap]";
        let source = match is_of_file {
            true => Source::File { path: name.to_owned(), device: device.to_owned(), inode },
            false => Source::PerfMap { pid: own_pid },
        };
        let module = (is_of_file || is_special).then(|| end_of(name));
        Some(Self { begin, end, offset, source: (!is_special).then(|| Rc::new(source)), module })
    }

    /// Bytes that it takes, but for some.
    fn size(&self) -> usize {
        let path = match self.source.as_deref() {
            Some(Source::File { path, .. }) => path.len(),
            _ => 0,
        };
        size_of::<Self>() + size_of::<Source>() + path + self.module.as_ref().map_or(0, |module| module.len())
    }
}

impl Spot {
    /// Whether there is no code.
    pub(super) fn is_nowhere(&self) -> bool {
        self.source.is_none() && self.module.is_none()
    }

    /// The frames of it, given the names of functions that were found there.
    pub(super) fn frames(&self, names: Vec<StackFrame>) -> Vec<Arc<StackFrame>> {
        let offset = self.module.is_some().then_some(self.address);
        let module = self.module.as_deref().map(str::to_owned);
        let jit = self.module.is_none() && !names.is_empty();
        let here = |frame| Arc::new(StackFrame { module: module.clone(), offset, jit, ..frame });
        if names.is_empty() { vec![here(StackFrame::default())] } else { names.into_iter().map(here).collect() }
    }
}

/// What is shown of a path: each function has it, and it may have thousands of letters.
fn end_of(path: &str) -> Rc<str> {
    match path.char_indices().find(|(at, _)| path.len() - at <= MODULE) {
        Some((at @ 1.., _)) => format!("…{}", &path[at..]).into(),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
        55d0c0000000-55d0c0001000 r--p 00000000 00:2d 77 /app/hot\n\
        55d0c0001000-55d0c0003000 r-xp 00001000 00:2d 77 /app/hot\n\
        7f0000000000-7f0000001000 r-xp 00000000 00:2d 80 /lib/with a space.so (deleted)\n\
        7f0000002000-7f0000003000 rwxp 00000000 00:00 0 \n\
        7f0000004000-7f0000005000 r-xp 00000000 00:01 9 /memfd:jit (deleted)\n\
        7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0                          [vdso]\n";

    fn process() -> Process {
        let [folder, root, files] = ["/proc/self", "/", "/"].map(|path| folder(path).expect("a folder"));
        Process {
            folder,
            root,
            files,
            own_pid: 5,
            mappings: MAPS.lines().filter_map(|line| Mapping::parse(line, 5)).collect(),
        }
    }

    #[test]
    fn addresses_lie_in_files_or_in_what_was_made() {
        let process = process();
        let file = |path: &str, inode| Some(Rc::new(Source::File { path: path.into(), device: "00:2d".into(), inode }));
        let spot = process.spot(0x55d0_c000_1234);
        assert_eq!((spot.source, spot.address), (file("/app/hot", 77), 0x1234));
        assert_eq!(process.spot(0x7f00_0000_0010).source, file("/lib/with a space.so (deleted)", 80));
        for made in [0x7f00_0000_2010, 0x7f00_0000_4010] {
            let spot = process.spot(made);
            assert_eq!((spot.source, spot.address), (Some(Rc::new(Source::PerfMap { pid: 5 })), made));
        }
        assert_eq!(process.spot(0x7ffc_0000_0001).module.as_deref(), Some("[vdso]"));
        // What cannot be executed is no code.
        assert_eq!(process.spot(0x55d0_c000_0010), Spot::default());
        assert_eq!(process.spot(1), Spot::default());
    }

    #[test]
    fn programs_are_told_apart_as_the_kernel_does() {
        let stat = "7 (a) R 1) S 1 7 7 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 8128 1 2 3 94 95 140 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 96 97 98";
        assert_eq!(identity_in(stat), Some([8128, 140, 97]));
        assert_eq!(identity_in("7 (a) S 1"), None);
        let program = ProgramId { pid: 7, started: 81_289_999_999, stack_end: 140, data_end: 97 };
        assert_eq!(of_clock_ticks(program), [8128, 140, 97]);
    }

    #[test]
    fn mounts_begin_above_a_folder() {
        let found = top(&folder("/proc/self/fd").expect("a folder")).expect("the top");
        let root = folder("/").expect("the root");
        assert_eq!(identity(&found).expect("its status"), identity(&root).expect("its status"));
    }

    #[test]
    fn of_a_long_path_the_end_is_shown() {
        let long = format!("/{}/hot", "é".repeat(MODULE));
        let shown = end_of(&long);
        assert!(
            shown.starts_with("…é") && shown.ends_with("é/hot") && shown.len() <= MODULE + '…'.len_utf8(),
            "{shown}"
        );
        assert_eq!((&*end_of("/app/hot"), &*end_of("")), ("/app/hot", ""));
    }

    #[test]
    fn what_has_no_name_is_an_offset() {
        let spot = process().spot(0x55d0_c000_1234);
        let frames = spot.frames(Vec::new());
        assert_eq!((frames[0].module.as_deref(), frames[0].offset), (Some("/app/hot"), Some(0x1234)));
        let named = |name: &str| StackFrame { function: Some(name.into()), ..StackFrame::default() };
        let frames = spot.frames(vec![named("inner"), named("outer")]);
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| frame.module.is_some() && !frame.jit));
    }
}
