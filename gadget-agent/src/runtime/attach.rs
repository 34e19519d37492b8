//! Attaches a gadget to its hooks, each in the best variant that this kernel takes.

use std::collections::BTreeMap;

use gadgets::catalogue::{Gadget, Hook, Variant};
use libbpf_rs::{Link, Object};

use super::load::{LoadError, Plan, load};
use crate::error::AgentError;

/// A gadget that runs. Dropping it detaches and unloads everything.
pub(crate) struct Attached {
    // Links go before the object whose programs they hold.
    _links: Vec<Link>,
    pub(crate) object: Object,
    /// For each hook the variant in use; empty for one that could not be had.
    pub(crate) variants: BTreeMap<String, String>,
    /// What does not work and why.
    pub(crate) degraded: Vec<String>,
}

/// What is tried for one hook.
struct Choice {
    hook: &'static Hook,
    /// Index of the variant; past the last if none is left.
    at: usize,
    /// Why the one before was given up.
    refusal: Option<String>,
}

impl Choice {
    fn variant(&self) -> Option<&'static Variant> {
        self.hook.variants.get(self.at)
    }

    fn name(&self) -> &'static str {
        self.variant().map_or("", |variant| variant.name)
    }

    fn programs(&self) -> &'static [&'static str] {
        self.variant().map_or(&[], |variant| variant.programs)
    }
}

/// Loads and attaches a gadget. `forced` names variants to use, by hook; a variant that was forced is not given up.
///
/// # Errors
/// If a hook that the gadget cannot do without takes no variant.
pub(crate) fn attach(
    gadget: &'static Gadget,
    forced: &BTreeMap<String, String>,
    plan: &Plan<'_>,
) -> Result<Attached, AgentError> {
    check_names(gadget, forced)?;
    let first = |hook: &'static Hook| {
        let name = forced.get(hook.name)?;
        hook.variants.iter().position(|variant| variant.name == name)
    };
    let mut choices: Vec<Choice> =
        gadget.hooks.iter().map(|hook| Choice { hook, at: first(hook).unwrap_or(0), refusal: None }).collect();
    loop {
        match try_all(&choices, plan) {
            Ok((object, links)) => return Ok(finish(gadget, &choices, object, links)),
            Err((index, refusal)) => {
                let choice = &mut choices[index];
                tracing::debug!("hook {}: {} refused: {refusal}", choice.hook.name, choice.name());
                choice.at += 1;
                let exhausted = choice.variant().is_none() && choice.hook.without.is_none();
                if exhausted || forced.contains_key(choice.hook.name) {
                    return Err(AgentError::Unsupported(format!(
                        "{} does not run on this kernel: hook {}: {refusal}",
                        gadget.name, choice.hook.name
                    )));
                }
                choice.refusal = Some(refusal);
            }
        }
    }
}

fn check_names(gadget: &Gadget, forced: &BTreeMap<String, String>) -> Result<(), AgentError> {
    for (name, variant) in forced {
        let Some(hook) = gadget.hooks.iter().find(|hook| hook.name == name) else {
            let known: Vec<_> = gadget.hooks.iter().map(|hook| hook.name).collect();
            return Err(AgentError::Usage(format!(
                "{} has no hook {name:?}; it has: {}",
                gadget.name,
                known.join(", ")
            )));
        };
        if hook.variants.iter().all(|known| known.name != variant) {
            let known: Vec<_> = hook.variants.iter().map(|variant| variant.name).collect();
            return Err(AgentError::Usage(format!(
                "hook {name} has no variant {variant:?}; it has: {}",
                known.join(", ")
            )));
        }
    }
    Ok(())
}

/// Loads and attaches what is chosen, or says which choice was refused and why.
fn try_all(choices: &[Choice], plan: &Plan<'_>) -> Result<(Object, Vec<Link>), (usize, String)> {
    let load_programs = |programs: Vec<&'static str>| load(&Plan { programs: Some(programs), ..plan.clone() });
    let all = choices.iter().flat_map(Choice::programs).copied().collect();
    let object = load_programs(all).map_err(|error| blame(choices, &error, load_programs))?;
    let mut links = Vec::new();
    for (index, choice) in choices.iter().enumerate() {
        for name in choice.programs() {
            let program = object
                .progs_mut()
                .find(|program| program.name() == *name)
                .ok_or_else(|| (index, format!("the object has no program {name}")))?;
            let link = program.attach().map_err(|error| (index, format!("cannot attach {name}: {error:#}")))?;
            links.push(link);
        }
    }
    Ok((object, links))
}

/// An object loads as a whole or not at all: to learn which hook it failed for, each is loaded alone.
fn blame(
    choices: &[Choice],
    error: &LoadError,
    load_programs: impl Fn(Vec<&'static str>) -> Result<Object, LoadError>,
) -> (usize, String) {
    let open = choices.iter().enumerate().filter(|(_, choice)| choice.variant().is_some());
    for (index, choice) in open.clone() {
        if let Err(own) = load_programs(choice.programs().to_vec()) {
            return (index, own.to_string());
        }
    }
    // Each loads alone, but not together (memory?): give up the least needed first.
    let last = open.max_by_key(|(_, choice)| choice.hook.without.is_some()).map_or(0, |(index, _)| index);
    (last, error.to_string())
}

fn finish(gadget: &Gadget, choices: &[Choice], object: Object, links: Vec<Link>) -> Attached {
    let mut variants = BTreeMap::new();
    let mut degraded = Vec::new();
    for choice in choices {
        variants.insert(choice.hook.name.to_owned(), choice.name().to_owned());
        if let (None, Some(without)) = (choice.variant(), choice.hook.without) {
            let refusal = choice.refusal.as_deref().unwrap_or("no variant of it is known");
            degraded.push(format!("{}: {without}: {refusal}", gadget.name));
        }
    }
    Attached { _links: links, object, variants, degraded }
}
