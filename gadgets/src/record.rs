//! Records as the kernel wrote them, decoded by their schema.
//!
//! The layout is `struct gadget_header` of `bpf/include/gadget.h`, then the gadget's fields, then tails. Records are
//! read byte by byte at checked places; nothing is transmuted, and a record that lies about itself is an error.

use std::net::{IpAddr, Ipv6Addr};

use thiserror::Error;

use crate::schema::{Field, Kind};

/// Bytes of the head of every record.
pub const HEADER_SIZE: usize = 32;
/// In [`Header::flags`]: the event is a runtime's own, on the way to the container's program.
pub const FLAG_SETUP: u16 = 0x1;
/// In [`Header::flags`]: whose the socket is was recorded when it was used, since the kernel does not keep it.
pub const FLAG_RECORDED_OWNER: u16 = 0x2;

const TAIL_CUT: u16 = 0x8000;

/// The head of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole record.
    pub size: u32,
    /// Which stream of the gadget.
    pub stream: u16,
    /// [`FLAG_SETUP`], [`FLAG_RECORDED_OWNER`].
    pub flags: u16,
    /// CLOCK_BOOTTIME, ns.
    pub time: u64,
    /// Its id in the hierarchy that the agent follows; 0 if the kernel does not say which one of its slot's.
    pub cgroup: u64,
    /// The filter's slot that let it through; 0 for the host's.
    pub slot: u32,
}

/// Why bytes are not a record.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// There are fewer bytes than the record claims, or than its head needs.
    #[error("record of {size} bytes where {available} are left")]
    Short {
        /// What it claims.
        size: usize,
        /// What there is.
        available: usize,
    },
    /// A field or tail lies outside its record.
    #[error("field {0} lies outside its record")]
    Outside(String),
}

impl Header {
    /// Reads the head of the first record in `bytes`.
    ///
    /// # Errors
    /// [`RecordError::Short`] if the record is not all there, or shorter than its head.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let short = |size| RecordError::Short { size, available: bytes.len() };
        let head: &[u8; HEADER_SIZE] = bytes.first_chunk().ok_or(short(HEADER_SIZE))?;
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let size = u32_at(0);
        if (size as usize) < HEADER_SIZE || size as usize > bytes.len() {
            return Err(short(size as usize));
        }
        Ok(Self { size, stream: u16_at(4), flags: u16_at(6), time: u64_at(8), cgroup: u64_at(16), slot: u32_at(24) })
    }

    /// Says of a record which cgroup's it is.
    pub fn set_cgroup(record: &mut [u8], cgroup: u64) {
        if let Some(member) = record.get_mut(16..24) {
            member.copy_from_slice(&cgroup.to_le_bytes());
        }
    }
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its head.
    pub header: Header,
    /// All of it, the head included.
    pub bytes: &'a [u8],
}

/// The records of a batch, in their order. Ends after the first error.
pub fn records(batch: &[u8]) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match Header::read(rest) {
            Ok(header) => {
                let (bytes, tail) = rest.split_at(header.size as usize);
                rest = tail;
                Some(Ok(Record { header, bytes }))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number without sign.
    Unsigned(u64),
    /// A number.
    Signed(i64),
    /// A truth.
    Bool(bool),
    /// One text, of any bytes. `cut` if its end is missing.
    Text {
        /// Without a NUL.
        bytes: &'a [u8],
        /// Something is missing at the end.
        cut: bool,
    },
    /// A list of texts. `cut` if something is missing at the end.
    List(List<'a>),
    /// The names on the way to a file, innermost first. `cut` if the outermost are missing.
    Path(List<'a>),
    /// What a system call was given.
    Arguments(Arguments<'a>),
    /// An address, IPv4 not written as IPv6, and a port.
    Endpoint(IpAddr, u16),
    /// Anything else.
    Opaque(&'a [u8]),
}

/// A list of texts, each of any bytes but NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a> {
    bytes: &'a [u8],
    /// Something is missing at the end: the rest of the last text, or texts after it.
    pub cut: bool,
}

impl<'a> List<'a> {
    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The texts.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        // Each text ends with a NUL, which is no separator: "a\0" is one text and "\0" an empty one.
        let bytes = self.bytes.strip_suffix(b"\0").unwrap_or(self.bytes);
        let mut parts = bytes.split(|&byte| byte == 0);
        if self.is_empty() {
            parts.next();
        }
        parts
    }
}

/// What a system call was given: `struct gadget_call_arguments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments<'a> {
    /// As the kernel got them; how many of these count depends on the call.
    pub registers: [u64; 6],
    /// The call's number as programs of 64 bits have it where it was made; negative if the registers mean nothing else.
    pub number: i32,
    /// Pieces, each of which is whole.
    captured: &'a [u8],
}

/// Something that an argument points to: `struct capture_piece`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Which argument.
    pub argument: u8,
    /// What it is: see [`crate::capture`].
    pub kind: u8,
    /// As they were when the call returned.
    pub bytes: &'a [u8],
    /// There was more.
    pub cut: bool,
}

impl<'a> Arguments<'a> {
    /// What was copied.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'a>> {
        Pieces(self.captured).map_while(|piece| piece)
    }
}

/// Pieces back to back; `None` for what is none.
struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = Option<Piece<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let Some((&[argument, kind, low, high], rest)) = bytes.split_first_chunk::<4>() else { return Some(None) };
        let length = u16::from_le_bytes([low, high]);
        let Some((bytes, rest)) = rest.split_at_checked(usize::from(length & !TAIL_CUT)) else { return Some(None) };
        self.0 = rest;
        Some(Some(Piece { argument, kind, bytes, cut: length & TAIL_CUT != 0 }))
    }
}

impl<'a> Record<'a> {
    /// The value of a field.
    ///
    /// # Errors
    /// [`RecordError::Outside`] if the schema or a tail points outside the record.
    pub fn value(&self, field: &Field) -> Result<Value<'a>, RecordError> {
        let outside = || RecordError::Outside(field.name.clone());
        let start = field.offset as usize;
        let end = start.checked_add(field.size as usize).ok_or_else(outside)?;
        let bytes = self.bytes.get(start..end).ok_or_else(outside)?;
        Ok(match field.kind {
            Kind::Opaque => Value::Opaque(bytes),
            Kind::Text => {
                let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                Value::Text { bytes: &bytes[..length], cut: false }
            }
            Kind::String => {
                let (bytes, cut) = self.tail(bytes).ok_or_else(outside)?;
                Value::Text { bytes, cut }
            }
            Kind::Strings => {
                let (bytes, cut) = self.tail(bytes).ok_or_else(outside)?;
                Value::List(List { bytes, cut })
            }
            Kind::Path => {
                let (bytes, cut) = self.tail(bytes).ok_or_else(outside)?;
                Value::Path(List { bytes, cut })
            }
            Kind::Signed | Kind::Errno => Value::Signed(signed(bytes).ok_or_else(outside)?),
            Kind::Duration => Value::Unsigned(unsigned(bytes).ok_or_else(outside)?.saturating_mul(1000)),
            Kind::Bool => Value::Bool(unsigned(bytes).ok_or_else(outside)? != 0),
            Kind::Arguments => Value::Arguments(self.arguments(bytes).ok_or_else(outside)?),
            Kind::Endpoint | Kind::Peer | Kind::PolicyPeer => endpoint(bytes).ok_or_else(outside)?,
            Kind::Unsigned
            | Kind::Pid
            | Kind::Uid
            | Kind::Bytes
            | Kind::Age
            | Kind::Span
            | Kind::Enum
            | Kind::Flags
            | Kind::OpenFlags
            | Kind::Mode
            | Kind::Capability
            | Kind::KernelStack
            | Kind::UserStack
            | Kind::SyscallX86_64
            | Kind::SyscallX86
            | Kind::SyscallAarch64
            | Kind::SyscallArm => Value::Unsigned(unsigned(bytes).ok_or_else(outside)?),
        })
    }

    /// What `struct gadget_call_arguments` holds and points to.
    fn arguments(&self, bytes: &[u8]) -> Option<Arguments<'a>> {
        let (values, rest) = bytes.split_first_chunk::<48>()?;
        let (number, tail) = rest.split_first_chunk::<4>()?;
        let mut registers = [0; 6];
        for (register, bytes) in registers.iter_mut().zip(values.chunks(8)) {
            *register = unsigned(bytes)?;
        }
        let (captured, _) = self.tail(tail)?;
        Pieces(captured).all(|piece| piece.is_some()).then_some(Arguments {
            registers,
            number: i32::from_le_bytes(*number),
            captured,
        })
    }

    /// What `struct gadget_tail` points to.
    fn tail(&self, bytes: &[u8]) -> Option<(&'a [u8], bool)> {
        let &[a, b, c, d] = bytes.first_chunk::<4>()?;
        let start = usize::from(u16::from_le_bytes([a, b]));
        let length = u16::from_le_bytes([c, d]);
        let end = start + usize::from(length & !TAIL_CUT);
        Some((self.bytes.get(start..end)?, length & TAIL_CUT != 0))
    }
}

fn endpoint(bytes: &[u8]) -> Option<Value<'_>> {
    let (address, port) = bytes.split_first_chunk::<16>()?;
    Some(Value::Endpoint(Ipv6Addr::from(*address).to_canonical(), u16::from_le_bytes(port.try_into().ok()?)))
}

fn unsigned(bytes: &[u8]) -> Option<u64> {
    if bytes.len() > 8 {
        return None;
    }
    Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

fn signed(bytes: &[u8]) -> Option<i64> {
    let shift = 64 - 8 * bytes.len().clamp(1, 8) as u32;
    unsigned(bytes).map(|value| (value << shift) as i64 >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(kind: Kind, size: u32) -> Field {
        Field { name: "f".into(), offset: HEADER_SIZE as u32, size, kind, values: Vec::new(), doc: String::new() }
    }

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_SIZE];
        bytes[0..4].copy_from_slice(&((HEADER_SIZE + payload.len()) as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn strings(payload: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let bytes = record(payload);
        let record = records(&bytes).next().expect("one").expect("a record");
        let Value::List(list) = record.value(&field(Kind::Strings, 4)).expect("a value") else { panic!("no list") };
        (list.iter().map(<[u8]>::to_vec).collect(), list.cut)
    }

    #[test]
    fn lists_keep_empty_texts() {
        let tail = |length: u16| [36, 0, length as u8, (length >> 8) as u8];
        let with = |length, text: &[u8]| [&tail(length)[..], text].concat();
        assert_eq!(strings(&with(0, b"")), (vec![], false));
        assert_eq!(strings(&with(1, b"\0")), (vec![b"".to_vec()], false));
        assert_eq!(strings(&with(5, b"a\0\0b\0")), (vec![b"a".to_vec(), b"".to_vec(), b"b".to_vec()], false));
        assert_eq!(strings(&with(4 | TAIL_CUT, b"a\0bc")), (vec![b"a".to_vec(), b"bc".to_vec()], true));
    }

    #[test]
    fn numbers_keep_their_sign() {
        let bytes = record(&(-2i32).to_le_bytes());
        let record = records(&bytes).next().expect("one").expect("a record");
        assert_eq!(record.value(&field(Kind::Errno, 4)), Ok(Value::Signed(-2)));
        assert_eq!(record.value(&field(Kind::Pid, 4)), Ok(Value::Unsigned(0xffff_fffe)));
        assert!(record.value(&field(Kind::Pid, 8)).is_err());
    }

    /// A call with what was copied, and what the record says of it.
    fn call(captured: &[u8], length: u16) -> Vec<u8> {
        let mut payload: Vec<u8> = (1..=6u64).flat_map(u64::to_le_bytes).collect();
        payload.extend(257i32.to_le_bytes());
        payload.extend([HEADER_SIZE as u16 + 56, length].map(u16::to_le_bytes).concat());
        record(&[&payload, captured].concat())
    }

    #[test]
    fn arguments_come_with_what_they_point_to() {
        let captured = [1, 1, 4, 0x80, b'/', b'e', b't', b'c', 2, 3, 0, 0];
        let bytes = call(&captured, 12);
        let record = records(&bytes).next().expect("one").expect("a record");
        let Ok(Value::Arguments(arguments)) = record.value(&field(Kind::Arguments, 56)) else { panic!("no arguments") };
        assert_eq!((arguments.registers, arguments.number), ([1, 2, 3, 4, 5, 6], 257));
        let pieces = [
            Piece { argument: 1, kind: 1, bytes: b"/etc", cut: true },
            Piece { argument: 2, kind: 3, bytes: b"", cut: false },
        ];
        assert_eq!(arguments.pieces().collect::<Vec<_>>(), pieces);
        // One that is not whole, and more than the record has.
        for length in [7, 10, 13] {
            let bytes = call(&captured, length);
            let record = records(&bytes).next().expect("one").expect("a record");
            assert!(record.value(&field(Kind::Arguments, 56)).is_err(), "{length}");
        }
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        proptest::sample::select(Kind::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn any_bytes_and_schema_are_decoded_or_refused(
            batch in proptest::collection::vec(any::<u8>(), 0..256),
            small in any::<bool>(),
            offset in any::<u32>(),
            size in any::<u32>(),
            kind in any_kind(),
        ) {
            let mut batch = batch;
            if small && batch.len() >= HEADER_SIZE {
                let length = batch.len() as u32;
                batch[0..4].copy_from_slice(&length.to_le_bytes());
            }
            let (offset, size) = if small { (offset % 300, size % 64) } else { (offset, size) };
            let field = Field { name: "f".into(), offset, size, kind, values: Vec::new(), doc: std::string::String::new() };
            let mut total = 0;
            for record in records(&batch).map_while(Result::ok) {
                total += record.bytes.len();
                match record.value(&field) {
                    Ok(Value::List(list)) => _ = list.iter().count(),
                    Ok(Value::Arguments(arguments)) => prop_assert!(arguments.pieces().count() <= batch.len()),
                    _ => {}
                }
            }
            prop_assert!(total <= batch.len());
        }

        #[test]
        fn any_pieces_are_decoded_or_refused(captured in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = call(&captured, captured.len() as u16);
            let record = records(&bytes).next().expect("one").expect("a record");
            if let Ok(Value::Arguments(arguments)) = record.value(&field(Kind::Arguments, 56)) {
                let read: usize = arguments.pieces().map(|piece| 4 + piece.bytes.len()).sum();
                prop_assert_eq!(read, captured.len());
            }
        }

        #[test]
        fn records_of_a_batch_come_back(payloads in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let batch: Vec<u8> = payloads.iter().flat_map(|payload| record(payload)).collect();
            let back: Vec<Vec<u8>> = records(&batch)
                .map(|record| record.expect("a record").bytes[HEADER_SIZE..].to_vec())
                .collect();
            prop_assert_eq!(back, payloads);
        }
    }
}
