//! Where a tool prints, and what has been printed there.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use memchr::memmem::find_iter;

use crate::load::MARK;

/// What canaries' paths contain; the longest of the words.
pub(crate) const CANARY: &str = "gadget-bench-canary";
/// What a line of JSON contains that tells of a loss.
const TOLD: &str = r#""type":"loss""#;
/// What is counted.
const WORDS: [&str; 3] = [MARK, CANARY, TOLD];
/// Bytes of the beginning that are kept.
const HEAD: usize = 64 << 10;

/// The kinds of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file.
    File,
    /// A terminal, which the bench empties.
    Terminal,
    /// A pipe, which the bench empties.
    Pipe,
}

impl Place {
    /// The file, if it is one.
    pub(crate) fn path(self, folder: &Path) -> PathBuf {
        folder.join("output")
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Terminal => "terminal",
            Self::Pipe => "pipe",
        }
    }
}

/// One such place.
pub(crate) struct Output {
    reader: Reader,
    text: Arc<Mutex<Text>>,
}

enum Reader {
    /// Read when somebody asks.
    File(File),
    /// Read at once, so that it never fills.
    Thread(JoinHandle<()>),
}

/// What was printed, as far as it matters.
#[derive(Clone, Default)]
struct Text {
    bytes: u64,
    /// Of each of [`WORDS`].
    counts: [u64; 3],
    head: Vec<u8>,
    /// The end of the last portion, since a word may lie across two.
    carry: Vec<u8>,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.head.extend_from_slice(&bytes[..bytes.len().min(HEAD.saturating_sub(self.head.len()))]);
        let (whole, start) = ([&self.carry, bytes].concat(), self.carry.len());
        for (count, word) in self.counts.iter_mut().zip(WORDS) {
            // What lies in the carry alone was counted before.
            *count += find_iter(&whole, word).filter(|at| at + word.len() > start).count() as u64;
        }
        self.carry = whole[whole.len().saturating_sub(CANARY.len())..].to_vec();
    }
}

impl Output {
    /// A new one, and what the tool gets as its standard output.
    pub(crate) fn open(place: Place, folder: &Path) -> Result<(Self, Stdio)> {
        let text = Arc::<Mutex<Text>>::default();
        let (reader, theirs) = match place {
            Place::File => {
                let path = place.path(folder);
                let theirs = File::create(&path).with_context(|| path.display().to_string())?;
                (Reader::File(File::open(&path)?), theirs.into())
            }
            Place::Terminal => {
                let ends = nix::pty::openpty(None, None)?;
                // Read by nobody but us, so that the tool's death is the end of it.
                (read_on(ends.master, &text), ends.slave.into())
            }
            Place::Pipe => {
                let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
                (read_on(ours, &text), theirs.into())
            }
        };
        Ok((Self { reader, text }, theirs))
    }

    /// How many marks were printed.
    pub(crate) fn marks(&mut self) -> Result<u64> {
        Ok(self.read()?.counts[0])
    }

    /// How much was printed, in bytes.
    pub(crate) fn bytes(&mut self) -> Result<u64> {
        Ok(self.read()?.bytes)
    }

    /// Whether a canary was printed.
    pub(crate) fn has_canary(&mut self) -> Result<bool> {
        Ok(self.read()?.counts[1] > 0)
    }

    /// Whether a loss was told, in JSON.
    pub(crate) fn tells_loss(&mut self) -> Result<bool> {
        Ok(self.read()?.counts[2] > 0)
    }

    /// Whether these words are in its beginning.
    pub(crate) fn begins_with(&mut self, words: &str) -> Result<bool> {
        Ok(find_iter(&self.read()?.head, words).next().is_some())
    }

    /// Reads to the end, which the tool's end is. Returns how many marks were printed.
    pub(crate) fn finish(mut self) -> Result<u64> {
        if let Reader::Thread(thread) = self.reader {
            let _ = thread.join();
            self.reader = Reader::Thread(std::thread::spawn(|| {}));
        }
        self.marks()
    }

    fn read(&mut self) -> Result<Text> {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if let Reader::File(file) = &mut self.reader {
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    read => text.push(&buffer[..read]),
                }
            }
        }
        Ok(text.clone())
    }
}

fn read_on(from: OwnedFd, text: &Arc<Mutex<Text>>) -> Reader {
    let (mut from, text) = (File::from(from), Arc::clone(text));
    Reader::Thread(std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        // A terminal's end is an error.
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            text.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..read]);
        }
    }))
}
