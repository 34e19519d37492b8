//! Every gadget in every variant that this kernel takes, in real containers. The kernel matrix does the same on others.

use gadgets::diagnosis::VariantState;
use tests::scenarios::{SCENARIOS, Scenario};
use tests::{RealPods, loads_programs};

#[test]
fn every_exec_of_one_container_and_no_other() {
    let _loads = loads_programs();
    Scenario::of("execsnoop").exact(&mut RealPods::in_turn(), &[], 5000);
}

#[test]
fn each_variant_sees_the_same() {
    let _loads = loads_programs();
    for scenario in SCENARIOS {
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

#[test]
fn a_ring_that_runs_full() {
    let _loads = loads_programs();
    for scenario in SCENARIOS {
        scenario.overload(&mut RealPods::in_turn());
    }
}
