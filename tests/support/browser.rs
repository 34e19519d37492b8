//! A browser of somebody else's: Chromium, without a screen, and without any network.

use std::process::{Command, Stdio};

use crate::Folder;

/// What it shows, in pixels.
const WINDOW: &str = "--window-size=1200,600";
/// Time that a page's scripts have, in ms of their own clock.
const SCRIPTS: &str = "--virtual-time-budget=5000";

/// A profile of its own, removed with it.
pub struct Browser(Folder);

impl Browser {
    /// For one test.
    pub fn new(name: &str) -> Self {
        Self(Folder::new(&format!("browser-{name}")))
    }

    /// What a page consists of once its scripts have run.
    pub fn page(&self, url: &str) -> String {
        self.run(&["--dump-dom", url])
    }

    /// Takes a picture of a page: a PNG file.
    pub fn picture(&self, url: &str, file: &str) {
        self.run(&[&format!("--screenshot={file}"), url]);
    }

    fn run(&self, args: &[&str]) -> String {
        let home = self.0.path("");
        let mut command = Command::new("unshare");
        command.args(["--net", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
        command.args([WINDOW, SCRIPTS, &format!("--user-data-dir={home}")]).args(args);
        let output = command.env("HOME", home).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "chromium: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
