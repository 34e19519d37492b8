//! Every gadget in every variant that this kernel takes, in real containers. The kernel matrix does the same on others.
//! `GADGETS=flows,tcptop` leaves out the others.

use std::collections::BTreeSet;
use std::fs;

use gadgets::diagnosis::VariantState;
use tests::scenarios::{Scenario, chosen};
use tests::{Client, Pod, RealPods, loads_programs, shared_folder};

#[test]
fn every_exec_of_one_container_and_no_other() {
    let _loads = loads_programs();
    Scenario::of("execsnoop").exact(&mut RealPods::in_turn(), &[], 5000);
}

#[test]
fn each_variant_sees_the_same() {
    let _loads = loads_programs();
    for scenario in chosen() {
        let variants = scenario.diagnose().variants;
        assert!(variants.iter().any(|status| status.state == VariantState::Best), "{variants:?}");
        for status in variants.iter().filter(|status| status.gadget == scenario.gadget) {
            match status.state {
                VariantState::Best | VariantState::Works => {
                    let variant = format!("{}={}", status.hook, status.variant);
                    scenario.exact(&mut RealPods::in_turn(), &["--variant", &variant], 200);
                }
                // Which may be unmet here is the machine's matter; the kernel matrix knows more.
                VariantState::Unmet => {}
                VariantState::Refused => panic!("{status:?}"),
            }
        }
    }
}

/// Each lives for little more than the one file that it opens.
#[test]
fn every_child_of_a_fork_storm() {
    const CHILDREN: usize = 3000;
    let _loads = loads_programs();
    fs::copy(tests::dist("workload"), shared_folder().join("workload-children")).unwrap();
    let client = Client::start(&["opensnoop", "-p", "children"]);
    let pod = Pod::new("storm", "children");
    pod.run("app", &["/tmp/workload-children", "forks", &CHILDREN.to_string(), "/tmp/children.log"]);
    pod.wait("app");
    let seen = client.stop();
    let opens: Vec<_> = seen.events().into_iter().filter(|event| event["path"] == "/tmp/children.log").collect();
    let pids: BTreeSet<u64> = opens.iter().map(|event| event["pid"].as_u64().unwrap()).collect();
    assert_eq!((opens.len(), pids.len(), seen.lost()), (CHILDREN, CHILDREN, 0));
}

#[test]
fn a_ring_that_runs_full() {
    let _loads = loads_programs();
    for scenario in chosen().filter(|scenario| scenario.can_lose()) {
        scenario.overload(&mut RealPods::in_turn());
    }
}
