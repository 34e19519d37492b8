//! A profile as pprof reads it, and what else knows its format: `profile.proto`, compressed by gzip.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use gadgets::format::escaped;
use prost::Message as _;

use super::frame::{Frame, Origin};
use super::messages::{Function, Label, Line, Location, Mapping, Profile as Message, Sample, ValueType};
use super::{NOTHING, Occasion, Profile, Stack};

/// Writes the profile.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(profile: &Profile, occasion: &Occasion, out: &mut dyn Write) -> io::Result<()> {
    let mut compressed = GzEncoder::new(out, Compression::default());
    compressed.write_all(&message(profile, occasion).encode_to_vec())?;
    compressed.finish()?;
    Ok(())
}

fn message(profile: &Profile, occasion: &Occasion) -> Message {
    let mut writer = Writer::default();
    let [count, time] = if profile.subject.is_waiting {
        [writer.value_type("waits", "count"), writer.value_type("delay", "nanoseconds")]
    } else {
        [writer.value_type("samples", "count"), writer.value_type("cpu", "nanoseconds")]
    };
    let sample = profile.hottest().iter().map(|stack| writer.sample(profile, stack)).collect();
    // Samples stand for the time between them; waits for none.
    let period = profile.whole.time.checked_div(profile.whole.samples).filter(|_| !profile.subject.is_waiting);
    let comment = writer.texts.number(profile.subject.gadget.to_owned());
    Message {
        sample_type: vec![count, time],
        sample,
        mapping: writer.mappings.things,
        location: writer.locations.things,
        function: writer.functions.things,
        string_table: writer.texts.things,
        time_nanos: signed(occasion.began),
        duration_nanos: i64::try_from(occasion.took.as_nanos()).unwrap_or(i64::MAX),
        period_type: period.map(|_| time),
        period: signed(period.unwrap_or_default()),
        comment: vec![comment],
        default_sample_type: time.kind,
    }
}

/// Numbers that are too large are as large as can be.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Tables of what samples refer to.
struct Writer {
    texts: Texts,
    mappings: Numbered<String, Mapping>,
    functions: Numbered<(i64, i64, u64), Function>,
    locations: Numbered<(u64, u64, Vec<Line>), Location>,
}

impl Default for Writer {
    fn default() -> Self {
        let mut texts = Texts::default();
        // The format has it so.
        texts.number(String::new());
        Self { texts, mappings: Numbered::default(), functions: Numbered::default(), locations: Numbered::default() }
    }
}

impl Writer {
    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType { kind: self.texts.number(kind.to_owned()), unit: self.texts.number(unit.to_owned()) }
    }

    fn sample(&mut self, profile: &Profile, stack: &Stack<'_>) -> Sample {
        let values = profile.columns.iter().zip(stack.base).filter(|(_, value)| !value.is_empty() && *value != NOTHING);
        let label = values
            .map(|(column, value)| {
                let key = self.texts.number(column.name.clone());
                match value.parse().ok().filter(|_| column.is_number) {
                    Some(num) => Label { key, num, ..Label::default() },
                    None => Label { key, str: self.texts.number(value.clone()), ..Label::default() },
                }
            })
            .collect();
        // What is inlined belongs to the place in the frame that it was put into.
        let places = stack.frames.chunk_by(|inner, _| inner.origin == Origin::Inlined);
        Sample {
            location_id: places.map(|frames| self.location(frames)).collect(),
            value: vec![signed(stack.sums.samples), signed(stack.sums.time)],
            label,
        }
    }

    /// A place in the code: frames that were inlined there, and the one that it is in.
    fn location(&mut self, frames: &[&Frame]) -> u64 {
        let place = frames.last().copied();
        let module = place.and_then(|frame| match frame.origin {
            Origin::Kernel => frame.place(),
            Origin::Jit | Origin::Remark => None,
            Origin::Program | Origin::Inlined => frame.module.clone(),
        });
        let mapping_id = module.map_or(0, |module| self.mapping(&module));
        let address = place.and_then(|frame| frame.offset).unwrap_or_default();
        let line = frames.iter().map(|frame| self.line(frame, mapping_id)).collect::<Vec<_>>();
        let make = |id| Location { id, mapping_id, address, line: line.clone() };
        self.locations.number((mapping_id, address, line.clone()), make)
    }

    fn line(&mut self, frame: &Frame, mapping_id: u64) -> Line {
        let name = self.texts.number(escaped(&frame.title()));
        let filename = frame.file.as_ref().map_or(0, |file| self.texts.number(escaped(file)));
        let make = |id| Function { id, name, system_name: name, filename };
        let function_id = self.functions.number((name, filename, mapping_id), make);
        Line { function_id, line: frame.line.unwrap_or_default().into() }
    }

    fn mapping(&mut self, module: &str) -> u64 {
        let filename = self.texts.number(escaped(module));
        let make = |id| Mapping {
            id,
            filename,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        };
        self.mappings.number(module.to_owned(), make)
    }
}

/// Texts by their places, from 0.
#[derive(Default)]
struct Texts {
    places: HashMap<String, i64>,
    things: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: String) -> i64 {
        if let Some(place) = self.places.get(&text) {
            return *place;
        }
        let place = i64::try_from(self.things.len()).unwrap_or_default();
        self.things.push(text.clone());
        self.places.insert(text, place);
        place
    }
}

/// Things that have ids, from 1; each is made once.
struct Numbered<K, T> {
    ids: HashMap<K, u64>,
    things: Vec<T>,
}

impl<K, T> Default for Numbered<K, T> {
    fn default() -> Self {
        Self { ids: HashMap::new(), things: Vec::new() }
    }
}

impl<K: Eq + Hash, T> Numbered<K, T> {
    fn number(&mut self, key: K, make: impl FnOnce(u64) -> T) -> u64 {
        let Self { ids, things } = self;
        *ids.entry(key).or_insert_with(|| {
            let id = u64::try_from(things.len() + 1).unwrap_or_default();
            things.push(make(id));
            id
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;
    use crate::profile::tests::{any_profile, filled, occasion, profile, waiting};

    fn read(profile: &Profile) -> Message {
        let (mut compressed, mut bytes) = (Vec::new(), Vec::new());
        write(profile, &occasion(), &mut compressed).expect("it is written");
        GzDecoder::new(compressed.as_slice()).read_to_end(&mut bytes).expect("gzip");
        Message::decode(bytes.as_slice()).expect("a profile")
    }

    /// What it says, with names for numbers.
    struct Reading(Message);

    impl Reading {
        fn text(&self, place: i64) -> &str {
            &self.0.string_table[usize::try_from(place).expect("a place")]
        }

        fn types(&self) -> Vec<(&str, &str)> {
            self.0.sample_type.iter().map(|of| (self.text(of.kind), self.text(of.unit))).collect()
        }

        /// The locations of a sample: the functions of each, with lines, and the module.
        fn stack(&self, sample: &Sample) -> Vec<String> {
            let location = |id: &u64| {
                let location = self.0.location.iter().find(|location| location.id == *id).expect("a location");
                let lines = location.line.iter().map(|line| {
                    let function = self.0.function.iter().find(|function| function.id == line.function_id);
                    format!("{}:{}", self.text(function.expect("a function").name), line.line)
                });
                let mapping = self.0.mapping.iter().find(|mapping| mapping.id == location.mapping_id);
                let module = mapping.map_or("", |mapping| self.text(mapping.filename));
                format!("{} {module}", lines.collect::<Vec<_>>().join(","))
            };
            sample.location_id.iter().map(location).collect()
        }

        fn labels(&self, sample: &Sample) -> Vec<(&str, &str)> {
            sample.label.iter().map(|label| (self.text(label.key), self.text(label.str))).collect()
        }
    }

    #[test]
    fn it_says_all_that_is_known() {
        let reading = Reading(read(&filled()));
        assert_eq!(reading.types(), [("samples", "count"), ("cpu", "nanoseconds")]);
        let [first, _, last] = reading.0.sample.as_slice() else { panic!("three samples") };
        assert_eq!(first.value, [30, 30 * 20_408_163]);
        let modules = ["fib:12,fib:12,compute:30 /usr/bin/app", "main:0 /usr/bin/app"];
        assert_eq!(reading.stack(first)[..2], modules);
        assert_eq!(reading.stack(first)[2], "[libc.so.6+0x29d90]:0 /lib/libc.so.6");
        assert_eq!(
            reading.stack(last)[..3],
            ["do_syscall_64:0 [kernel]", "nf_hook:0 [nf_tables]", "[JIT] Main::run():0 "]
        );
        assert_eq!(reading.labels(first), [("namespace", "shop"), ("pod", "web-0"), ("comm", "app")]);
        assert_eq!(reading.labels(last), [("comm", "sh")]);
        let Message { string_table, time_nanos, duration_nanos, period, .. } = &reading.0;
        assert_eq!(string_table[0], "");
        assert_eq!((*time_nanos, *duration_nanos, *period), (1_795_248_000_000_000_000, 10_000_000_000, 20_408_163));
    }

    #[test]
    fn waits_have_other_units() {
        let reading = Reading(read(&waiting()));
        assert_eq!(reading.types(), [("waits", "count"), ("delay", "nanoseconds")]);
        assert_eq!((reading.0.period, reading.0.sample[0].value.clone()), (0, vec![2, 1_500_000]));
        assert!(read(&profile()).sample.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_names_there_are_each_number_has_its_thing(profile in any_profile()) {
            let reading = Reading(read(&profile));
            let mut sum = 0;
            for sample in &reading.0.sample {
                prop_assert!(!reading.stack(sample).is_empty());
                reading.labels(sample);
                sum += sample.value[0];
            }
            prop_assert_eq!(u64::try_from(sum).expect("a sum"), profile.whole().samples);
            prop_assert!(!reading.0.string_table.iter().any(|text| text.chars().any(char::is_control)));
        }
    }
}
