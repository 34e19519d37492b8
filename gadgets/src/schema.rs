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
const FLAGS_TAG: &str = "flags";
/// Deepest nesting of structs that is flattened into fields.
const MAX_NESTING: usize = 4;
/// Most fields that a schema has, all streams together: structs in structs multiply, and every event shows all of its.
const MAX_FIELDS: usize = 256;
/// Most bytes of a stream's struct: the offsets of tails behind it have 16 bits.
const MAX_SIZE: u32 = u16::MAX as u32;
/// Most values of a field that have names.
const MAX_VALUES: usize = 256;
/// Longest name of a field or value, in bytes.
const MAX_NAME: usize = 255;
/// Bytes of `struct gadget_endpoint`: 16 of the address (IPv4 as IPv6 has it), 2 of the port.
pub(crate) const ENDPOINT_SIZE: u32 = 18;
/// Bytes of `struct gadget_call_arguments`.
pub(crate) const ARGUMENTS_SIZE: u32 = 56;
/// What the client says of every event itself. A field of such a name could make it another's.
const RESERVED: [&str; 11] =
    ["type", "node", "namespace", "pod", "container", "owner", "labels", "time", "cgroup", "setup", "recorded_owner"];

/// All streams of a gadget. Wherever it comes from, it keeps the rules of `gadget.h`: what is read from an object or
/// from a peer is refused otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Schema {
    /// In the order of their ids.
    pub streams: Vec<Stream>,
}

/// A schema as a peer sends it.
#[derive(Deserialize)]
struct Unchecked {
    streams: Vec<Stream>,
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
    /// What its values are called, or, of flags, its bits: in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<NamedValue>,
    /// What it is, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
}

/// A value that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedValue {
    /// Its name, as an enumerator in C.
    pub name: String,
    /// The value.
    pub value: u64,
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
    /// Microseconds, rounded up; 0 if they are not known.
    Duration,
    /// Nanoseconds that have passed since then.
    Age,
    /// How long something took altogether, in nanoseconds.
    Span,
    /// One of the values that have names.
    Enum,
    /// Some of the bits that have names.
    Flags,
    /// Flags of open(2), numbered as on x86-64.
    OpenFlags,
    /// Permissions of a file.
    Mode,
    /// A capability's number.
    Capability,
    /// The number of a stack of the kernel, which the dictionary knows.
    KernelStack,
    /// The number of a program's stack, likewise.
    UserStack,
    /// A system call's number on x86-64.
    SyscallX86_64,
    /// The same of a program of 32 bits.
    SyscallX86,
    /// A system call's number on arm64.
    SyscallAarch64,
    /// The same of a program of 32 bits.
    SyscallArm,
    /// What a system call is given: six registers, and what they point to.
    Arguments,
    /// An address of IP and a port.
    Endpoint,
    /// The same of somebody else, whose name says more.
    Peer,
    /// The same with all that a NetworkPolicy can select it by.
    PolicyPeer,
    /// Text in an array of bytes, up to its first NUL.
    Text,
    /// A string that follows the struct.
    String,
    /// A list of strings that follows the struct.
    Strings,
    /// Names of directories, innermost first, that follow the struct.
    Path,
    /// Of a newer peer, or an array or union: shown as bytes.
    #[serde(other)]
    Opaque,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 30] = [
        Self::Unsigned,
        Self::Signed,
        Self::Bool,
        Self::Pid,
        Self::Uid,
        Self::Errno,
        Self::Bytes,
        Self::Duration,
        Self::Age,
        Self::Span,
        Self::Enum,
        Self::Flags,
        Self::OpenFlags,
        Self::Mode,
        Self::Capability,
        Self::KernelStack,
        Self::UserStack,
        Self::SyscallX86_64,
        Self::SyscallX86,
        Self::SyscallAarch64,
        Self::SyscallArm,
        Self::Arguments,
        Self::Endpoint,
        Self::Peer,
        Self::PolicyPeer,
        Self::Text,
        Self::String,
        Self::Strings,
        Self::Path,
        Self::Opaque,
    ];

    /// The meaning that a typedef of `gadget.h` gives.
    fn of_typedef(name: &str) -> Option<Self> {
        Some(match name {
            "gadget_pid" => Self::Pid,
            "gadget_uid" => Self::Uid,
            "gadget_errno" | "gadget_result" => Self::Errno,
            "gadget_bytes" => Self::Bytes,
            "gadget_duration" => Self::Duration,
            "gadget_age" => Self::Age,
            "gadget_span" => Self::Span,
            "gadget_open_flags" => Self::OpenFlags,
            "gadget_mode" => Self::Mode,
            "gadget_capability" => Self::Capability,
            "gadget_kernel_stack" => Self::KernelStack,
            "gadget_user_stack" => Self::UserStack,
            "gadget_syscall_x86_64" => Self::SyscallX86_64,
            "gadget_syscall_x86" => Self::SyscallX86,
            "gadget_syscall_aarch64" => Self::SyscallAarch64,
            "gadget_syscall_arm" => Self::SyscallArm,
            "gadget_arguments" => Self::Arguments,
            "gadget_endpoint" => Self::Endpoint,
            "gadget_peer" => Self::Peer,
            "gadget_policy_peer" => Self::PolicyPeer,
            "gadget_string" => Self::String,
            "gadget_strings" => Self::Strings,
            "gadget_path" => Self::Path,
            _ => return None,
        })
    }

    /// Whether somebody is behind it who has a name.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Peer | Self::PolicyPeer)
    }

    /// Whether its value lies behind the struct.
    pub fn is_tail(self) -> bool {
        matches!(self, Self::String | Self::Strings | Self::Path)
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
    /// It has too many fields.
    #[error("more than {MAX_FIELDS} fields in all streams")]
    TooManyFields,
    /// A stream's struct breaks the rules of `gadget.h`.
    #[error("stream {stream}: {problem}")]
    Stream {
        /// The variable that GADGET_STREAM made, or the stream's number.
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
        let mut room = MAX_FIELDS;
        for variable in btf.section(STREAM_SECTION) {
            let stream = read_stream(btf, &variable.name, variable.type_id, room)
                .map_err(|problem| SchemaError::Stream { stream: variable.name.clone(), problem })?;
            room -= stream.fields.len();
            streams.push(stream);
        }
        if streams.is_empty() {
            return Err(SchemaError::NoStream);
        }
        streams.sort_by_key(|stream: &Stream| stream.id);
        Unchecked { streams }.try_into()
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

impl TryFrom<Unchecked> for Schema {
    type Error = SchemaError;

    fn try_from(Unchecked { streams }: Unchecked) -> Result<Self, SchemaError> {
        if streams.iter().map(|stream| stream.fields.len()).sum::<usize>() > MAX_FIELDS {
            return Err(SchemaError::TooManyFields);
        }
        for stream in &streams {
            stream.check().map_err(|problem| SchemaError::Stream { stream: stream.id.to_string(), problem })?;
        }
        Ok(Self { streams })
    }
}

impl Stream {
    /// The field with this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    fn check(&self) -> Result<(), String> {
        if self.size > MAX_SIZE {
            return Err(format!("its struct has {} bytes: at most {MAX_SIZE} are allowed", self.size));
        }
        for field in &self.fields {
            field.check()?;
            if field.offset.saturating_add(field.size) > self.size {
                return Err(format!("{} lies outside the struct", field.name));
            }
        }
        Ok(())
    }
}

impl Field {
    fn check(&self) -> Result<(), String> {
        let Self { name, size, values, .. } = self;
        let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '.';
        let is_name = |name: &str| (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_part);
        if !is_name(name) || !values.iter().all(|value| is_name(&value.name)) {
            return Err(format!("the name of a field or value is not 1 to {MAX_NAME} letters, digits and underscores"));
        }
        if values.len() > MAX_VALUES {
            return Err(too_many_values(name, values.len()));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("a field cannot be called {name}: every event has that"));
        }
        let is_right = match self.kind {
            Kind::String | Kind::Strings | Kind::Path => *size == 4,
            Kind::Endpoint | Kind::Peer | Kind::PolicyPeer => *size == ENDPOINT_SIZE,
            Kind::Arguments => *size == ARGUMENTS_SIZE,
            Kind::KernelStack | Kind::UserStack | Kind::Span => *size == 8,
            Kind::Text | Kind::Opaque => true,
            _ => matches!(size, 1 | 2 | 4 | 8),
        };
        if is_right { Ok(()) } else { Err(format!("{name} has {size} bytes, which is no number's size")) }
    }
}

fn read_stream(btf: &Btf, variable: &str, type_id: TypeId, room: usize) -> Result<Stream, String> {
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
        &mut Place { prefix: "", offset: 0, depth: 0, room },
        &mut fields,
    )?;
    Ok(Stream { id, name: name.clone(), size: *size, fields })
}

struct Place<'a> {
    prefix: &'a str,
    offset: u32,
    depth: usize,
    /// How many fields there may be.
    room: usize,
}

fn read_members(
    btf: &Btf,
    struct_id: TypeId,
    skip: Option<&str>,
    place: &mut Place<'_>,
    fields: &mut Vec<Field>,
) -> Result<(), String> {
    let Some(Type::Struct { members, .. }) = btf.get(struct_id) else { return Err("not a struct".into()) };
    // Each step must yield a field in the end: their number bounds the walk.
    if members.is_empty() {
        return Err(format!("{} is an empty struct", place.prefix.trim_end_matches('.')));
    }
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
            let mut place = Place { prefix: &prefix, offset, depth: place.depth + 1, room: place.room };
            read_members(btf, inner, None, &mut place, fields)?;
            continue;
        }
        if fields.len() == place.room {
            return Err(format!("{name} is one field too many: {MAX_FIELDS} are allowed"));
        }
        let size = btf.size_of(member.type_id).and_then(|size| u32::try_from(size).ok());
        let size = size.ok_or_else(|| format!("{name} has no size (records carry no pointers)"))?;
        let is_flags = btf.member_tags(struct_id, index).any(|tag| tag == FLAGS_TAG);
        let (mut kind, mut values) = (meaning, Vec::new());
        if let (None, Some(Type::Enum { values: named, .. })) = (kind, btf.resolve(member.type_id)) {
            // Before they are copied: any number of members may be of it.
            if named.len() > MAX_VALUES {
                return Err(too_many_values(&name, named.len()));
            }
            kind = Some(if is_flags { Kind::Flags } else { Kind::Enum });
            values = named.iter().map(|(name, value)| NamedValue { name: name.clone(), value: *value }).collect();
        }
        let kind = kind.or_else(|| plain_kind(btf, member.type_id)).unwrap_or(Kind::Opaque);
        let doc = btf.member_tags(struct_id, index).find_map(|tag| tag.strip_prefix(DOC_TAG)).unwrap_or_default();
        fields.push(Field { name, offset, size, kind, values, doc: doc.to_owned() });
    }
    Ok(())
}

fn too_many_values(name: &str, count: usize) -> String {
    format!("{name} has {count} values with names: at most {MAX_VALUES} are allowed")
}

fn plain_kind(btf: &Btf, type_id: TypeId) -> Option<Kind> {
    Some(match btf.resolve(type_id)? {
        Type::Int { encoding: IntEncoding::Bool, .. } => Kind::Bool,
        Type::Int { encoding: IntEncoding::Signed, .. } => Kind::Signed,
        Type::Int { .. } => Kind::Unsigned,
        Type::Array { element, .. } => match btf.resolve(*element)? {
            Type::Int { size: 1, encoding: IntEncoding::Signed | IntEncoding::Char } => Kind::Text,
            _ => Kind::Opaque,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::tests::raw;

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

    /// BTF with one stream: a header, and a struct of members that are each a struct of members, and so on.
    fn nested(members: u32, depth: u32) -> Vec<u8> {
        let (header, stream, section, member) = (1, 15, 31, 47);
        let strings = b"\0gadget_header\0gadget_stream_0\0.gadget.streams\0f\0";
        let [int, structure, variable, variables] = [1u32, 4, 14, 15].map(|kind| kind << 24);
        // Types 1 and 2; then one for each level, the struct of the stream, and its variable.
        let mut types = vec![0, int, 4, 32, header, structure, 32];
        let mut inner = 1;
        for id in 3..3 + depth {
            types.extend([0, structure | members, 64]);
            types.extend((0..members).flat_map(|_| [member, inner, 0]));
            inner = id;
        }
        types.extend([0, structure | 2, 64, header, 2, 0, member, inner, 32 * 8]);
        types.extend([stream, variable, depth + 3, 1, section, variables | 1, 64, depth + 4, 0, 64]);
        raw(&types, strings)
    }

    #[test]
    fn structs_in_structs_do_not_grow_without_bound() {
        let read = |members, depth| Schema::from_btf(&Btf::parse(&nested(members, depth)).expect("BTF"));
        assert_eq!(read(4, 4).expect("a schema").streams[0].fields.len(), MAX_FIELDS);
        // Four thousand million fields, or nothing a million times.
        for (members, depth) in [(256, 4), (0, 1)] {
            assert!(matches!(read(members, depth), Err(SchemaError::Stream { .. })), "{members} members");
        }
        assert!(matches!(read(1, 5), Err(SchemaError::Stream { .. })));
    }

    /// BTF with one stream, of a header and a member of an enum.
    fn with_enum(values: u32) -> Vec<u8> {
        let (header, stream, section, member) = (1, 15, 31, 47);
        let strings = b"\0gadget_header\0gadget_stream_0\0.gadget.streams\0f\0";
        let [int, structure, enumeration, variable, variables] = [1u32, 4, 6, 14, 15].map(|kind| kind << 24);
        let mut types = vec![0, int, 4, 32, header, structure, 32, 0, enumeration | values, 4];
        types.extend((0..values).flat_map(|value| [member, value]));
        types.extend([0, structure | 2, 64, header, 2, 0, member, 3, 32 * 8]);
        types.extend([stream, variable, 4, 1, section, variables | 1, 64, 5, 0, 64]);
        raw(&types, strings)
    }

    #[test]
    fn values_with_names_do_not_grow_without_bound() {
        let read = |values| Schema::from_btf(&Btf::parse(&with_enum(values)).expect("BTF"));
        let schema = read(MAX_VALUES as u32).expect("a schema");
        assert_eq!(
            (schema.streams[0].fields[0].kind, schema.streams[0].fields[0].values.len()),
            (Kind::Enum, MAX_VALUES)
        );
        assert!(matches!(read(MAX_VALUES as u32 + 1), Err(SchemaError::Stream { .. })));
    }

    /// What a peer says of the field of a stream of 64 bytes.
    fn sent(field: &str) -> Result<Schema, String> {
        let schema = format!(r#"{{"streams":[{{"id":0,"name":"s","size":64,"fields":[{field}]}}]}}"#);
        serde_json::from_str(&schema).map_err(|error| error.to_string())
    }

    #[test]
    fn a_peers_schema_keeps_the_rules() {
        let named = |name: &str| sent(&format!(r#"{{"name":"{name}","offset":32,"size":4,"kind":"pid"}}"#));
        assert!(named("inner.pid_2").is_ok());
        // A name is written into JSON and tables as it is, beside what the client says itself.
        for name in ["", r#"a\":1,\"b"#, "a\\u001bb", "pod", &"x".repeat(256)] {
            assert!(named(name).is_err(), "{name:?}");
        }
        assert!(sent(r#"{"name":"f","offset":60,"size":8,"kind":"pid"}"#).is_err());
        assert!(sent(r#"{"name":"f","offset":32,"size":3,"kind":"pid"}"#).is_err());
        assert!(sent(&vec![r#"{"name":"f","offset":32,"size":4,"kind":"pid"}"#; 257].join(",")).is_err());
        assert!(
            serde_json::from_str::<Schema>(r#"{"streams":[{"id":0,"name":"s","size":65536,"fields":[]}]}"#).is_err()
        );
    }
}
