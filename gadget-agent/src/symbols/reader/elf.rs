//! Names of functions in programs and libraries.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};
use gadgets::wire::StackFrame;
use object::{Object as _, ObjectSegment as _, ReadCache};

use super::debug_file::DebugLink;
use super::go_table::GoTable;
use super::root::Root;
use super::shortened;

/// Files that are kept for the next question; beyond that all are forgotten.
const MOST: usize = 128;
/// Functions that are told in the place of one.
const INLINED: usize = 32;

/// The files that were asked about.
#[derive(Default)]
pub(super) struct Files {
    known: HashMap<Identity, Elf>,
    /// With lines, and without.
    symbolizers: [Option<Symbolizer>; 2],
}

/// What a file is known by, whatever its path.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// A program or library.
struct Elf {
    segments: Vec<Segment>,
    /// What its symbols are read from.
    symbols: PathBuf,
    /// Open as long as that path is used.
    _file: File,
    /// What is there without debug information.
    go: Option<GoTable>,
}

/// A part of it that is mapped into memory.
struct Segment {
    offset: u64,
    size: u64,
    address: u64,
}

impl Files {
    /// The functions at these offsets of a file.
    pub(super) fn names(
        &mut self,
        root: Root,
        path: &str,
        offsets: &[u64],
        lines: bool,
    ) -> anyhow::Result<Vec<Vec<StackFrame>>> {
        let file = root.open(path)?;
        let metadata = file.metadata()?;
        let identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if self.known.len() >= MOST && !self.known.contains_key(&identity) {
            *self = Self::default();
        }
        let Self { known, symbolizers } = self;
        let elf = match known.entry(identity) {
            std::collections::hash_map::Entry::Occupied(entry) => {
                // A number that a file names is that of a file which stays, or of none.
                drop(file);
                entry.into_mut()
            }
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Elf::of(&root, path, file)?),
        };
        // What reads symbols follows names that are in files, to what this process has open.
        drop(root);
        let symbolizer = symbolizers[usize::from(lines)].get_or_insert_with(|| symbolizer(lines));
        Ok(elf.names(symbolizer, offsets, lines))
    }
}

/// What reads symbols. It is to look for nothing in other files, which are for the container's root to have: but where a file says that
/// others go with it, it looks for these, and finds nothing but what this process has open: [`super::confinement`].
fn symbolizer(lines: bool) -> Symbolizer {
    let none: [&str; 0] = [];
    Symbolizer::builder()
        .enable_auto_reload(false)
        .enable_code_info(lines)
        .enable_inlined_fns(lines)
        .set_debug_dirs(Some(none))
        .build()
}

impl Elf {
    fn of(root: &Root, path: &str, file: File) -> anyhow::Result<Self> {
        let cache = ReadCache::new(file.try_clone()?);
        let parsed = object::File::parse(&cache).context("it is no ELF file")?;
        let segment = |segment: object::Segment<'_, '_, _>| {
            let (offset, size) = segment.file_range();
            Segment { offset, size, address: segment.address() }
        };
        let segments = parsed.segments().map(segment).collect();
        let is_whole = parsed.section_by_name(".debug_info").is_some();
        let debug_file = if is_whole { None } else { DebugLink::of(&parsed).find(root, path) };
        let go = if is_whole || debug_file.is_some() { None } else { GoTable::of(&parsed, &file) };
        let file = debug_file.unwrap_or(file);
        Ok(Self { segments, symbols: root.path_of(&file), _file: file, go })
    }

    fn names(&self, symbolizer: &Symbolizer, offsets: &[u64], lines: bool) -> Vec<Vec<StackFrame>> {
        let source = Source::Elf(source::Elf { debug_syms: lines, ..source::Elf::new(&self.symbols) });
        let name = |offset: &u64| {
            let address = self.address(*offset)?;
            if let Some(frame) = self.go.as_ref().and_then(|go| go.frame(address)) {
                return Some(vec![frame]);
            }
            let found = symbolizer.symbolize_single(&source, Input::VirtOffset(address)).ok()?;
            found.into_sym().map(frames)
        };
        offsets.iter().map(|offset| name(offset).unwrap_or_default()).collect()
    }

    /// Where it is that programs call an offset of the file.
    fn address(&self, offset: u64) -> Option<u64> {
        let segment = self
            .segments
            .iter()
            .find(|segment| offset.checked_sub(segment.offset).is_some_and(|inside| inside < segment.size))?;
        segment.address.checked_add(offset - segment.offset)
    }
}

/// The function at a place, and before it those that were put into it there.
fn frames(symbol: Sym<'_>) -> Vec<StackFrame> {
    let frame = |name: &str, code: Option<&CodeInfo<'_>>, inlined| StackFrame {
        function: Some(shortened(name)),
        file: code.map(|code| shortened(&code.to_path().to_string_lossy())),
        line: code.and_then(|code| code.line),
        inlined,
        ..StackFrame::default()
    };
    let inlined = symbol
        .inlined
        .iter()
        .rev()
        .take(INLINED)
        .map(|function| frame(&function.name, function.code_info.as_ref(), true));
    inlined.chain([frame(&symbol.name, symbol.code_info.as_deref(), false)]).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    const SOURCE: &[u8] = b"int run(int n) { return n * 3; }\nint main(int argc, char **argv) { return run(argc); }\n";

    /// A folder that is a root, which goes with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("gadget-agent-elf-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        fn run(&self, program: &str, args: &[&str], input: &[u8]) {
            let mut command = Command::new(program);
            let mut process = command.args(args).current_dir(&self.0).stdin(Stdio::piped()).spawn().expect(program);
            process.stdin.take().expect("its input").write_all(input).expect("it reads");
            assert!(process.wait().expect("it ends").success(), "{program} {args:?}");
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Compiles a program: one with lines, the file with what is taken out of it, and what is left, which names that file.
    fn compile(root: &Folder) {
        root.run("cc", &["-g", "-O0", "-Wl,--build-id=none", "-x", "c", "-o", "whole", "-"], SOURCE);
        root.run("objcopy", &["--only-keep-debug", "whole", "hot.debug"], &[]);
        root.run("objcopy", &["--strip-all", "--add-gnu-debuglink=hot.debug", "whole", "stripped"], &[]);
    }

    /// What is at the beginning of `run`.
    fn name_of_run(root: &Folder, file: &str) -> Option<StackFrame> {
        name_at(root, "run", file)
    }

    /// What is called what at the beginning of what has this symbol in `whole`.
    fn name_at(root: &Folder, symbol: &str, file: &str) -> Option<StackFrame> {
        let whole = fs::read(root.0.join("whole")).expect("a program");
        let parsed = object::File::parse(&*whole).expect("a program");
        let run = object::ObjectSymbol::address(&parsed.symbol_by_name(symbol).expect("a symbol"));
        let segment =
            parsed.segments().find(|segment| (segment.address()..segment.address() + segment.size()).contains(&run));
        let segment = segment.expect("it is loaded");
        let offset = segment.file_range().0 + (run - segment.address());
        Files::default().names(Root::of_anybody(&root.0), file, &[offset], true).expect("it is read").remove(0).pop()
    }

    #[test]
    fn a_stripped_program_has_the_names_of_the_file_that_it_names_and_of_no_other() {
        let root = Folder::new("link");
        compile(&root);
        for file in ["whole", "stripped"] {
            let frame = name_of_run(&root, file).expect(file);
            assert_eq!((frame.function.as_deref(), frame.line), (Some("run"), Some(1)), "{file}");
        }
        let debug = root.0.join("hot.debug");
        let mut bytes = fs::read(&debug).expect("it is there");
        let last = bytes.last_mut().expect("it is not empty");
        *last ^= 1;
        fs::write(&debug, bytes).expect("it is written");
        assert_eq!(name_of_run(&root, "stripped"), None);
    }

    #[test]
    fn functions_are_called_as_in_their_source() {
        let root = Folder::new("names");
        let names = [
            ("_RNvCs15kBYyAo9fc_3hot5heavy", "hot::heavy"),
            // The older way of Rust.
            ("_ZN3hot5light17h0123456789abcdefE", "hot::light"),
            ("_ZN3hot4spinEij", "hot::spin(int, unsigned int)"),
        ];
        let functions = names.map(|(symbol, _)| format!("int {symbol}(int n) {{ return n * 3; }}\n")).concat();
        for lines in ["-g", "-g0"] {
            let source = [functions.as_bytes(), SOURCE].concat();
            root.run("cc", &[lines, "-O0", "-x", "c", "-o", "whole", "-"], &source);
            for (symbol, name) in names {
                let frame = name_at(&root, symbol, "whole").expect(symbol);
                assert_eq!(frame.function.as_deref(), Some(name), "{lines}");
            }
        }
    }

    /// The bytes of the stripped one.
    static STRIPPED: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let root = Folder::new("bytes");
        compile(&root);
        fs::read(root.0.join("stripped")).expect("a program")
    });

    proptest! {
        /// What others' code says of such files the agent survives, since it asks a process of its own.
        #[test]
        fn any_description_of_a_program_is_survived(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<[u8; 4]>()), 0..12),
            length in prop_oneof![Just(1.0), 0.0..1.0],
            offsets in proptest::collection::vec(prop_oneof![0..0x4000_u64, any::<u64>()], 8),
        ) {
            let mut bytes = STRIPPED.clone();
            for (at, is_head, change) in changes {
                // Most of what is believed is at the beginning, and where sections are described, at the end.
                let places = [bytes.len() - 4, 1024];
                let at = at.index(places[usize::from(is_head)]);
                bytes[at..at + 4].copy_from_slice(&change);
            }
            bytes.truncate((bytes.len() as f64 * length) as usize);
            let root = Folder::new("any");
            fs::write(root.0.join("any"), bytes).expect("a file");
            let below = Root::of_anybody(&root.0);
            let file = below.open("any").expect("it is there");
            if let Ok(elf) = Elf::of(&below, "any", file) {
                for offset in offsets {
                    let address = elf.address(offset);
                    let _ = elf.go.as_ref().zip(address).map(|(go, address)| go.frame(address));
                }
            }
        }
    }
}
