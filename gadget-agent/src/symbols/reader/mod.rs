//! The reader of symbols: a process that reads files of containers, which may be made to harm it, and can do nothing else.
//!
//! - [`confinement`]: what it gives up before it reads the first byte
//! - [`root`]: what it opens
//! - [`elf`]: names of functions in a program or library; [`debug_file`]: where they are if they were taken out of it;
//!   [`go_table`]: what programs in Go have all the same
//! - [`perf_map`]: names of functions that were made while a program ran

mod confinement;
mod debug_file;
mod elf;
mod go_table;
mod perf_map;
mod root;

use std::io;
use std::os::unix::net::UnixStream;

use nix::libc::STDIN_FILENO;

use super::message::{self, Question, Silence, Source};
use crate::runtime::descriptor;
use elf::Files;
use root::Root;

/// The agent's command that becomes this process.
pub(crate) const COMMAND: &str = "read-symbols";
/// Longest text in an answer, in bytes; what is longer is cut.
const TEXT: usize = 512;

/// Answers what is asked over standard input, until nobody asks any more.
///
/// # Errors
/// If it cannot be confined, or what comes is no question.
pub(crate) fn serve() -> anyhow::Result<()> {
    let socket = UnixStream::from(descriptor::take_over(STDIN_FILENO));
    let confined = confinement::enter();
    message::write(&confined.as_ref().map_err(|error| format!("{error:#}")), &socket)?;
    confined?;
    let mut files = Files::default();
    loop {
        let root = match descriptor::receive(&socket) {
            Ok(folder) => Root::of_confined(folder),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Question { source, addresses, lines } = message::read(&socket)?;
        let answer = match &source {
            Source::File { path, .. } => files.names(root, path, &addresses, lines),
            Source::PerfMap { pid } => perf_map::names(&root, *pid, &addresses),
        };
        message::write(&answer.map_err(|error| silence(&error)), &socket)?;
    }
}

fn silence(error: &anyhow::Error) -> Silence {
    match error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::NotFound => Silence::Missing,
        _ => Silence::Unreadable(shortened(&format!("{error:#}"))),
    }
}

/// A text as it may be answered.
fn shortened(text: &str) -> String {
    let Some((end, _)) = text.char_indices().find(|(at, _)| *at >= TEXT) else { return text.to_owned() };
    format!("{}…", &text[..end])
}
