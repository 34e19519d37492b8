//! Files of a test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;

/// A folder of one test, removed with it.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one, which everybody may enter: a container's user comes through it.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kubectl-gadget-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    /// The path of a file in it.
    pub fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().to_owned()
    }

    /// Writes a file with an object a line, and returns its path.
    pub fn write(&self, file: &str, lines: &[Value]) -> String {
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        fs::write(self.path(file), lines.join("\n")).unwrap();
        self.path(file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
