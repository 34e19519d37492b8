//! A flame graph: one file of SVG that needs no other, to be searched and zoomed into in any browser.

use std::io::{self, Write};

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{Options, from_lines};
use jiff::Timestamp;

use super::frame::Origin;
use super::{Occasion, Profile, folded};

/// What the colours mean.
const LEGEND: &str =
    "red: programs and libraries · aqua: inlined · green: made at run time · orange: kernel · grey: whose they are";

/// Writes the graph.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(profile: &Profile, occasion: &Occasion, out: &mut dyn Write) -> io::Result<()> {
    let title = title(profile, occasion);
    let lines = folded::lines(profile);
    if lines.is_empty() {
        return out.write_all(nothing(&title).as_bytes());
    }
    // Of what may be in names, XML has no way to write these two.
    let lines: Vec<String> = lines.iter().map(|line| line.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")).collect();
    let mut colours = colours(profile);
    let mut options = Options::default();
    options.title = title;
    options.subtitle = Some(LEGEND.to_owned());
    options.count_name = if profile.subject.is_waiting { "us" } else { "samples" }.to_owned();
    options.bgcolors = Some(BackgroundColor::Grey);
    options.palette_map = Some(&mut colours);
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    // It begins with the place of a definition that nobody reads, and should not look for.
    let text = String::from_utf8_lossy(&svg);
    let (before, after) = text.split_once("<!DOCTYPE").unwrap_or((&text, ""));
    let after = after.split_once('>').map_or(after, |(_, after)| after);
    out.write_all(before.as_bytes())?;
    out.write_all(after.as_bytes())
}

/// What it is of, when, and where.
fn title(profile: &Profile, occasion: &Occasion) -> String {
    let Occasion { began, took, nodes } = occasion;
    let began = Timestamp::from_nanosecond(i128::from(*began)).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S UTC");
    let nodes = if *nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
    let what = if profile.subject.is_waiting { "time waited" } else { "time on processors" };
    format!("{}: {what}, {:.1}s from {began}, {nodes}", profile.subject.gadget, took.as_secs_f64())
}

/// A picture that says that there is none.
fn nothing(title: &str) -> String {
    format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\
         <svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" width=\"1200\" height=\"80\" viewBox=\"0 0 1200 80\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#f8f8f8\"/>\
         <g font-family=\"monospace\" text-anchor=\"middle\">\
         <text x=\"600\" y=\"30\" font-size=\"17\">{title}</text><text x=\"600\" y=\"60\" font-size=\"12\">no samples</text>\
         </g></svg>\n"
    )
}

/// The colour of each name: by whose code it is, and of the same shade in each picture.
fn colours(profile: &Profile) -> PaletteMap {
    let mut colours = PaletteMap::default();
    let mut add = |name: String, from: [u8; 3], to: [u8; 3]| {
        let name = name.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
        let colour = shade(&name, from, to);
        colours.insert(name, colour);
    };
    // Of all.
    add(String::new(), [205, 205, 205], [225, 225, 225]);
    for base in profile.bases.things() {
        folded::base_names(base).for_each(|name| add(name, [205, 205, 205], [225, 225, 225]));
    }
    for frame in profile.frames.things() {
        let (from, to) = match frame.origin {
            Origin::Program => ([215, 80, 65], [250, 150, 105]),
            Origin::Inlined => ([70, 180, 180], [120, 220, 220]),
            Origin::Jit => ([80, 190, 80], [130, 230, 130]),
            Origin::Kernel => ([225, 150, 30], [250, 185, 80]),
            Origin::Remark => ([170, 170, 170], [185, 185, 185]),
        };
        add(folded::name(frame), from, to);
    }
    colours
}

/// A colour between two, always the same for a name.
fn shade(name: &str, from: [u8; 3], to: [u8; 3]) -> Color {
    let hash = name.bytes().fold(0u16, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % 256;
    let between = |at: usize| {
        let (from, to) = (u16::from(from[at]), u16::from(to[at]));
        u8::try_from(from + (to.saturating_sub(from)) * hash / 256).unwrap_or(u8::MAX)
    };
    Color { r: between(0), g: between(1), b: between(2) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::{any_profile, filled, hostile, occasion, profile, waiting};
    use proptest::prelude::*;
    use quick_xml::Reader;
    use quick_xml::events::Event;

    fn graph(profile: &Profile) -> String {
        let mut out = Vec::new();
        write(profile, &occasion(), &mut out).expect("it is written");
        String::from_utf8(out).expect("text")
    }

    /// The names of its elements, with their attributes, and all that is text but for what is in the script.
    fn read(svg: &str) -> (Vec<String>, String) {
        let (mut reader, mut elements, mut text) = (Reader::from_str(svg), Vec::new(), String::new());
        loop {
            match reader.read_event().expect("XML") {
                Event::Start(start) | Event::Empty(start) => {
                    elements.push(String::from_utf8_lossy(&start).into_owned());
                }
                Event::Text(part) => text.push_str(&String::from_utf8_lossy(&part)),
                Event::DocType(_) => panic!("it names a definition"),
                Event::Eof => return (elements, text),
                _ => {}
            }
        }
    }

    #[test]
    fn it_says_what_it_is_and_needs_nothing_else() {
        let svg = graph(&filled());
        let (elements, text) = read(&svg);
        assert!(text.contains("profile: time on processors, 10.0s from 2026-11-21 08:00:00 UTC, 2 nodes"), "{text}");
        assert!(text.contains("fib (37 samples, 92.50%)"), "{text}");
        let is_reference = |element: &String| element.contains("href") || element.contains("src=");
        assert!(!elements.iter().any(is_reference), "{elements:?}");
        assert!(graph(&waiting()).contains("schedule (1,500 us, 100.00%)"));
        assert_eq!(svg, graph(&filled()), "a picture that changes");
    }

    #[test]
    fn of_nothing_there_is_a_picture_too() {
        let (elements, text) = read(&graph(&profile()));
        assert!(elements[0].starts_with("svg ") && text.contains("no samples"), "{text}");
    }

    #[test]
    fn hostile_names_are_text() {
        let (elements, text) = read(&graph(&hostile()));
        assert_eq!(elements.iter().filter(|element| element.starts_with("script")).count(), 1);
        assert!(text.contains("title"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_names_there_are_all_samples_are_in_it(profile in any_profile()) {
            let (elements, _) = read(&graph(&profile));
            let whole = format!("total_samples=\"{}\"", profile.whole().samples);
            prop_assert!(elements.iter().any(|element| element.contains(&whole)), "{elements:?}");
            prop_assert_eq!(elements.iter().filter(|element| element.starts_with("script")).count(), 1);
        }
    }
}
