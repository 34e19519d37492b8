//! A terminal that a program runs on.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};

use crate::{PATIENCE, Process};

/// Its lines and columns.
const SIZE: Winsize = Winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };

/// Its own end, what was written to it, and the program.
pub struct Terminal {
    end: File,
    written: Vec<u8>,
    process: Process,
}

impl Terminal {
    /// Runs a program on a new one, which controls it.
    pub fn run(program: &Command) -> Self {
        let ends = openpty(Some(&SIZE), None).unwrap();
        let copy = |end: &OwnedFd| end.try_clone().unwrap();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(copy(&ends.slave)).stdout(copy(&ends.slave)).stderr(ends.slave).env("TERM", "xterm-256color");
        let process = Process(command.spawn().unwrap());
        Self { end: ends.master.into(), written: Vec::new(), process }
    }

    /// Reads until something is there.
    pub fn read_until(&mut self, what: &str, enough: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !enough(&self.written()) {
            assert!(Instant::now() < end && self.read(), "{what} does not come: {}", self.written());
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.end.write_all(keys.as_bytes()).unwrap();
    }

    /// Forgets what was written so far.
    pub fn forget(&mut self) {
        self.written.clear();
    }

    /// Reads until the program ends. Returns how, and what it has written since something was forgotten.
    pub fn finish(mut self) -> (ExitStatus, String) {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            self.read();
            match self.process.0.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < end, "it does not end: {}", self.written()),
            }
        };
        while self.read() {}
        (status, self.written())
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.written).into_owned()
    }

    /// Reads what is there, or comes soon. Returns whether more may come.
    fn read(&mut self) -> bool {
        let soon = PollTimeout::try_from(Duration::from_millis(200)).unwrap();
        let mut polled = [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, soon).unwrap() == 0 {
            return self.process.0.try_wait().unwrap().is_none();
        }
        let mut bytes = [0; 4096];
        // Once nobody has the other end any more it is an error.
        let read = self.end.read(&mut bytes).unwrap_or_default();
        self.written.extend(&bytes[..read]);
        read > 0
    }
}
