//! How each gadget attaches here, and which other programs are at the same hooks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use gadgets::catalogue::{Catalogue, Gadget, Hook, REQUIREMENTS, Release};
use gadgets::diagnosis::{Finding, VariantState, VariantStatus};

use crate::instance::Key;
use crate::pods::hierarchy::KernelIds;
use crate::runtime::{attach, load};
use crate::{host, programs, sizes};

/// Tries every variant of every gadget.
pub(super) fn survey(catalogue: Catalogue, hierarchy: KernelIds) -> Vec<VariantStatus> {
    let of_gadget = |gadget: &&'static Gadget| {
        // A gadget's own defaults are what they must be.
        let key = Key::plain(gadget).ok()?;
        Some(attach::survey(gadget, &key.plan(gadget, 0, hierarchy)))
    };
    catalogue.0.iter().filter_map(of_gadget).flatten().collect()
}

pub(super) fn look(catalogue: Catalogue, variants: &[VariantStatus]) -> Vec<Finding> {
    let hooks = catalogue.0.iter().flat_map(|gadget| gadget.hooks.iter().map(move |hook| (*gadget, hook)));
    let mut findings: Vec<Finding> = hooks.map(|(gadget, hook)| of_hook(gadget, hook, variants)).collect();
    findings.push(processors(catalogue));
    findings
}

/// What grows with the number of processors.
fn processors(catalogue: Catalogue) -> Finding {
    let of_gadget = |gadget: &&'static Gadget| {
        let plan = Key::plain(gadget).ok()?.plan(gadget, 0, KernelIds::default());
        Some(format!("{} {} KiB", gadget.name, load::bytes_per_processor(&plan).ok()? >> 10))
    };
    let each: Vec<String> = catalogue.0.iter().filter_map(of_gadget).collect();
    let (count, ring) = (host::possible_processors(), sizes::ring() >> 20);
    Finding::ok("processors", format!("{count}; memory for each: {}; a ring has {ring} MiB", each.join(", ")))
}

fn of_hook(gadget: &Gadget, hook: &Hook, variants: &[VariantStatus]) -> Finding {
    let check = format!("{} {}", gadget.name, hook.name);
    let of_it: Vec<_> =
        variants.iter().filter(|status| status.gadget == gadget.name && status.hook == hook.name).collect();
    let best = of_it.iter().position(|status| status.state == VariantState::Best);
    let why = || of_it.iter().take_while(|status| status.state != VariantState::Best).map(|status| &status.why);
    let why = || why().map(String::as_str).collect::<Vec<_>>().join("; ");
    let mend = || of_it.first().map(|status| mend(status)).unwrap_or_default();
    match (best, hook.without) {
        (Some(0), _) => Finding::ok(&check, of_it[0].variant.clone()),
        (Some(at), _) => {
            let cost = hook.variant(&of_it[at].variant).map(|variant| {
                let lacks = variant.lacks.map(|lacks| format!("; {lacks}")).unwrap_or_default();
                format!("paid by {}{lacks}", variant.cost)
            });
            Finding::degraded(&check, format!("{} ({})", of_it[at].variant, why()), cost.unwrap_or_default(), mend())
        }
        (None, Some(without)) => Finding::degraded(&check, why(), without, mend()),
        (None, None) => Finding::failed(&check, why(), format!("{} does not run", gadget.name), mend()),
    }
}

/// What would have to be there for a variant that cannot be had.
fn mend(status: &VariantStatus) -> String {
    match REQUIREMENTS.iter().find(|requirement| requirement.name == status.unmet) {
        None => "kubectl gadget doctor --log has all that the kernel said: report it, it should load".into(),
        Some(requirement) if Release::parse(&host::kernel()).is_some_and(|release| release < requirement.since) => {
            format!("a kernel of {} or later", requirement.since)
        }
        Some(requirement) => requirement.mend.into(),
    }
}

/// Programs of others that are attached where ours are. To be asked first: what is tried out is gone a moment later.
pub(super) fn others(catalogue: Catalogue) -> Finding {
    let sections = catalogue.0.iter().flat_map(|gadget| load::sections((gadget.object)()));
    let hooks: BTreeSet<String> = sections.filter_map(|section| Some(section.rsplit_once('/')?.1.to_owned())).collect();
    match programs::list() {
        Err(error) => {
            let cost = "who else is at the hooks is not known";
            Finding::degraded("other programs", error.to_string(), cost, "see bpf and privileges")
        }
        Ok(mut programs) => {
            programs.retain(|program| !program.own && !is_ours(&program.holder));
            let beside = programs.iter().filter(|program| hooks.contains(&program.hook));
            let names: Vec<String> = beside
                .map(|program| format!("{} ({}) of {}", program.name, program.hook, holder(&program.holder)))
                .collect();
            let found = format!("{} loaded, {} of them at the hooks of gadgets", programs.len(), names.len());
            if names.is_empty() {
                return Finding::ok("other programs", found);
            }
            Finding::ok("other programs", format!("{found}: {}", names.join(", ")))
        }
    }
}

/// Whether a holder (`comm[pid]`) runs the same program as this process: the agent that this one looks beside.
fn is_ours(holder: &str) -> bool {
    let file = |process: &str| {
        let metadata = fs::metadata(format!("/proc/{process}/exe")).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let pid = holder.rsplit_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
    pid.and_then(file).is_some_and(|theirs| Some(theirs) == file("self"))
}

fn holder(holder: &str) -> &str {
    if holder.is_empty() { "nobody that runs" } else { holder }
}
