//! Rules of the architecture that the compiler does not know.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use gadgets::catalogue::CATALOGUE;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below these folders, without build products.
fn files(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| workspace().join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|kind| ["rs", "c", "h"].iter().any(|known| kind == *known)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn the_agent_knows_no_gadget_by_name() {
    for (path, text) in files(&["gadget-agent/src"]) {
        for gadget in CATALOGUE.0 {
            // Some are called by words that are used for other things, too.
            let name = format!("{:?}", gadget.name);
            assert!(!text.contains(&name), "{} names {name}", path.display());
        }
    }
}

#[test]
fn unsafe_lives_in_the_runtime() {
    for (path, text) in files(&["bpf/src", "gadgets/src", "gadget-agent/src", "kubectl-gadget/src"]) {
        let allowed = path.starts_with(workspace().join("gadget-agent/src/runtime"));
        assert!(allowed || !text.contains("unsafe {"), "{}", path.display());
    }
}

#[test]
fn files_stay_small() {
    for (path, text) in files(&["bpf", "gadgets/src", "gadget-agent/src", "kubectl-gadget/src"]) {
        let code = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(code <= 500, "{} has {code} lines", path.display());
    }
}

#[test]
fn every_gadget_has_a_scenario() {
    for gadget in CATALOGUE.0 {
        assert_eq!(tests::scenarios::Scenario::of(gadget.name).gadget, gadget.name);
    }
}

#[test]
fn every_gadget_has_a_page() {
    for gadget in CATALOGUE.0 {
        let page = format!("docs/gadgets/{}.md", gadget.name);
        assert!(workspace().join(&page).is_file(), "no {page}");
    }
}

#[test]
fn every_meaning_of_a_member_is_explained() {
    let header = fs::read_to_string(workspace().join("bpf/include/gadget.h")).unwrap();
    let page = fs::read_to_string(workspace().join("docs/writing-a-gadget.md")).unwrap();
    let meanings: Vec<&str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("typedef ")?.split(';').next()?.split(' ').next_back())
        // One for each architecture, behind one name.
        .map(|name| if name.starts_with("gadget_syscall") { "gadget_syscall" } else { name })
        .collect();
    assert!(meanings.len() > 10);
    for name in meanings {
        assert!(page.contains(&format!("`{name}`")), "docs/writing-a-gadget.md does not explain {name}");
    }
}

/// The other architecture's registers and system calls have other names.
#[test]
fn programs_compile_for_each_architecture() {
    let (include, out) = (workspace().join("bpf/include"), Path::new(env!("CARGO_TARGET_TMPDIR")));
    for arch in ["x86_64", "aarch64"] {
        for folder in ["bpf", "tests/tiny"] {
            for (name, source) in bpf::compile::sources(&workspace().join(folder)).unwrap() {
                let object = out.join(format!("{name}.{arch}.o"));
                bpf::compile::compile(&source, &object, &include, arch).unwrap();
            }
        }
    }
}
