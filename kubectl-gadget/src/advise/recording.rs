//! A recording: the lines that `-o json` writes, in a file.

use std::io::BufRead;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Advice, Advisor};

/// The longest line that is read, in bytes. An event has some KB at most.
const LINE_BYTES: usize = 1 << 20;

/// A line, as far as it matters here what it is.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Start {
        gadget: String,
    },
    Event {},
    Peer {},
    Loss {
        count: u64,
    },
    Gap {},
    /// Repeats what was told before.
    #[serde(other)]
    Other,
}

/// Gives all events of a recording of this gadget to an advisor, and adds to what it says what the recording lacks.
///
/// # Errors
/// If it cannot be read, is no recording or one of another gadget, or if the advisor has nothing to say.
pub(crate) fn report(mut recording: impl BufRead, wanted: &str, advisor: &mut dyn Advisor) -> anyhow::Result<Advice> {
    let (mut lost, mut gaps, mut is_begun) = (0u64, 0u64, false);
    let mut line = Vec::new();
    for number in 1u64.. {
        if !read_line(&mut recording, &mut line)? {
            break;
        }
        let at = || format!("line {number}");
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&line).context("it is no line of a recording (-o json)").with_context(at)? {
            Line::Start { gadget } if gadget != wanted => {
                bail!("this is a recording of {gadget}; what is needed is one of {wanted}")
            }
            Line::Start { .. } => is_begun = true,
            Line::Event {} => advisor.take(&line).with_context(at)?,
            Line::Peer {} => advisor.learn(&line).with_context(at)?,
            Line::Loss { count } => lost = lost.saturating_add(count),
            Line::Gap {} => gaps += 1,
            Line::Other => {}
        }
    }
    if !is_begun {
        bail!("it has no line that says what was recorded: is it empty, or cut off at its beginning?");
    }
    let mut advice = advisor.advise()?;
    if lost > 0 || gaps > 0 {
        advice.remarks.push(format!(
            "the recording is incomplete ({lost} events lost, {gaps} gaps): what was not seen is not in here"
        ));
    }
    Ok(advice)
}

/// Reads the next line; false at the end.
fn read_line(recording: &mut impl BufRead, line: &mut Vec<u8>) -> anyhow::Result<bool> {
    use std::io::Read as _;
    line.clear();
    recording.by_ref().take(LINE_BYTES as u64).read_until(b'\n', line).context("cannot read the recording")?;
    if line.len() == LINE_BYTES {
        bail!("it has a line of more than {LINE_BYTES} bytes, which no recording has");
    }
    Ok(!line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts events.
    #[derive(Default)]
    struct Count(usize);

    impl Advisor for Count {
        fn take(&mut self, _: &[u8]) -> anyhow::Result<()> {
            self.0 += 1;
            Ok(())
        }

        fn advise(&self) -> anyhow::Result<Advice> {
            Ok(Advice { text: self.0.to_string(), ..Advice::default() })
        }
    }

    fn read(text: &str) -> anyhow::Result<Advice> {
        report(text.as_bytes(), "syscalls", &mut Count::default())
    }

    #[test]
    fn events_are_taken_and_holes_are_told() {
        let start = r#"{"type":"start","gadget":"syscalls","node":"a"}"#;
        let advice =
            read(&format!("{start}\n{{\"type\":\"event\"}}\n\n{{\"type\":\"later\"}}\n{{\"type\":\"event\"}}"));
        assert_eq!(advice.expect("advice"), Advice { text: "2".into(), ..Advice::default() });
        let holes = "{\"type\":\"loss\",\"count\":3}\n{\"type\":\"gap\"}\n{\"type\":\"summary\",\"lost\":3}";
        let advice = read(&format!("{start}\n{holes}")).expect("advice");
        assert!(advice.remarks[0].contains("(3 events lost, 1 gaps)"), "{advice:?}");
    }

    #[test]
    fn what_is_no_such_recording_is_told() {
        let error = |text: &str| format!("{:#}", read(text).expect_err("an error"));
        assert!(error("").contains("no line that says what was recorded"));
        assert!(error("{\"type\":\"event\"}").contains("no line that says"));
        assert!(error("{\"type\":\"start\",\"gadget\":\"opensnoop\"}").contains("a recording of opensnoop"));
        assert!(error("NODE POD\n").starts_with("line 1: it is no line of a recording"));
        assert!(error(&"x".repeat(2 << 20)).contains("more than"));
    }
}
