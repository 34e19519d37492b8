//! From values to text: safe on a terminal, lossless in JSON.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::names::{capability, errno, open_flags, syscall};
use crate::record::{List, Value};
use crate::schema::{Field, Kind};

/// Stands for what was cut off.
const ELLIPSIS: &str = "…";

/// Adds a value as a table shows it: one line, without anything that a terminal would obey.
pub fn cell(value: &Value<'_>, field: &Field, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Signed(number) => match errno::name(*number).filter(|_| field.kind == Kind::Errno) {
            Some(name) => out.write_str(name),
            None => write!(out, "{number}"),
        },
        Value::Unsigned(number) => match said(*number, field) {
            Said::Number if field.kind == Kind::Duration && *number == 0 => Ok(()),
            Said::Number if field.kind == Kind::Duration => duration(*number, out),
            Said::Number if field.kind == Kind::Age => age(*number, out),
            Said::Number if field.kind == Kind::Span => duration(*number, out),
            Said::Number => write!(out, "{number}"),
            Said::Name(name) => out.write_str(&name),
            Said::Names(names) if names.is_empty() => out.write_str("0"),
            Said::Names(names) => out.write_str(&names.join("|")),
        },
        Value::Endpoint(address, port) => write!(out, "{}", SocketAddr::new(*address, *port)),
        Value::Bool(truth) => write!(out, "{truth}"),
        Value::Text { bytes, cut } => {
            escape(bytes, out);
            out.write_str(if *cut { ELLIPSIS } else { "" })
        }
        Value::Path(names) => {
            let _ = out.write_str(if names.cut { ELLIPSIS } else { "" });
            escape(&joined(names), out);
            Ok(())
        }
        Value::List(list) => {
            for (index, text) in list.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                quote(text, out);
            }
            out.write_str(if list.cut { ELLIPSIS } else { "" })
        }
        Value::Arguments(arguments) => {
            out.write_str(&arguments.registers.map(|number| format!("{number:#x}")).join(" "))
        }
        Value::Opaque(bytes) => bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
    };
}

/// Adds a value to a JSON object: `"name":value` and its companions, each behind a comma.
///
/// Text that is not UTF-8 has its bytes replaced by U+FFFD, and the bytes themselves in `NAME_base64`. `NAME_truncated`
/// is there, and true, if something was cut off. A result that has a name has it in `NAME_name`. What is no quantity has
/// its name instead of its number, and flags have a list of names; an endpoint is an object.
pub fn json(value: &Value<'_>, field: &Field, out: &mut Vec<u8>) {
    let name = &field.name;
    match value {
        // Nobody knows.
        Value::Unsigned(0) if field.kind == Kind::Duration => (),
        Value::Unsigned(number) => match said(*number, field) {
            Said::Number => member(name, "", number, out),
            Said::Name(text) => member(name, "", &text, out),
            Said::Names(names) => member(name, "", &names, out),
        },
        Value::Endpoint(address, port) => {
            member(name, "", &Endpoint { address: &address.to_string(), port: *port }, out);
        }
        Value::Signed(number) => {
            member(name, "", number, out);
            if field.kind == Kind::Errno
                && let Some(known) = errno::name(*number)
            {
                member(name, "_name", known, out);
            }
        }
        Value::Bool(truth) => member(name, "", truth, out),
        Value::Text { bytes, cut } => text(bytes, *cut, field, out),
        // Nobody asked for it.
        Value::Path(names) if names.is_empty() => {}
        Value::Path(names) => text(&joined(names), names.cut, field, out),
        Value::List(list) => {
            let texts: Vec<_> = list.iter().map(String::from_utf8_lossy).collect();
            member(name, "", &texts, out);
            if list.iter().any(|text| std::str::from_utf8(text).is_err()) {
                let encoded: Vec<_> = list.iter().map(|text| BASE64_STANDARD.encode(text)).collect();
                member(name, "_base64", &encoded, out);
            }
            truncated(list.cut, field, out);
        }
        // Not as numbers: readers of JSON may keep 53 bits of them.
        Value::Arguments(arguments) => {
            member(name, "", &arguments.registers.map(|number| format!("{number:#x}")), out);
        }
        Value::Opaque(bytes) => member(name, "_base64", &BASE64_STANDARD.encode(bytes), out),
    }
}

/// An endpoint in JSON.
#[derive(Serialize)]
struct Endpoint<'a> {
    address: &'a str,
    port: u16,
}

/// What stands for a number.
enum Said<'a> {
    /// Itself.
    Number,
    Name(Cow<'a, str>),
    /// Each for some of its bits.
    Names(Vec<Cow<'a, str>>),
}

/// Names of bits, and the bits that have none.
fn all_names((names, rest): (Vec<&str>, u64)) -> Said<'_> {
    let rest = (rest != 0).then(|| Cow::Owned(format!("{rest:#x}")));
    Said::Names(names.into_iter().map(Cow::Borrowed).chain(rest).collect())
}

fn said(number: u64, field: &Field) -> Said<'_> {
    let name = |name: Option<&'static str>| name.map_or(Said::Number, |name| Said::Name(name.into()));
    match field.kind {
        Kind::Enum => {
            let known = field.values.iter().find(|known| known.value == number);
            known.map_or(Said::Number, |known| Said::Name(known.name.as_str().into()))
        }
        Kind::Flags => {
            all_names(open_flags::of_bits(number, field.values.iter().map(|known| (known.name.as_str(), known.value))))
        }
        Kind::OpenFlags => all_names(open_flags::names(number)),
        Kind::Capability => name(capability::name(number)),
        Kind::SyscallX86_64 => name(syscall::on_x86_64(number)),
        Kind::SyscallX86 => name(syscall::on_x86(number)),
        Kind::SyscallAarch64 => name(syscall::on_aarch64(number)),
        Kind::SyscallArm => name(syscall::on_arm(number)),
        Kind::Mode => Said::Name(format!("{number:04o}").into()),
        _ => Said::Number,
    }
}

fn text(bytes: &[u8], cut: bool, field: &Field, out: &mut Vec<u8>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => member(&field.name, "", text, out),
        Err(_) => {
            member(&field.name, "", &String::from_utf8_lossy(bytes), out);
            member(&field.name, "_base64", &BASE64_STANDARD.encode(bytes), out);
        }
    }
    truncated(cut, field, out);
}

/// A path as it is written, of its names from the inside out.
fn joined(names: &List<'_>) -> Vec<u8> {
    let names: Vec<&[u8]> = names.iter().collect();
    names.iter().rev().flat_map(|name| [b"/", *name].concat()).collect()
}

fn truncated(cut: bool, field: &Field, out: &mut Vec<u8>) {
    if cut {
        member(&field.name, "_truncated", &true, out);
    }
}

/// Adds `,"NAMESUFFIX":VALUE` to a JSON object. The name must need no escapes, as a C identifier.
pub fn member<T: Serialize + ?Sized>(name: &str, suffix: &str, value: &T, out: &mut Vec<u8>) {
    [",\"", name, suffix, "\":"].iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    // Strings, numbers, and lists and maps of them: none can fail.
    let _ = serde_json::to_writer(out, value);
}

/// A text that others chose, as one harmless line: see [`escape`].
pub fn escaped(text: &str) -> String {
    let mut line = String::new();
    escape(text.as_bytes(), &mut line);
    line
}

/// Adds text in a form that a terminal shows and does not obey: control characters, bytes that are not UTF-8 and
/// characters that reorder or hide what is around them become escapes, and a backslash two.
pub fn escape(text: &[u8], out: &mut String) {
    let is_plain = |byte: &u8| (b' '..=b'~').contains(byte) & (*byte != b'\\');
    if let Ok(text) = std::str::from_utf8(text)
        && text.as_bytes().iter().fold(true, |plain, byte| plain & is_plain(byte))
    {
        return out.push_str(text);
    }
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\x1b' => out.push_str("\\e"),
                control if (control as u32) < 0x80 && control.is_control() => {
                    let _ = write!(out, "\\x{:02x}", control as u32);
                }
                hidden if hidden.is_control() || is_invisible(hidden) => {
                    let _ = write!(out, "\\u{{{:x}}}", hidden as u32);
                }
                plain => out.push(plain),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// The same JSON with characters that a terminal would obey, or that hide or reorder what is around them, as `\u`
/// escapes. Outside of strings JSON has none of them, so nothing else changes.
pub fn safe_json(json: &[u8]) -> Cow<'_, [u8]> {
    // All of them, so that the processor can look at many at once.
    if json.iter().fold(true, |plain, byte| plain & (b' '..=b'~').contains(byte)) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    for character in String::from_utf8_lossy(json).chars() {
        if character.is_control() || is_invisible(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out.into_bytes())
}

/// Characters that change how others look, or look like nothing (Unicode's Cf, Zl and Zp as far as they matter here).
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Adds one argument of a list, in quotes if the list would be ambiguous without.
fn quote(text: &[u8], out: &mut String) {
    let needs_quotes = text.is_empty() || text.iter().any(|&byte| matches!(byte, b' ' | b'"' | b'\''));
    if !needs_quotes {
        return escape(text, out);
    }
    out.push('"');
    for (index, part) in text.split(|&byte| byte == b'"').enumerate() {
        if index > 0 {
            out.push_str("\\\"");
        }
        escape(part, out);
    }
    out.push('"');
}

/// How long something took, as a table shows it.
pub fn span(ns: u64) -> String {
    let mut text = String::new();
    let _ = duration(ns, &mut text);
    text
}

fn duration(ns: u64, out: &mut String) -> fmt::Result {
    match ns {
        0..1_000 => write!(out, "{ns}ns"),
        1_000..1_000_000 => write!(out, "{:.1}us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => write!(out, "{:.1}ms", ns as f64 / 1e6),
        _ => write!(out, "{:.2}s", ns as f64 / 1e9),
    }
}

/// By its two largest units.
fn age(ns: u64, out: &mut String) -> fmt::Result {
    let seconds = ns / 1_000_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => write!(out, "{seconds}s"),
        (0, 0, _) => write!(out, "{minutes}m{}s", seconds % 60),
        (0, ..) => write!(out, "{hours}h{}m", minutes % 60),
        _ => write!(out, "{days}d{}h", hours % 24),
    }
}

/// A moment in UTC, RFC 3339, nine digits of a second. `wall_ns` counts from 1970.
pub fn rfc3339(wall_ns: u64) -> String {
    TimeFormat::rfc3339().of(wall_ns).to_owned()
}

/// A way to write moments. Most are in the same second as the one before: what they have in common is kept.
#[derive(Debug)]
pub struct TimeFormat {
    /// Down to the second.
    pattern: &'static str,
    zone: TimeZone,
    /// Of the second: digits, and what follows them.
    fraction: (usize, &'static str),
    second: Option<u64>,
    text: String,
    /// Bytes of `text` down to the second.
    common: usize,
}

impl TimeFormat {
    /// In UTC, RFC 3339, nine digits of a second.
    pub fn rfc3339() -> Self {
        Self::new("%Y-%m-%dT%H:%M:%S", TimeZone::UTC, (9, "Z"))
    }

    /// The time of day in a time zone, `HH:MM:SS.mmm`.
    pub fn time_of_day(zone: TimeZone) -> Self {
        Self::new("%H:%M:%S", zone, (3, ""))
    }

    fn new(pattern: &'static str, zone: TimeZone, fraction: (usize, &'static str)) -> Self {
        Self { pattern, zone, fraction, second: None, text: String::new(), common: 0 }
    }

    /// The text of a moment in ns since 1970.
    pub fn of(&mut self, wall_ns: u64) -> &str {
        const SECOND: u64 = 1_000_000_000;
        let second = wall_ns / SECOND;
        if self.second != Some(second) {
            self.second = Some(second);
            let timestamp = Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or(Timestamp::MAX);
            self.text = timestamp.to_zoned(self.zone.clone()).strftime(self.pattern).to_string();
            self.common = self.text.len();
        }
        let (digits, suffix) = self.fraction;
        self.text.truncate(self.common);
        let _ = write!(self.text, ".{:09}", wall_ns % SECOND);
        self.text.truncate(self.common + 1 + digits);
        self.text.push_str(suffix);
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{HEADER_SIZE, records};
    use crate::schema::NamedValue;
    use proptest::prelude::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = String::new();
        escape(text, &mut out);
        out
    }

    fn field_of(kind: Kind) -> Field {
        let values = [("one", 1), ("four", 4)].map(|(name, value)| NamedValue { name: name.into(), value });
        Field { name: "f".into(), offset: 0, size: 4, kind, values: values.into(), doc: String::new() }
    }

    fn cell_of(value: &Value<'_>, kind: Kind) -> String {
        let mut out = String::new();
        cell(value, &field_of(kind), &mut out);
        out
    }

    fn text(bytes: &[u8]) -> Value<'_> {
        Value::Text { bytes, cut: false }
    }

    fn as_json(value: &Value<'_>, kind: Kind) -> serde_json::Value {
        let mut out = Vec::new();
        json(value, &field_of(kind), &mut out);
        out[0] = b'{';
        out.push(b'}');
        serde_json::from_slice(&out).expect("JSON")
    }

    /// A record with one list, as the kernel would write it.
    fn with_list(texts: &[Vec<u8>], check: impl FnOnce(&Value<'_>)) {
        let tail: Vec<u8> = texts.iter().flat_map(|text| [text.as_slice(), b"\0"].concat()).collect();
        let mut bytes = vec![0; HEADER_SIZE];
        bytes.extend_from_slice(&[HEADER_SIZE as u8 + 4, 0]);
        bytes.extend_from_slice(&(tail.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&tail);
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        let record = records(&bytes).next().expect("one").expect("a record");
        let field = Field {
            name: "f".into(),
            offset: HEADER_SIZE as u32,
            size: 4,
            kind: Kind::Strings,
            values: Vec::new(),
            doc: String::new(),
        };
        check(&record.value(&field).expect("a value"));
    }

    #[test]
    fn terminals_get_no_orders() {
        assert_eq!(escaped(b"\x1b[31mred\x07"), "\\e[31mred\\x07");
        assert_eq!(escaped("\u{9b}1m \u{202e}txt".as_bytes()), "\\u{9b}1m \\u{202e}txt");
        assert_eq!(escaped(b"a\nb\\c\xff"), "a\\nb\\\\c\\xff");
        assert_eq!(escaped("naïve 猫".as_bytes()), "naïve 猫");
    }

    #[test]
    fn arguments_can_be_told_apart() {
        with_list(&[b"sh".into(), b"-c".into(), b"echo \"a b\"".into(), b"".into()], |value| {
            assert_eq!(cell_of(value, Kind::Strings), r#"sh -c "echo \"a b\"" """#);
        });
    }

    #[test]
    fn paths_are_written_from_the_outside() {
        with_list(&[b"passwd".into(), b"etc".into()], |value| {
            let Value::List(names) = value else { panic!("no list") };
            assert_eq!(cell_of(&Value::Path(*names), Kind::Path), "/etc/passwd");
            assert_eq!(as_json(&Value::Path(*names), Kind::Path), serde_json::json!({"f": "/etc/passwd"}));
        });
        with_list(&[b"".into()], |value| {
            let Value::List(root) = value else { panic!("no list") };
            assert_eq!(cell_of(&Value::Path(*root), Kind::Path), "/");
        });
    }

    #[test]
    fn results_have_names() {
        assert_eq!(cell_of(&Value::Signed(-2), Kind::Errno), "ENOENT");
        assert_eq!(cell_of(&Value::Signed(0), Kind::Errno), "0");
        assert_eq!(as_json(&Value::Signed(-2), Kind::Errno), serde_json::json!({"f": -2, "f_name": "ENOENT"}));
        assert_eq!(as_json(&Value::Signed(0), Kind::Errno), serde_json::json!({"f": 0}));
    }

    #[test]
    fn numbers_that_are_no_quantities_have_names() {
        let both = |number, kind| (cell_of(&Value::Unsigned(number), kind), as_json(&Value::Unsigned(number), kind));
        let same = |text: &str| (text.to_owned(), serde_json::json!({"f": text}));
        assert_eq!(both(4, Kind::Enum), same("four"));
        assert_eq!(both(5, Kind::Enum), ("5".into(), serde_json::json!({"f": 5})));
        assert_eq!(both(21, Kind::Capability), same("CAP_SYS_ADMIN"));
        assert_eq!(both(59, Kind::SyscallX86_64), same("execve"));
        assert_eq!(both(0o644, Kind::Mode), same("0644"));
        assert_eq!(both(13, Kind::Flags), ("one|four|0x8".into(), serde_json::json!({"f": ["one", "four", "0x8"]})));
        assert_eq!(both(0, Kind::Flags), ("0".into(), serde_json::json!({"f": []})));
        assert_eq!(both(0o101, Kind::OpenFlags).0, "O_WRONLY|O_CREAT");
    }

    #[test]
    fn endpoints_are_written_as_people_write_them() {
        let endpoint = |address: &str| Value::Endpoint(address.parse().expect("an address"), 80);
        assert_eq!(cell_of(&endpoint("10.0.0.1"), Kind::Endpoint), "10.0.0.1:80");
        assert_eq!(cell_of(&endpoint("fe80::1"), Kind::Endpoint), "[fe80::1]:80");
        let json = as_json(&endpoint("::1"), Kind::Endpoint);
        assert_eq!(json, serde_json::json!({"f": {"address": "::1", "port": 80}}));
    }

    #[test]
    fn times_are_exact() {
        let ns = 1_795_248_000_123_456_789;
        assert_eq!(rfc3339(ns), "2026-11-21T08:00:00.123456789Z");
        let mut time_of_day = TimeFormat::time_of_day(TimeZone::UTC);
        assert_eq!(time_of_day.of(ns), "08:00:00.123");
        assert_eq!(time_of_day.of(ns + 877_000_000), "08:00:01.000");
        assert_eq!(time_of_day.of(ns), "08:00:00.123");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
    }

    proptest! {
        #[test]
        fn safe_json_says_the_same(text in "\\PC{0,16}|[\u{0}-\u{a0}\u{200b}-\u{202e}\u{e0001}]{0,16}") {
            let json = serde_json::to_string(&text).expect("text");
            let safe = String::from_utf8(safe_json(json.as_bytes()).into_owned()).expect("text");
            prop_assert!(!safe.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).expect("JSON"), text);
        }

        #[test]
        fn cells_hold_one_harmless_line(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let cell = cell_of(&text(&bytes), Kind::Text);
            prop_assert!(!cell.chars().any(|c| c.is_control() || is_invisible(c)));
        }

        #[test]
        fn json_loses_nothing(texts in proptest::collection::vec(
            proptest::collection::vec(1u8..=255, 0..16), 0..6)) {
            with_list(&texts, |value| {
                let object = as_json(value, Kind::Strings);
                let back: Vec<Vec<u8>> = match object.get("f_base64") {
                    Some(encoded) => encoded.as_array().expect("a list").iter()
                        .map(|text| BASE64_STANDARD.decode(text.as_str().expect("text")).expect("base64")).collect(),
                    None => object["f"].as_array().expect("a list").iter()
                        .map(|text| text.as_str().expect("text").as_bytes().to_vec()).collect(),
                };
                assert_eq!(back, texts);
            });
        }
    }
}
