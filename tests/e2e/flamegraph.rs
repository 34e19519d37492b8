//! A flame graph, in a browser of somebody else's.

use std::fs;

use tests::{Browser, Folder, dist, loads_programs};

use crate::profiles::{run, written};

/// Each pod with one of these programs.
const PODS: [&str; 4] = ["c", "go", "python", "rust"];

/// The first number behind a text.
fn number_after(page: &str, text: &str) -> f64 {
    let (_, after) = page.split_once(text).unwrap_or_else(|| panic!("no {text:?}"));
    let number = after.trim_start().split(|next: char| !next.is_ascii_digit() && next != '.').next();
    number.unwrap().parse().unwrap_or_else(|error| panic!("{error} behind {text:?}: {}", &after[..after.len().min(80)]))
}

/// The frames of a page: the element of each, and its title, as in `NAME (N samples, P%)`.
fn frames(page: &str) -> Vec<(&str, &str)> {
    let titled = |group| {
        let (_, title) = str::split_once(group, "<title>")?;
        Some((group, title.split_once("</title>")?.0))
    };
    page.split("<g").filter_map(titled).collect()
}

#[test]
fn is_searched_and_zoomed_into() {
    let _loads = loads_programs();
    let _pods = PODS.map(|name| run("flames", name));
    let folder = Folder::new("flames");
    written(&folder, "profile.svg", 8, &["-n", "flames", "-o", "flamegraph"]);
    let url = format!("file://{}", folder.path("profile.svg"));
    let browser = Browser::new("flames");

    // Three quarters of all four are below a function that has this in its name, by the browser's own sums.
    let page = browser.page(&format!("{url}?s=heavy"));
    let matched = number_after(&page, ">Matched: ");
    assert!((matched - 75.0).abs() < 10.0, "{matched}%");

    // From a pod on only what is its own is there.
    let shown = frames(&page);
    let (pod, _) = shown.iter().find(|(_, title)| title.starts_with("python (")).expect("the pod's frame");
    let [x, y] = ["fg:x=\"", " y=\""].map(|name| number_after(pod, name));
    let page = browser.page(&format!("{url}?x={x}&y={y}"));
    let is_shown = |name: &str| {
        let of_name = frames(&page).into_iter().filter(|(_, title)| title.starts_with(name));
        let of_name: Vec<_> = of_name.collect();
        assert!(!of_name.is_empty(), "no {name}");
        of_name.iter().any(|(group, _)| !group.contains("hide"))
    };
    assert!(is_shown("py::heavy") && !is_shown("hot::heavy") && !is_shown("main.heavy"));

    let picture = dist("hot").with_file_name("flamegraph.png");
    browser.picture(&url, picture.to_str().unwrap());
    let bytes = fs::read(&picture).unwrap();
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, "{} bytes", bytes.len());
}
