//! What this kernel can do: found out by doing it, with `bpf/features.bpf.c`.

use std::collections::HashSet;
use std::sync::Mutex;

use gadgets::catalogue::Requirement;

use super::load::{self, Plan};
use super::refusal::Refusal;
use crate::sync::lock;

/// Tries whether the kernel can do something. That it can is remembered; that it cannot is not, since somebody may
/// allow it.
pub(crate) fn check(requirement: &'static Requirement) -> Result<(), Refusal> {
    static THERE: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let is_known = |there: &mut Option<HashSet<_>>| there.get_or_insert_default().contains(requirement.program);
    if is_known(&mut lock(&THERE)) {
        return Ok(());
    }
    let plan = Plan {
        object: bpf::object("features").unwrap_or_default(),
        programs: Some(vec![requirement.program]),
        ..Plan::default()
    };
    let object = load::load(&plan)?;
    drop(load::attach(&object, requirement.program, plan.rate())?);
    lock(&THERE).get_or_insert_default().insert(requirement.program);
    Ok(())
}
