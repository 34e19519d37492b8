//! A profile in Speedscope, which is not ours.

use tests::{Browser, Folder, loads_programs, script_output};

use crate::profiles::{run, written};

/// The percentage of a function in a page with the table of them all: in column 0 in all, in column 1 by itself. A row is "TIME (PERCENT%)" twice,
/// and the name.
fn percentage(page: &str, function: &str, column: usize) -> f64 {
    let texts = page.split('>').filter_map(|text| text.split('<').next()).filter(|text| !text.trim().is_empty());
    let texts: Vec<&str> = texts.collect();
    let row = texts.windows(3).find(|row| row[2] == function).unwrap_or_else(|| panic!("no {function} in {texts:?}"));
    // Also as in "&gt;99%".
    let percentage = row[column].split(['(', ';', '%']).nth_back(1).and_then(|number| number.parse().ok());
    percentage.unwrap_or_else(|| panic!("{row:?}"))
}

#[test]
fn opens_a_profile() {
    let _loads = loads_programs();
    let _pod = run("viewed", "rust");
    let folder = Folder::new("viewed");
    // The program's functions alone: of many the page has those that there is room for.
    written(&folder, "profile.pb.gz", 8, &["-n", "viewed", "--user", "-o", "pprof"]);

    let url = script_output("support/speedscope", &[&folder.path("profile.pb.gz")]);
    let page = Browser::new("viewed").page(url.trim_end());

    let heavy = percentage(&page, "hot::heavy", 0);
    assert!((heavy - 75.0).abs() < 10.0, "{heavy}%");
    assert!(percentage(&page, "hot::main", 0) > 90.0 && percentage(&page, "hot::spin", 1) > 90.0);
}
