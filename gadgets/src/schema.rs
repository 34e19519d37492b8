//! What a gadget's records look like: streams and their fields, derived from the object's BTF.
//!
//! A schema travels once, at the start of a session; the records after it are raw. Its JSON form is therefore part of
//! the interface between versions: fields may be added, never changed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::btf::{Btf, BtfError, IntEncoding, Type, TypeId};

/// The ELF section in which `GADGET_STREAM` leaves one variable per stream.
const STREAM_SECTION: &str = ".gadget.streams";
const STREAM_PREFIX: &str = "gadget_stream_";
const HEADER_STRUCT: &str = "gadget_header";
const DOC_TAG: &str = "doc:";
/// Deepest nesting of structs that is flattened into fields.
const MAX_NESTING: usize = 4;

/// All streams of a gadget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// In the order of their ids.
    pub streams: Vec<Stream>,
}

/// One kind of record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// What the record's header carries.
    pub id: u16,
    /// The struct's name in C.
    pub name: String,
    /// Bytes of the struct: header and fields, without the tails that follow.
    pub size: u32,
    /// In the struct's order, the header left out, nested structs flattened.
    pub fields: Vec<Field>,
}

/// One member of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name in C; a nested struct's member is `outer.inner`. The key in JSON, the column in tables.
    pub name: String,
    /// Bytes from the record's start.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// What it means.
    pub kind: Kind,
    /// What it is, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
}

/// What a field means, and so how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A number without sign.
    Unsigned,
    /// A number.
    Signed,
    /// `false` or `true`.
    Bool,
    /// A process id in the host's pid namespace.
    Pid,
    /// A user id in the host's user namespace.
    Uid,
    /// A result: 0 or more for success, `-errno` for failure.
    Errno,
    /// A count of bytes.
    Bytes,
    /// Nanoseconds.
    Duration,
    /// Text in an array of bytes, up to its first NUL.
    Text,
    /// A string that follows the struct.
    String,
    /// A list of strings that follows the struct.
    Strings,
    /// Of a newer peer, or an array or union: shown as bytes.
    #[serde(other)]
    Opaque,
}

impl Kind {
    /// The meaning that a typedef of `gadget.h` gives.
    fn of_typedef(name: &str) -> Option<Self> {
        Some(match name {
            "gadget_pid" => Self::Pid,
            "gadget_uid" => Self::Uid,
            "gadget_errno" => Self::Errno,
            "gadget_bytes" => Self::Bytes,
            "gadget_duration" => Self::Duration,
            "gadget_string" => Self::String,
            "gadget_strings" => Self::Strings,
            _ => return None,
        })
    }

    /// Whether its value lies behind the struct.
    pub fn is_tail(self) -> bool {
        matches!(self, Self::String | Self::Strings)
    }

    /// Whether it is text or a list of texts.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text) || self.is_tail()
    }
}

/// Why an object has no schema.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SchemaError {
    /// Its BTF cannot be read.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// It declares no stream.
    #[error("the object declares no stream: use GADGET_STREAM")]
    NoStream,
    /// A stream's struct breaks the rules of `gadget.h`.
    #[error("stream {stream}: {problem}")]
    Stream {
        /// The variable that GADGET_STREAM made.
        stream: String,
        /// What is wrong.
        problem: String,
    },
}

impl Schema {
    /// The schema of a BPF object.
    ///
    /// # Errors
    /// If the BTF cannot be read, or a stream does not follow `gadget.h`.
    pub fn from_object(elf: &[u8]) -> Result<Self, SchemaError> {
        Self::from_btf(&Btf::from_object(elf)?)
    }

    /// The schema in an object's BTF.
    ///
    /// # Errors
    /// As [`Schema::from_object`].
    pub fn from_btf(btf: &Btf) -> Result<Self, SchemaError> {
        let mut streams = Vec::new();
        for variable in btf.section(STREAM_SECTION) {
            let stream = read_stream(btf, &variable.name, variable.type_id)
                .map_err(|problem| SchemaError::Stream { stream: variable.name.clone(), problem })?;
            streams.push(stream);
        }
        if streams.is_empty() {
            return Err(SchemaError::NoStream);
        }
        streams.sort_by_key(|stream: &Stream| stream.id);
        Ok(Self { streams })
    }

    /// The stream with this id.
    pub fn stream(&self, id: u16) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    /// All fields of all streams; one that several streams share appears once.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.streams.iter().enumerate().flat_map(move |(index, stream)| {
            let earlier = &self.streams[..index];
            stream.fields.iter().filter(move |field| earlier.iter().all(|other| other.field(&field.name).is_none()))
        })
    }
}

impl Stream {
    /// The field with this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

fn read_stream(btf: &Btf, variable: &str, type_id: TypeId) -> Result<Stream, String> {
    let id = variable
        .strip_prefix(STREAM_PREFIX)
        .and_then(|id| id.parse().ok())
        .ok_or("its variable is not gadget_stream_NUMBER")?;
    let struct_id = btf.struct_id(type_id).ok_or("its type is not a struct")?;
    let Some(Type::Struct { name, size, members }) = btf.get(struct_id) else { return Err("no struct".into()) };

    let first = members.first().ok_or("its struct is empty")?;
    let is_header = btf
        .struct_id(first.type_id)
        .and_then(|id| btf.get(id))
        .is_some_and(|header| matches!(header, Type::Struct { name, .. } if name == HEADER_STRUCT));
    if !is_header || first.bit_offset != 0 {
        return Err("its struct must begin with struct gadget_header".into());
    }

    let mut fields = Vec::new();
    read_members(
        btf,
        struct_id,
        Some(first.name.as_str()),
        &mut Place { prefix: "", offset: 0, depth: 0 },
        &mut fields,
    )?;
    if let Some(field) = fields.iter().find(|field| field.offset.saturating_add(field.size) > *size) {
        return Err(format!("{} lies outside the struct", field.name));
    }
    Ok(Stream { id, name: name.clone(), size: *size, fields })
}

struct Place<'a> {
    prefix: &'a str,
    offset: u32,
    depth: usize,
}

fn read_members(
    btf: &Btf,
    struct_id: TypeId,
    skip: Option<&str>,
    place: &mut Place<'_>,
    fields: &mut Vec<Field>,
) -> Result<(), String> {
    let Some(Type::Struct { members, .. }) = btf.get(struct_id) else { return Err("not a struct".into()) };
    for (index, member) in members.iter().enumerate() {
        if skip == Some(member.name.as_str()) {
            continue;
        }
        let name = format!("{}{}", place.prefix, member.name);
        if member.bit_size != 0 || member.bit_offset % 8 != 0 {
            return Err(format!("{name} is a bit field: give it whole bytes"));
        }
        let offset = place.offset.checked_add(member.bit_offset / 8).ok_or("offset out of range")?;
        let meaning = btf.typedef_names(member.type_id).find_map(Kind::of_typedef);
        if meaning.is_none()
            && let Some(inner) = btf.struct_id(member.type_id)
        {
            if place.depth >= MAX_NESTING {
                return Err(format!("{name} is nested too deep"));
            }
            let prefix = if member.name.is_empty() { place.prefix.to_owned() } else { format!("{name}.") };
            read_members(btf, inner, None, &mut Place { prefix: &prefix, offset, depth: place.depth + 1 }, fields)?;
            continue;
        }
        let size = btf.size_of(member.type_id).and_then(|size| u32::try_from(size).ok());
        let size = size.ok_or_else(|| format!("{name} has no size (records carry no pointers)"))?;
        let kind = meaning.or_else(|| plain_kind(btf, member.type_id)).unwrap_or(Kind::Opaque);
        check_size(&name, kind, size)?;
        let doc = btf.member_tags(struct_id, index).find_map(|tag| tag.strip_prefix(DOC_TAG)).unwrap_or_default();
        fields.push(Field { name, offset, size, kind, doc: doc.to_owned() });
    }
    Ok(())
}

fn plain_kind(btf: &Btf, type_id: TypeId) -> Option<Kind> {
    Some(match btf.resolve(type_id)? {
        Type::Int { encoding: IntEncoding::Bool, .. } => Kind::Bool,
        Type::Int { encoding: IntEncoding::Signed, .. } | Type::Enum { signed: true, .. } => Kind::Signed,
        Type::Int { .. } | Type::Enum { .. } => Kind::Unsigned,
        Type::Array { element, .. } => match btf.resolve(*element)? {
            Type::Int { size: 1, encoding: IntEncoding::Signed | IntEncoding::Char } => Kind::Text,
            _ => Kind::Opaque,
        },
        _ => return None,
    })
}

fn check_size(name: &str, kind: Kind, size: u32) -> Result<(), String> {
    let right = match kind {
        Kind::String | Kind::Strings => size == 4,
        Kind::Text | Kind::Opaque => true,
        _ => matches!(size, 1 | 2 | 4 | 8),
    };
    if right { Ok(()) } else { Err(format!("{name} has {size} bytes, which is no number's size")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execsnoop_describes_itself() {
        let schema = Schema::from_object(bpf::object("execsnoop").expect("an object")).expect("a schema");
        let stream = schema.stream(0).expect("stream 0");
        assert_eq!(stream.name, "exec");
        let kinds: Vec<(&str, Kind)> = stream.fields.iter().map(|field| (field.name.as_str(), field.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("pid", Kind::Pid),
                ("ppid", Kind::Pid),
                ("uid", Kind::Uid),
                ("ret", Kind::Errno),
                ("comm", Kind::Text),
                ("pcomm", Kind::Text),
                ("file", Kind::String),
                ("args", Kind::Strings),
            ]
        );
        assert!(stream.fields.iter().all(|field| !field.doc.is_empty()));
    }

    #[test]
    fn the_tracker_is_no_gadget() {
        let tracker = bpf::object("tracker").expect("an object");
        assert_eq!(Schema::from_object(tracker), Err(SchemaError::NoStream));
    }

    #[test]
    fn a_newer_kind_is_opaque() {
        let field: Field = serde_json::from_str(r#"{"name":"x","offset":32,"size":4,"kind":"colour","extra":1}"#)
            .expect("a field of a newer version");
        assert_eq!(field.kind, Kind::Opaque);
    }
}
