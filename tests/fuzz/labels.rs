//! Selectors that users type and clients send: read or refused, and the same after a journey as text.

#![no_main]

mod seeds;

use std::collections::BTreeMap;

use gadgets::labels::LabelSelector;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write(selectors), |text: &[u8]| {
    let Ok(text) = str::from_utf8(text) else { return };
    let Ok(selector) = text.parse::<LabelSelector>() else { return };
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("rank".to_owned(), "3".to_owned())]);
    let selected = selector.matches(&labels);

    let json = serde_json::to_string(&selector).expect("JSON");
    let back: LabelSelector = serde_json::from_str(&json).expect("the selector");
    assert_eq!(back, selector);
    assert_eq!(back.matches(&labels), selected);
});

fn selectors() -> Vec<Vec<u8>> {
    let known = ["app=web,tier!=db", "app in (web, api),!canary", "app.kubernetes.io/name notin (a)", "rank>2,rank<4"];
    known.map(Vec::from).to_vec()
}
