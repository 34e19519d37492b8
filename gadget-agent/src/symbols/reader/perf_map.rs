//! Names of functions that a program has made while it runs: `/tmp/perf-PID.map`, lines of START SIZE NAME, numbers in hexadecimal.

use std::io::{self, BufRead, BufReader, Read as _};
use std::os::fd::AsFd;

use gadgets::wire::StackFrame;

use super::open::open;
use super::shortened;
use crate::symbols::message::perf_map;

/// Bytes of a map that are read.
const MOST: u64 = 256 << 20;
/// Longest line.
const LINE: u64 = 16 << 10;

/// The function at each address.
pub(super) fn names(root: &impl AsFd, pid: u32, addresses: &[u64]) -> anyhow::Result<Vec<Vec<StackFrame>>> {
    Ok(look_up(BufReader::new(open(root, &perf_map(pid))?).take(MOST), addresses)?)
}

/// It grows, and may be large: nothing of it is kept. Where functions have replaced others the last one counts.
fn look_up(mut map: impl BufRead, addresses: &[u64]) -> io::Result<Vec<Vec<StackFrame>>> {
    let mut found = vec![Vec::new(); addresses.len()];
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut map).take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let Some((begin, size, name)) = parse(&line) else { continue };
        for (address, found) in addresses.iter().zip(&mut found) {
            if address.checked_sub(begin).is_some_and(|offset| offset < size) {
                let function = Some(shortened(&String::from_utf8_lossy(name)));
                *found = vec![StackFrame { function, ..StackFrame::default() }];
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut words = line.trim_ascii().splitn(3, |byte| *byte == b' ');
    let hex = |word: &[u8]| {
        let word = std::str::from_utf8(word).ok()?;
        u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()
    };
    Some((hex(words.next()?)?, hex(words.next()?)?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_function_at_a_place_counts() {
        let map = b"1000 10 first\n0x1000 8 second one\nno line\n\xff 1 x\n2000 ffffffffffffffff all above\n";
        let found = look_up(&map[..], &[0xfff, 0x1000, 0x1007, 0x1008, 0x1010, 0x9000]).expect("it is read");
        let names: Vec<_> =
            found.iter().map(|frames| frames.first().and_then(|frame| frame.function.as_deref())).collect();
        assert_eq!(names, [None, Some("second one"), Some("second one"), Some("first"), None, Some("all above")]);
    }
}
