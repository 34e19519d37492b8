//! Programs of other Debians than this host's: each in a root of its own, with the loader and the libraries that it was built for.

use std::path::PathBuf;
use std::process::Command;

use crate::script_output;

/// A package and all that it needs, in the cache.
pub struct Package {
    /// The package's version.
    pub version: String,
    root: PathBuf,
}

impl Package {
    /// Fetches it with `tests/support/package`, unless it is there.
    pub fn fetch(suite: &str, name: &str) -> Self {
        let said = script_output("support/package", &[suite, name]);
        let (version, root) = said.trim_end().split_once(' ').unwrap();
        Self { version: version.to_owned(), root: root.into() }
    }

    /// One of its files.
    pub fn file(&self, path: &str) -> PathBuf {
        let file = self.root.join(path);
        assert!(file.exists(), "{} is missing", file.display());
        file
    }

    /// One of its libraries, or the loader.
    pub fn library(&self, name: &str) -> PathBuf {
        self.libraries().join(name)
    }

    /// Runs one of its programs.
    pub fn command(&self, program: &str) -> Command {
        let libraries = self.libraries();
        let is_loader = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("ld-linux");
        let mut files = libraries.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let mut command = Command::new(files.find(is_loader).unwrap());
        command.arg("--library-path").arg(&libraries).arg(self.file(program));
        command
    }

    fn libraries(&self) -> PathBuf {
        self.file(&format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
    }
}
