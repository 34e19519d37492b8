//! Lines for whoever sits before the terminal.

use std::io::Write as _;

use gadgets::format::escaped;

/// Says something on standard error, in text that others may have chosen. That nobody hears it is no error.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", escaped(text));
}
