//! Names of functions of Go, from the table by which its runtime finds them: it is there in stripped programs, too.
//!
//! The layout is that of Go 1.18 and later (`src/runtime/symtab.go`, `src/debug/gosym/pclntab.go`). A table may have tens of
//! megabytes, so parts of it are read when they are asked for.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use gadgets::wire::StackFrame;
use object::{Object as _, ObjectSection as _, ReadCache};

use super::shortened;

/// Where programs have it: those at a fixed place, and others.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// What it begins with, since 1.18 and since 1.20.
const MAGICS: [u32; 2] = [0xffff_fff0, 0xffff_fff1];
/// Bytes of an address.
const WORD: u64 = 8;
/// Where its head has words, in this order: numbers of functions and files, the functions' base address, and where the parts are.
const HEAD: u64 = 8;
/// Where the module's data has the base address, a word: the head has none from 1.26 on.
const MODULE: &str = ".go.module";
const MODULE_TEXT: u64 = 22;
/// Bytes of a function in the list of all: where it begins, and where more is said.
const ENTRY: u64 = 8;
/// Bytes that are looked at for what a table of values says of a place.
const MOST: usize = 16 << 10;
/// Which table of values says of a place whether it is in a function that was put into this one.
const INLINED: u64 = 2;

/// The table of one program.
pub(super) struct GoTable {
    file: File,
    /// Where the section is in the file.
    offset: u64,
    size: u64,
    /// Where the functions begin.
    text: u64,
    /// What addresses of instructions are multiples of.
    quantum: u64,
    functions: u64,
    /// Where its parts are: names, numbers of files, files, tables of values, and functions.
    parts: [u64; 5],
    /// Bytes of what is said of a function before its tables of values.
    function_size: u64,
}

/// What the table says of a function.
struct Function {
    /// Where it begins, from the base address.
    begin: u64,
    /// Where more is said.
    at: u64,
}

impl GoTable {
    /// That of a program, if it has one.
    pub(super) fn of<'a>(program: &object::File<'a, &'a ReadCache<File>>, file: &File) -> Option<Self> {
        let section = SECTIONS.iter().find_map(|name| program.section_by_name(name))?;
        let (offset, size) = section.file_range()?;
        let file = file.try_clone().ok()?;
        let mut table = Self { file, offset, size, text: 0, quantum: 1, functions: 0, parts: [0; 5], function_size: 0 };
        let [magic] = table.numbers(0)?;
        let [quantum, word] = table.bytes(6)?.map(u64::from);
        if !MAGICS.contains(&magic) || word != WORD {
            return None;
        }
        let word = |index: u64| Some(u64::from_le_bytes(table.bytes(HEAD + index * WORD)?));
        let parts = [word(3)?, word(4)?, word(5)?, word(6)?, word(7)?];
        let functions = word(0)?;
        let in_module = || address_in(program, &table.file, &program.section_by_name(MODULE)?, MODULE_TEXT * WORD);
        let text = address_in(program, &table.file, &section, HEAD + 2 * WORD).or_else(in_module)?;
        // 1.20 also says at which line a function begins.
        table.function_size = if magic == MAGICS[0] { 40 } else { 44 };
        Some(Self { text, quantum, functions, parts, ..table })
    }

    /// The function at an address, and its line.
    pub(super) fn frame(&self, address: u64) -> Option<StackFrame> {
        let place = address.checked_sub(self.text)?;
        let function = self.find(place)?;
        let [_, name] = self.numbers(function.at)?;
        let (file, line) = self.line(&function, place).unzip();
        let function = Some(shortened(&self.text_at(self.parts[0].checked_add(name.into())?)?));
        Some(StackFrame { function, file, line, ..StackFrame::default() })
    }

    /// The function at a place from the base address: functions are in order, and behind the last one is their end.
    fn find(&self, place: u64) -> Option<Function> {
        let entry = |index: u64| {
            let [begin, at] = self.numbers(self.parts[4].checked_add(index.checked_mul(ENTRY)?)?)?;
            Some(Function { begin: begin.into(), at: self.parts[4].checked_add(at.into())? })
        };
        let end = self.bytes(self.parts[4].checked_add(self.functions.checked_mul(ENTRY)?)?)?;
        if place >= u32::from_le_bytes(end).into() {
            return None;
        }
        let (mut low, mut high) = (0, self.functions);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if entry(middle)?.begin <= place { low = middle } else { high = middle }
        }
        entry(low).filter(|function| function.begin <= place)
    }

    /// File and line of a place in a function. What was put into it from another one has none here: it would be the other's.
    fn line(&self, function: &Function, place: u64) -> Option<(String, u32)> {
        let [of_files, of_lines, tables, unit] = self.numbers(function.at.checked_add(5 * 4)?)?;
        let value = |table: u32| self.value(table, place - function.begin);
        if u64::from(tables) > INLINED {
            let [inlined] = self.numbers(function.at.checked_add(self.function_size + 4 * INLINED)?)?;
            if inlined != 0 && value(inlined)? >= 0 {
                return None;
            }
        }
        let number = u64::from(unit).checked_add(u64::try_from(value(of_files)?).ok()?)?;
        let [file] = self.numbers(self.parts[1].checked_add(number.checked_mul(4)?)?)?;
        let file = self.text_at(self.parts[2].checked_add(file.into())?)?;
        Some((shortened(&file), u32::try_from(value(of_lines)?).ok()?))
    }

    /// What a table of values says of a place in its function: it has differences, each with for how many instructions it holds.
    fn value(&self, table: u32, place: u64) -> Option<i64> {
        let bytes = self.up_to(self.parts[3].checked_add(table.into())?, MOST)?;
        let mut rest = bytes.as_slice();
        let (mut value, mut end) = (-1_i64, 0_u64);
        let mut is_first = true;
        loop {
            let difference = number(&mut rest)?;
            if difference == 0 && !is_first {
                return None;
            }
            is_first = false;
            let half = i64::from(difference >> 1);
            value = value.checked_add(if difference & 1 == 1 { !half } else { half })?;
            end = end.checked_add(u64::from(number(&mut rest)?).checked_mul(self.quantum)?)?;
            if place < end {
                return Some(value);
            }
        }
    }

    fn text_at(&self, at: u64) -> Option<String> {
        let bytes = self.up_to(at, super::TEXT + 1)?;
        let text = bytes.split(|byte| *byte == 0).next().filter(|text| !text.is_empty())?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn numbers<const N: usize>(&self, at: u64) -> Option<[u32; N]> {
        let mut numbers = [0; N];
        let bytes = self.up_to(at, 4 * N)?;
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
            *number = u32::from_le_bytes(*bytes);
        }
        (bytes.len() == 4 * N).then_some(numbers)
    }

    fn bytes<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        self.up_to(at, N)?.try_into().ok()
    }

    /// So many bytes of the section, or as many as it has from there on.
    fn up_to(&self, at: u64, most: usize) -> Option<Vec<u8>> {
        let length = self.size.checked_sub(at)?.min(most as u64);
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.file.read_exact_at(&mut bytes, self.offset.checked_add(at)?).ok()?;
        Some(bytes)
    }
}

/// An address that a section has at some place, or that the loader would put there.
fn address_in<'a>(
    program: &object::File<'a, &'a ReadCache<File>>,
    file: &File,
    section: &object::Section<'a, '_, &'a ReadCache<File>>,
    at: u64,
) -> Option<u64> {
    let mut written = [0; WORD as usize];
    file.read_exact_at(&mut written, section.file_range()?.0.checked_add(at)?).ok()?;
    let place = section.address().checked_add(at)?;
    match u64::from_le_bytes(written) {
        0 => u64::try_from(program.dynamic_relocations()?.find(|(address, _)| *address == place)?.1.addend()).ok(),
        address => Some(address),
    }
}

/// The next number of seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0;
    for shift in (0..32).step_by(7) {
        let (byte, others) = rest.split_first()?;
        *rest = others;
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table of the layout since 1.20, with these bytes as its section.
    fn table(bytes: &[u8], functions: u64, parts: [u64; 5]) -> GoTable {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(format!("go-table-{process}-{thread:?}"));
        std::fs::write(&path, bytes).expect("a file");
        let file = File::open(&path).expect("a file");
        std::fs::remove_file(path).expect("it goes");
        GoTable {
            file,
            offset: 0,
            size: bytes.len() as u64,
            text: 0x1000,
            quantum: 1,
            functions,
            parts,
            function_size: 44,
        }
    }

    #[test]
    fn functions_have_names_and_lines_but_none_of_what_was_put_into_them() {
        let names = b"main.run\0main.spin\0";
        let units = [0_u32];
        let files = b"/hot.go\0";
        // The file is the first one, all along; lines are 9 for 16 bytes, and 12; the second 8 bytes are another's.
        let values: [&[u8]; 3] = [&[2, 64, 0], &[20, 16, 6, 48, 0], &[0, 8, 2, 8, 1, 48, 0]];
        let function = |begin: u32, name: u32| {
            let [files, lines, inlined] = [1, 4, 9];
            let said = [begin, name, 0, 0, 0, files, lines, 3, 0, 7, 0, 0, 0, inlined];
            said.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()
        };
        let list = [0_u32, 20, 64, 76, 128];
        let mut bytes = names.to_vec();
        let mut parts = [0; 5];
        let values = [&[0][..], &values.concat()].concat();
        for (part, more) in parts[1..].iter_mut().zip([&units[0].to_le_bytes()[..], files, &values]) {
            *part = bytes.len() as u64;
            bytes.extend(more);
        }
        parts[4] = bytes.len() as u64;
        bytes.extend(list.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend([function(0, 0), function(64, 9)].concat());
        let table = table(&bytes, 2, parts);
        let shown = |address: u64| {
            let frame = table.frame(address)?;
            Some((frame.function.unwrap_or_default(), frame.file.zip(frame.line)))
        };
        let line = |line: u32| Some(("/hot.go".to_owned(), line));
        assert_eq!(shown(0x1000), Some(("main.run".to_owned(), line(9))));
        assert_eq!(shown(0x1008), Some(("main.run".to_owned(), None)));
        assert_eq!(shown(0x1010), Some(("main.run".to_owned(), line(12))));
        assert_eq!(shown(0x107f), Some(("main.spin".to_owned(), line(12))));
        assert_eq!((shown(0xfff), shown(0x1080)), (None, None));
    }

    proptest! {
        #[test]
        fn any_table_is_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            functions in prop_oneof![0..40_u64, any::<u64>()],
            parts in prop::array::uniform5(prop_oneof![0..600_u64, any::<u64>()]),
            addresses in proptest::collection::vec(prop_oneof![0x1000..0x2000_u64, any::<u64>()], 8),
        ) {
            let table = table(&bytes, functions, parts);
            for address in addresses {
                let _ = table.frame(address);
            }
        }
    }
}
