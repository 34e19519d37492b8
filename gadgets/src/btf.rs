//! A reader of BTF, the type information that clang leaves in a BPF object.
//!
//! It reads what the schema needs: structs and their members, typedefs, arrays, variables of a section, and declaration
//! tags. The input may be anybody's, so every reference is checked and every walk is bounded. The format is the
//! kernel's `Documentation/bpf/btf.rst`.

use std::collections::HashMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionIndex};
use thiserror::Error;

/// Index of a type within its [`Btf`]; 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(pub u32);

/// What is wrong with an object or its BTF.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are not an ELF file that can be read.
    #[error("not an ELF object: {0}")]
    Elf(String),
    /// The ELF file has no `.BTF` section.
    #[error("the object has no BTF: compile it with clang -g -target bpf")]
    Missing,
    /// The BTF ends, points or counts where it must not.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
}

/// How an integer is meant (`BTF_INT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntEncoding {
    /// No sign.
    Unsigned,
    /// Two's complement.
    Signed,
    /// A text byte; C's `char` is [`IntEncoding::Signed`] under clang, this one is gcc's.
    Char,
    /// 0 or 1.
    Bool,
}

/// A member of a struct or union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Empty for an anonymous one.
    pub name: String,
    /// Its type.
    pub type_id: TypeId,
    /// From the struct's start.
    pub bit_offset: u32,
    /// 0 unless it is a bit field.
    pub bit_size: u32,
}

/// A variable in a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name in C.
    pub name: String,
    /// Its type.
    pub type_id: TypeId,
    /// Bytes from the section's start.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
}

/// One type. Kinds that the schema never looks into are [`Type::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing; only type 0.
    Void,
    /// An integer.
    Int {
        /// Bytes.
        size: u32,
        /// How it is meant.
        encoding: IntEncoding,
    },
    /// A fixed array.
    Array {
        /// Type of an element.
        element: TypeId,
        /// How many.
        length: u32,
    },
    /// A struct or union.
    Struct {
        /// Empty for an anonymous one.
        name: String,
        /// Bytes.
        size: u32,
        /// In their order.
        members: Vec<Member>,
    },
    /// An enumeration of up to 64 bits.
    Enum {
        /// Bytes.
        size: u32,
        /// Whether its values have a sign.
        signed: bool,
        /// In their order; a negative value as its two's complement.
        values: Vec<(String, u64)>,
    },
    /// Another name for a type.
    Typedef {
        /// The new name.
        name: String,
        /// The type it names.
        target: TypeId,
    },
    /// `const`, `volatile`, `restrict` or a type tag.
    Qualifier(TypeId),
    /// A variable.
    Var {
        /// Its name.
        name: String,
        /// Its type.
        type_id: TypeId,
    },
    /// A section with variables.
    Section {
        /// Its ELF name.
        name: String,
        /// Type of the variable, offset, size.
        variables: Vec<(TypeId, u32, u32)>,
    },
    /// A declaration tag: text attached to a type or to one member of it.
    DeclTag {
        /// The text.
        text: String,
        /// What it is attached to.
        target: TypeId,
        /// Index of the member, if it is attached to one.
        member: Option<u32>,
    },
    /// Any other kind.
    Other,
}

/// The types of one object.
#[derive(Clone, Debug, Default)]
pub struct Btf {
    types: Vec<Type>,
}

const MAGIC: u16 = 0xeb9f;
/// Longest chain of typedefs and qualifiers that is followed.
const MAX_CHAIN: usize = 32;
/// Longest name or tag, in bytes, as for the kernel's symbols. Any number of types may share one, and each copies it.
const MAX_NAME: usize = 512;

impl Btf {
    /// Reads the `.BTF` section of an ELF object.
    ///
    /// # Errors
    /// If the object is not ELF, has no BTF, or has BTF that does not hold together.
    pub fn from_object(elf: &[u8]) -> Result<Self, BtfError> {
        let file = object::File::parse(elf).map_err(|error| BtfError::Elf(error.to_string()))?;
        let section = file.section_by_name(".BTF").ok_or(BtfError::Missing)?;
        let data = section.data().map_err(|error| BtfError::Elf(error.to_string()))?;
        let mut btf = Self::parse(data)?;
        btf.place_variables(&file);
        Ok(btf)
    }

    /// clang leaves the offsets of variables to the linker, and there is none: they are in the symbol table.
    fn place_variables<'data>(&mut self, file: &object::File<'data>) {
        // Nothing here has a longer name, and any number of symbols may share one.
        let short = |name: object::Result<&'data [u8]>| name.ok().filter(|name| name.len() <= MAX_NAME);
        let sections: HashMap<SectionIndex, &[u8]> =
            file.sections().filter_map(|section| Some((section.index(), short(section.name_bytes())?))).collect();
        let offsets: HashMap<(&[u8], &[u8]), u64> = file
            .symbols()
            .filter_map(|symbol| {
                let section = *sections.get(&symbol.section_index()?)?;
                Some(((section, short(symbol.name_bytes())?), symbol.address()))
            })
            .collect();
        let names: Vec<Option<String>> = self
            .types
            .iter()
            .map(|candidate| match candidate {
                Type::Var { name, .. } => Some(name.clone()),
                _ => None,
            })
            .collect();
        for candidate in &mut self.types {
            let Type::Section { name: section, variables } = candidate else { continue };
            for (var, offset, _) in variables {
                let name = names.get(var.0 as usize).and_then(Option::as_deref).unwrap_or_default();
                let found = offsets.get(&(section.as_bytes(), name.as_bytes()));
                if let Some(found) = found.and_then(|found| u32::try_from(*found).ok()) {
                    *offset = found;
                }
            }
        }
    }

    /// Reads raw little-endian BTF.
    ///
    /// # Errors
    /// [`BtfError::Malformed`], with what is wrong.
    pub fn parse(data: &[u8]) -> Result<Self, BtfError> {
        let mut header = Reader { data, at: 0 };
        if header.u16()? != MAGIC {
            return Err(BtfError::Malformed("wrong magic, or not little-endian"));
        }
        let _version_and_flags = header.u16()?;
        let header_size = header.u32()? as usize;
        let (type_offset, type_size) = (header.u32()? as usize, header.u32()? as usize);
        let (string_offset, string_size) = (header.u32()? as usize, header.u32()? as usize);
        let part = |offset: usize, size: usize| {
            let start = header_size.checked_add(offset)?;
            data.get(start..start.checked_add(size)?)
        };
        let strings = part(string_offset, string_size).ok_or(BtfError::Malformed("strings outside the data"))?;
        let records = part(type_offset, type_size).ok_or(BtfError::Malformed("types outside the data"))?;

        let mut types = vec![Type::Void];
        let mut reader = Reader { data: records, at: 0 };
        while reader.at < records.len() {
            types.push(read_type(&mut reader, strings)?);
        }
        Ok(Self { types })
    }

    /// The type with this id; `None` if there is none.
    pub fn get(&self, id: TypeId) -> Option<&Type> {
        self.types.get(id.0 as usize)
    }

    /// Follows typedefs and qualifiers down to what the type is. `None` if the chain leaves the table or does not end.
    pub fn resolve(&self, mut id: TypeId) -> Option<&Type> {
        for _ in 0..MAX_CHAIN {
            match self.get(id)? {
                Type::Typedef { target, .. } | Type::Qualifier(target) => id = *target,
                other => return Some(other),
            }
        }
        None
    }

    /// The names of the typedefs on the way to the type, outermost first.
    pub fn typedef_names(&self, mut id: TypeId) -> impl Iterator<Item = &str> {
        let mut steps = 0;
        std::iter::from_fn(move || {
            while steps < MAX_CHAIN {
                steps += 1;
                match self.get(id)? {
                    Type::Typedef { name, target } => {
                        id = *target;
                        return Some(name.as_str());
                    }
                    Type::Qualifier(target) => id = *target,
                    _ => return None,
                }
            }
            None
        })
    }

    /// The variables of the section with this ELF name, by offset. Empty if there is no such section.
    pub fn section(&self, section: &str) -> Vec<Variable> {
        let mut found: Vec<Variable> = self
            .types
            .iter()
            .filter_map(|candidate| match candidate {
                Type::Section { name, variables } if name == section => Some(variables),
                _ => None,
            })
            .flatten()
            .filter_map(|&(var, offset, size)| match self.get(var)? {
                Type::Var { name, type_id } => Some(Variable { name: name.clone(), type_id: *type_id, offset, size }),
                _ => None,
            })
            .collect();
        found.sort_by_key(|variable| variable.offset);
        found
    }

    /// The declaration tags on a member of the struct with exactly this id.
    pub fn member_tags(&self, id: TypeId, index: usize) -> impl Iterator<Item = &str> {
        self.types.iter().filter_map(move |candidate| match candidate {
            Type::DeclTag { text, target, member: Some(member) } if *target == id && *member as usize == index => {
                Some(text.as_str())
            }
            _ => None,
        })
    }

    /// The id of the struct behind typedefs and qualifiers; `None` if it is none.
    pub fn struct_id(&self, mut id: TypeId) -> Option<TypeId> {
        for _ in 0..MAX_CHAIN {
            match self.get(id)? {
                Type::Typedef { target, .. } | Type::Qualifier(target) => id = *target,
                Type::Struct { .. } => return Some(id),
                _ => return None,
            }
        }
        None
    }

    /// Bytes that a value of the type takes; `None` if it has no size or the table is broken.
    pub fn size_of(&self, id: TypeId) -> Option<u64> {
        match self.resolve(id)? {
            Type::Int { size, .. } | Type::Enum { size, .. } | Type::Struct { size, .. } => Some(u64::from(*size)),
            Type::Array { element, length } => match self.resolve(*element)? {
                // One dimension is enough for us, and keeps this walk short on hostile input.
                Type::Int { size, .. } | Type::Enum { size, .. } | Type::Struct { size, .. } => {
                    Some(u64::from(*size) * u64::from(*length))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

fn read_type(reader: &mut Reader<'_>, strings: &[u8]) -> Result<Type, BtfError> {
    let name = string(strings, reader.u32()?)?;
    let info = reader.u32()?;
    let size_or_type = reader.u32()?;
    let length = (info & 0xffff) as usize;
    let flag = info >> 31 == 1;
    Ok(match (info >> 24) & 0x1f {
        1 => {
            let encoding = match (reader.u32()? >> 24) & 0xf {
                0 => IntEncoding::Unsigned,
                1 => IntEncoding::Signed,
                2 => IntEncoding::Char,
                4 => IntEncoding::Bool,
                _ => return Err(BtfError::Malformed("integer of unknown encoding")),
            };
            Type::Int { size: size_or_type, encoding }
        }
        3 => {
            let element = TypeId(reader.u32()?);
            let _index_type = reader.u32()?;
            Type::Array { element, length: reader.u32()? }
        }
        4 | 5 => {
            let mut members = Vec::new();
            for _ in 0..length {
                let member = string(strings, reader.u32()?)?;
                let type_id = TypeId(reader.u32()?);
                let offset = reader.u32()?;
                let (bit_offset, bit_size) = if flag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
                members.push(Member { name: member, type_id, bit_offset, bit_size });
            }
            Type::Struct { name, size: size_or_type, members }
        }
        6 | 19 => {
            let is_long = (info >> 24) & 0x1f == 19;
            let mut values = Vec::new();
            for _ in 0..length {
                let value = string(strings, reader.u32()?)?;
                let low = reader.u32()?;
                let number = match (is_long, flag) {
                    (true, _) => u64::from(reader.u32()?) << 32 | u64::from(low),
                    (false, true) => i64::from(low.cast_signed()).cast_unsigned(),
                    (false, false) => low.into(),
                };
                values.push((value, number));
            }
            Type::Enum { size: size_or_type, signed: flag, values }
        }
        8 => Type::Typedef { name, target: TypeId(size_or_type) },
        9..=11 | 18 => Type::Qualifier(TypeId(size_or_type)),
        13 => {
            reader.skip(length, 8)?;
            Type::Other
        }
        14 => {
            let _linkage = reader.u32()?;
            Type::Var { name, type_id: TypeId(size_or_type) }
        }
        15 => {
            let mut variables = Vec::new();
            for _ in 0..length {
                variables.push((TypeId(reader.u32()?), reader.u32()?, reader.u32()?));
            }
            Type::Section { name, variables }
        }
        17 => {
            let member = reader.u32()?;
            Type::DeclTag { text: name, target: TypeId(size_or_type), member: (member != u32::MAX).then_some(member) }
        }
        // Pointer, forward declaration, function, floating point.
        2 | 7 | 12 | 16 => Type::Other,
        _ => return Err(BtfError::Malformed("type of unknown kind")),
    })
}

fn string(strings: &[u8], offset: u32) -> Result<String, BtfError> {
    let rest = strings.get(offset as usize..).ok_or(BtfError::Malformed("name outside the strings"))?;
    let end = rest.iter().take(MAX_NAME + 1).position(|&byte| byte == 0);
    let end = end.ok_or(BtfError::Malformed("name without an end, or too long"))?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BtfError> {
        let bytes = self.data.get(self.at..).and_then(<[u8]>::first_chunk::<N>);
        self.at += N;
        bytes.copied().ok_or(BtfError::Malformed("it ends early"))
    }

    fn u16(&mut self) -> Result<u16, BtfError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BtfError> {
        self.take().map(u32::from_le_bytes)
    }

    fn skip(&mut self, count: usize, size: usize) -> Result<(), BtfError> {
        self.at += count * size;
        if self.at > self.data.len() { Err(BtfError::Malformed("it ends early")) } else { Ok(()) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// BTF of these types, word by word.
    pub(crate) fn raw(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let size = 4 * types.len() as u32;
        let header = [u32::from(MAGIC) | 1 << 16, 24, 0, size, size, strings.len() as u32];
        header.iter().chain(types).flat_map(|word| word.to_le_bytes()).chain(strings.iter().copied()).collect()
    }

    fn execsnoop() -> Vec<u8> {
        let elf = bpf::object("execsnoop").expect("an object");
        let file = object::File::parse(elf).expect("ELF");
        file.section_by_name(".BTF").and_then(|section| section.data().ok()).expect("BTF").to_vec()
    }

    /// Everything that can be asked of a table, so that hostile references are followed.
    fn visit(btf: &Btf) {
        for id in 0..=btf.types.len() as u32 + 1 {
            let id = TypeId(id);
            let _ = btf.resolve(id);
            let _ = btf.size_of(id);
            let _ = btf.struct_id(id);
            let _ = btf.typedef_names(id).count();
            let _ = btf.member_tags(id, 0).count();
            if let Some(Type::Section { name, .. }) = btf.get(id) {
                let _ = btf.section(name);
            }
        }
    }

    #[test]
    fn reads_sections_typedefs_and_tags() {
        let btf = Btf::from_object(bpf::object("execsnoop").expect("an object")).expect("BTF");
        let streams = btf.section(".gadget.streams");
        assert_eq!(streams.len(), 1);
        let id = btf.struct_id(streams[0].type_id).expect("a struct");
        let Some(Type::Struct { name, members, .. }) = btf.get(id) else { panic!("not a struct") };
        assert_eq!(name, "exec");
        let (index, pid) = members.iter().enumerate().find(|(_, member)| member.name == "pid").expect("pid");
        assert_eq!(btf.typedef_names(pid.type_id).next(), Some("gadget_pid"));
        assert_eq!(btf.member_tags(id, index).collect::<Vec<_>>(), ["doc:process id"]);
        let rodata = btf.section(".rodata");
        assert!(rodata.iter().any(|variable| variable.name == "failed_only" && variable.size == 1));
        let overlaps = rodata.windows(2).any(|pair| pair[0].offset + pair[0].size > pair[1].offset);
        assert!(rodata.len() > 2 && !overlaps, "{rodata:?}");
    }

    #[test]
    fn says_what_is_missing() {
        assert!(matches!(Btf::from_object(b"\x7fELF nonsense"), Err(BtfError::Elf(_))));
        assert!(matches!(Btf::parse(b""), Err(BtfError::Malformed(_))));
    }

    /// Or a file could have the table take far more memory than itself.
    #[test]
    fn names_have_a_limit() {
        const UNION: u32 = 5 << 24;
        let named = |length: usize| Btf::parse(&raw(&[0, UNION, 4], &[&vec![b'x'; length][..], b"\0"].concat()));
        assert!(named(MAX_NAME).is_ok());
        assert!(matches!(named(MAX_NAME + 1), Err(BtfError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(btf) = Btf::parse(&data) {
                visit(&btf);
            }
            let _ = Btf::from_object(&data);
        }

        #[test]
        fn damaged_btf_is_read_or_refused(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut data = execsnoop();
            for (index, value) in damage {
                let at = index.index(data.len());
                data[at] = value;
            }
            if let Ok(btf) = Btf::parse(&data) {
                visit(&btf);
            }
            let _ = Btf::parse(&data[..cut.index(data.len())]);
        }
    }
}
