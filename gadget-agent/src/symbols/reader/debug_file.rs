//! Where a stripped program's symbols are: in a file of their own, beside it or below `/usr/lib/debug`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use object::{Object as _, ReadCache};

use super::root::Root;

/// Where distributions put them.
const FOLDER: &str = "/usr/lib/debug";
/// A build id that has fewer bytes names nothing.
const SHORTEST: usize = 8;

/// What a program says of the file with its symbols.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DebugLink {
    /// The same number in both.
    build_id: Option<Vec<u8>>,
    /// The file's name, and the sum of its bytes.
    link: Option<(String, u32)>,
}

impl DebugLink {
    pub(super) fn of<'a>(program: &object::File<'a, &'a ReadCache<File>>) -> Self {
        let build_id = program.build_id().ok().flatten().filter(|id| id.len() >= SHORTEST).map(<[u8]>::to_vec);
        let link = program.gnu_debuglink().ok().flatten();
        Self { build_id, link: link.map(|(name, sum)| (String::from_utf8_lossy(name).into_owned(), sum)) }
    }

    /// The file that it names, if there is such a one.
    pub(super) fn find(&self, root: &Root, path: &str) -> Option<File> {
        self.candidates(path).iter().filter_map(|candidate| root.open(candidate).ok()).find(|file| self.fits(file))
    }

    fn candidates(&self, path: &str) -> Vec<String> {
        let by_id = self.build_id.as_ref().map(|id| {
            let digits: Vec<String> = id.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{FOLDER}/.build-id/{}/{}.debug", digits[0], digits[1..].concat())
        });
        let folder = Path::new(path).parent().unwrap_or(Path::new("/")).display();
        let by_name = self.link.iter().flat_map(|(name, _)| {
            [format!("{folder}/{name}"), format!("{folder}/.debug/{name}"), format!("{FOLDER}{folder}/{name}")]
        });
        by_id.into_iter().chain(by_name).collect()
    }

    /// Whether a file is the one that is meant.
    fn fits(&self, file: &File) -> bool {
        let Ok(copy) = file.try_clone() else { return false };
        let cache = ReadCache::new(copy);
        let Ok(parsed) = object::File::parse(&cache) else { return false };
        match (&self.build_id, parsed.build_id()) {
            (Some(wanted), Ok(Some(found))) => wanted == found,
            _ => self.link.as_ref().is_some_and(|(_, sum)| sum_of(file).is_ok_and(|found| found == *sum)),
        }
    }
}

fn sum_of(file: &File) -> io::Result<u32> {
    use std::io::Seek as _;
    let mut file = file;
    file.rewind()?;
    let mut sum = crc32fast::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum.finalize()),
            read => sum.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_files_are_where_distributions_put_them() {
        let link = DebugLink { build_id: Some(vec![0xab, 1, 2, 3, 4, 5, 6, 7]), link: Some(("hot.debug".into(), 1)) };
        let expected = [
            "/usr/lib/debug/.build-id/ab/01020304050607.debug",
            "/app/hot.debug",
            "/app/.debug/hot.debug",
            "/usr/lib/debug/app/hot.debug",
        ];
        assert_eq!(link.candidates("/app/hot"), expected);
        assert!(DebugLink::default().candidates("/app/hot").is_empty());
    }
}
