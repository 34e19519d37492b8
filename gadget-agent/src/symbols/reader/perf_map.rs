//! Names of functions that a program has made while it runs: `/tmp/perf-PID.map`, lines of START SIZE NAME, numbers in hexadecimal.

use std::io::{self, BufRead, BufReader, Read as _};

use gadgets::wire::StackFrame;

use super::root::Root;
use super::shortened;
use crate::symbols::message::perf_map;

/// Bytes of a map that are read.
const MOST: u64 = 256 << 20;
/// Longest line.
const LINE: u64 = 16 << 10;

/// The function at each address.
pub(super) fn names(root: &Root, pid: u32, addresses: &[u64]) -> anyhow::Result<Vec<Vec<StackFrame>>> {
    Ok(look_up(BufReader::new(root.open(&perf_map(pid))?).take(MOST), addresses)?)
}

/// It grows, and may be large: nothing of it is kept. Where functions have replaced others the last one counts.
fn look_up(mut map: impl BufRead, addresses: &[u64]) -> io::Result<Vec<Vec<StackFrame>>> {
    let mut found = vec![Vec::new(); addresses.len()];
    let mut in_order: Vec<usize> = (0..addresses.len()).collect();
    in_order.sort_unstable_by_key(|at| addresses[*at]);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut map).take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let Some((begin, size, name)) = parse(&line) else { continue };
        let first = in_order.partition_point(|at| addresses[*at] < begin);
        for at in in_order[first..].iter().take_while(|at| addresses[**at] - begin < size) {
            let function = Some(shortened(&String::from_utf8_lossy(name)));
            found[*at] = vec![StackFrame { function, ..StackFrame::default() }];
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
    use proptest::prelude::*;

    use super::*;

    fn names(map: &[u8], addresses: &[u64]) -> Vec<Option<String>> {
        let found = look_up(map, addresses).expect("it is read");
        found.into_iter().map(|frames| frames.into_iter().next().and_then(|frame| frame.function)).collect()
    }

    #[test]
    fn the_last_function_at_a_place_counts() {
        let map = b"1000 10 first\n0x1000 8 second one\nno line\n\xff 1 x\n2000 ffffffffffffffff all above\n";
        let found = names(map, &[0x9000, 0xfff, 0x1000, 0x1007, 0x1008, 0x1010]);
        let found: Vec<_> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, [Some("all above"), None, Some("second one"), Some("second one"), Some("first"), None]);
    }

    proptest! {
        #[test]
        fn each_address_has_the_last_function_that_has_it(
            functions in proptest::collection::vec((0..64_u64, 0..16_u64), 0..20),
            addresses in proptest::collection::vec(0..80_u64, 0..20),
        ) {
            let lines = functions.iter().enumerate().map(|(at, (begin, size))| format!("{begin:x} {size:x} {at}\n"));
            let map = lines.collect::<String>();
            let expected = addresses.iter().map(|address| {
                let has = |(begin, size): &(u64, u64)| (*begin..begin + size).contains(address);
                functions.iter().rposition(has).map(|at| at.to_string())
            });
            prop_assert_eq!(names(map.as_bytes(), &addresses), expected.collect::<Vec<_>>());
        }

        #[test]
        fn any_map_is_survived(
            map in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'\n'), Just(b'f'), Just(b'0')], 0..400),
            addresses in proptest::collection::vec(any::<u64>(), 0..8),
        ) {
            prop_assert_eq!(names(&map, &addresses).len(), addresses.len());
        }
    }
}
