//! What an agent makes the client print: whatever schema and records say, cells stay on their line, and JSON is JSON in
//! which an event is an event.
//!
//! An input is a schema in JSON, a NUL, and a batch.

#![no_main]

mod seeds;

use gadgets::call::Signature;
use gadgets::catalogue::CATALOGUE;
use gadgets::format;
use gadgets::record::{HEADER_SIZE, Value as Record, records};
use gadgets::schema::{Field, Kind, Schema, Stream};
use gadgets::wire::{ArgEntry, SyscallEntry};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(init: seeds::write(streams), |data: &[u8]| {
    let Some(end) = data.iter().position(|&byte| byte == 0) else { return };
    let Ok(schema) = serde_json::from_slice::<Schema>(&data[..end]) else { return };
    for record in records(&data[end + 1..]).map_while(Result::ok) {
        let Some(stream) = schema.stream(record.header.stream) else { continue };
        let mut line = br#"{"type":"event""#.to_vec();
        for field in &stream.fields {
            let Ok(value) = record.value(field) else { continue };
            let mut cell = String::new();
            format::cell(&value, field, &mut cell);
            assert!(!cell.contains(char::is_control), "{cell:?}");
            format::json(&value, field, &mut line);
            if let Record::Arguments(given) = &value {
                let mut cell = String::new();
                signatures().for_each(|call| call.cell(given, &mut cell));
                assert!(!cell.contains(char::is_control), "{cell:?}");
                assert!(signatures().all(|call| call.json(given).is_object()));
            }
        }
        line.push(b'}');
        let safe = format::safe_json(&line);
        assert!(!str::from_utf8(&safe).expect("text").contains(char::is_control), "{safe:?}");
        let said: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(serde_json::from_slice::<Value>(&safe).expect("JSON"), said);
        assert_eq!(said["type"], "event");
    }
});

/// Of calls that make something of all that can be copied.
fn signatures() -> impl Iterator<Item = Signature> {
    let calls = [
        ("openat", "int dfd, const char * filename, int flags, umode_t mode"),
        ("execve", "const char * filename, const char *const * argv, const char *const * envp"),
        ("recvfrom", "int fd, void * ubuf, size_t size, unsigned int flags, struct sockaddr * addr, int * addr_len"),
        ("futex", "u32 * uaddr, int op, u32 val, const struct __kernel_timespec * utime, u32 * uaddr2, u32 val3"),
        ("setsockopt", "int fd, int level, int optname, char * optval, int optlen"),
    ];
    calls.into_iter().filter_map(|(name, args)| {
        let args = args.split(", ").filter_map(|arg| arg.rsplit_once(' '));
        let args = args.map(|(kind, name)| ArgEntry { name: name.into(), kind: kind.into() }).collect();
        Signature::new(SyscallEntry { number: 56, name: name.into(), args })
    })
}

/// Records of each gadget, and of each kind one with a single field, which is short and so more often changed for the
/// better.
fn streams() -> Vec<Vec<u8>> {
    let gadgets = CATALOGUE.0.iter().map(|gadget| gadget.schema().expect("a schema"));
    gadgets
        .chain(Kind::ALL.map(|kind| Schema { streams: vec![stream(kind)] }))
        .map(|schema| {
            let batch: Vec<u8> = schema.streams.iter().flat_map(record).collect();
            [serde_json::to_vec(&schema).expect("JSON"), vec![0], batch].concat()
        })
        .collect()
}

fn stream(kind: Kind) -> Stream {
    let (name, offset) = ("f".into(), HEADER_SIZE as u32);
    let size = match kind {
        Kind::Endpoint | Kind::Peer => 18,
        Kind::Arguments => 56,
        _ => 4,
    };
    let field = Field { name, offset, size, kind, values: Vec::new(), doc: String::new() };
    Stream { id: 1, name: "s".into(), size: offset + size, fields: vec![field] }
}

/// A record as the kernel would write it, with something in each field.
fn record(stream: &Stream) -> Vec<u8> {
    const TAIL: &[u8] = b"sh\0-c\0\x1b[31m \"\xff\"\0";
    let mut bytes = vec![b'a'; stream.size as usize];
    for field in stream.fields.iter().filter(|field| field.kind.is_tail()) {
        let place = [bytes.len() as u16, TAIL.len() as u16].map(u16::to_le_bytes).concat();
        bytes[field.offset as usize..][..4].copy_from_slice(&place);
        bytes.extend_from_slice(TAIL);
    }
    let size = (bytes.len() as u32).to_le_bytes();
    bytes[..4].copy_from_slice(&size);
    bytes[4..6].copy_from_slice(&stream.id.to_le_bytes());
    bytes
}
