//! Containers that live for one program, started as fast as containerd can: each event belongs to the right one.
//!
//! `CONTAINERS=1000` makes so many in each pod, instead of a few.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::{Client, Pod, Seen, loads_programs};

/// Started at the same time.
const AT_ONCE: usize = 4;

/// Pod, container and token of each event; the token is what the container was told that it is.
fn rows(seen: &Seen) -> BTreeSet<[String; 3]> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let row = |event: &serde_json::Value| [text(&event["pod"]), text(&event["container"]), text(&event["args"][1])];
    seen.events().into_iter().map(row).collect()
}

#[test]
fn the_first_program_of_every_container_is_seen_and_is_its_own() {
    let _loads = loads_programs();
    let count: usize = std::env::var("CONTAINERS").map_or(25, |count| count.parse().unwrap());
    let names = ["watched", "beside", "unwatched"];
    let (one, both) = (
        Client::start(&["execsnoop", "-n", "churn", "-p", "watched"]),
        Client::start(&["execsnoop", "-n", "churn", "-p", "watched,beside"]),
    );
    let pods = names.map(|name| Pod::new("churn", name));
    let container = |number: usize| format!("app-{}", number / pods.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count * pods.len() {
                        return;
                    }
                    // In turn, so that what one leaves behind is there for another to be taken for.
                    let (pod, container) = (number % pods.len(), container(number));
                    pods[pod].run_once(&container, &["/bin/true", &format!("{}/{container}", names[pod])]);
                }
            });
        }
    });
    let expected = |wanted: &[&str]| -> BTreeSet<[String; 3]> {
        let of_pod = |pod: &&str| {
            let pod = (*pod).to_owned();
            (0..count).map(move |index| [pod.clone(), format!("app-{index}"), format!("{pod}/app-{index}")])
        };
        wanted.iter().flat_map(of_pod).collect()
    };
    for (client, wanted) in [(one, &names[..1]), (both, &names[..2])] {
        let seen = client.stop();
        let (rows, expected) = (rows(&seen), expected(wanted));
        let (extra, missing): (Vec<_>, Vec<_>) =
            (rows.difference(&expected).collect(), expected.difference(&rows).collect());
        assert!(extra.is_empty() && missing.is_empty(), "of {wanted:?} extra: {extra:?}, missing: {missing:?}");
        assert_eq!((seen.events().len(), seen.lost()), (count * wanted.len(), 0));
        assert_eq!(seen.summary()["gaps"], 0);
    }
}
