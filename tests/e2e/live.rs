//! What somebody sees on a terminal while a gadget runs.

use tests::{Terminal, client_command, loads_programs};

use crate::profiles::run;

#[test]
fn hot_functions_on_a_screen() {
    let _loads = loads_programs();
    let _pod = run("live", "rust");
    let args = ["profile", "--local", "-n", "live", "--freq", "199"];
    let mut terminal = Terminal::run(&client_command("kubectl-gadget", &args));
    terminal.read_until("the hottest function", |screen| {
        ["SELF %", "TOTAL %", "hot::spin", "hot::heavy"].iter().all(|text| screen.contains(text))
    });
    // A paused screen says so, and goes on.
    terminal.forget();
    terminal.press(" ");
    terminal.read_until("a pause", |screen| screen.contains("PAUSED"));
    terminal.press(" q");
    let (status, written) = terminal.finish();
    assert!(status.success(), "{written}");
    // The screen is given back, and what was seen stays: the stacks with the most time.
    let (_, after) = written.rsplit_once("\x1b[?1049l").unwrap_or_else(|| panic!("no screen: {written:?}"));
    for text in ["SAMPLES", "SHARE", "hot::spin", "hot::heavy", "hot::run", " samples, "] {
        assert!(after.contains(text), "{text}: {after}");
    }
}
