//! Attaches a gadget to its hooks, each in the best variant that this kernel takes.

use std::collections::BTreeMap;
use std::fmt;

use gadgets::catalogue::{Gadget, Hook, Release, Requirement, Variant};
use gadgets::diagnosis::{VariantState, VariantStatus};
use libbpf_rs::{Link, Object};

use super::features;
use super::load::{self, Plan, load};
use super::refusal::Refusal;
use super::sample::{self, Role};
use super::signatures;
use crate::error::AgentError;
use crate::host;

/// A gadget that runs. Dropping it detaches and unloads everything.
pub(crate) struct Attached {
    // Links go before the object whose programs they hold.
    _links: Vec<Link>,
    /// What is read at each interval: see [`sample`].
    pub(crate) samplers: Vec<Link>,
    /// What is read when somebody asks: likewise.
    pub(crate) lists: Vec<Link>,
    pub(crate) object: Object,
    /// Bytes that it takes in the kernel, beside what all gadgets share.
    pub(crate) kernel_bytes: u64,
    /// For each hook the variant in use; empty for one that could not be had.
    pub(crate) variants: BTreeMap<String, String>,
    /// What does not work, or less well, and why.
    pub(crate) degraded: Vec<String>,
}

/// What is tried for one hook.
struct Choice {
    hook: &'static Hook,
    /// The variants that are left, best first.
    variants: Vec<&'static Variant>,
    /// Why the others were given up.
    refusals: Vec<String>,
}

impl Choice {
    /// All variants of a hook, or the one that the user wants.
    fn new(gadget: &Gadget, hook: &'static Hook, forced: Option<&String>) -> Result<Self, AgentError> {
        let all: Vec<_> = hook.variants.iter().collect();
        let variants = match forced {
            None => all,
            Some(name) => vec![hook.variant(name).ok_or_else(|| {
                let known: Vec<_> = all.iter().map(|variant| variant.name).collect();
                AgentError::Usage(format!(
                    "hook {} of {} has no variant {name:?}; it has: {}",
                    hook.name,
                    gadget.name,
                    known.join(", ")
                ))
            })?],
        };
        Ok(Self { hook, variants, refusals: Vec::new() })
    }

    fn variant(&self) -> Option<&'static Variant> {
        self.variants.first().copied()
    }

    fn programs(&self) -> &'static [&'static str] {
        self.variant().map_or(&[], |variant| variant.programs)
    }

    /// Goes on to the next variant.
    fn give_up(&mut self, refusal: &str) {
        if !self.variants.is_empty() {
            let variant = self.variants.remove(0);
            tracing::debug!("hook {}: {} refused: {refusal}", self.hook.name, variant.name);
            self.refusals.push(format!("{}: {refusal}", variant.name));
        }
    }

    /// Why none is left.
    fn why(&self) -> String {
        if self.refusals.is_empty() { "no variant of it is known".into() } else { self.refusals.join("; ") }
    }

    /// What results lack, and why it is not a better variant that is left, unless this one was forced.
    fn lacks(&self) -> Option<String> {
        let lacks = [self.variant()?.lacks?.to_owned()];
        Some(lacks.into_iter().chain(self.refusals.iter().cloned()).collect::<Vec<_>>().join("; "))
    }
}

/// Loads and attaches a gadget. `forced` names variants to use, by hook; a hook whose variant is forced has no other.
///
/// # Errors
/// If a hook that the gadget cannot do without, or for which one was forced, takes no variant.
pub(crate) fn attach(
    gadget: &'static Gadget,
    forced: &BTreeMap<String, String>,
    plan: &Plan<'_>,
) -> Result<Attached, AgentError> {
    check_hooks(gadget, forced)?;
    let is_wanted = |hook: &&Hook| forced.contains_key(hook.name) || gadget.uses(hook, &plan.constants);
    let hooks = gadget.hooks.iter().filter(is_wanted);
    let choices = hooks.map(|hook| Choice::new(gadget, hook, forced.get(hook.name)));
    let mut choices: Vec<Choice> = choices.collect::<Result<_, _>>()?;
    loop {
        for choice in &mut choices {
            while let Some(Some(why)) = choice.variant().map(ruled_out) {
                choice.give_up(&why);
            }
        }
        let is_needed = |choice: &&Choice| choice.hook.without.is_none() || forced.contains_key(choice.hook.name);
        if let Some(choice) = choices.iter().filter(is_needed).find(|choice| choice.variants.is_empty()) {
            return Err(AgentError::Unsupported(format!(
                "{} does not run on this kernel: hook {}: {}",
                gadget.name,
                choice.hook.name,
                choice.why()
            )));
        }
        match try_all(&choices, plan) {
            Ok((object, programs)) => return Ok(finish(gadget, &choices, plan, object, programs)),
            Err((index, refusal)) => {
                let unmet = choices[index].variant().and_then(unmet);
                choices[index].give_up(&unmet.map_or_else(|| refusal.to_string(), |unmet| unmet.to_string()));
            }
        }
    }
}

fn check_hooks(gadget: &Gadget, forced: &BTreeMap<String, String>) -> Result<(), AgentError> {
    let unknown = forced.keys().find(|name| gadget.hooks.iter().all(|hook| hook.name != name.as_str()));
    unknown.map_or(Ok(()), |name| {
        let known: Vec<_> = gadget.hooks.iter().map(|hook| hook.name).collect();
        Err(AgentError::Usage(format!("{} has no hook {name:?}; it has: {}", gadget.name, known.join(", "))))
    })
}

/// Something that a variant needs and the kernel cannot do.
struct Unmet {
    requirement: &'static Requirement,
    refusal: Refusal,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {}: {}", self.requirement, self.refusal)
    }
}

/// The first of a variant's needs that the kernel does not meet.
fn unmet(variant: &'static Variant) -> Option<Unmet> {
    let check =
        |requirement: &&'static Requirement| features::check(requirement).err().map(|refusal| (*requirement, refusal));
    variant.requires.iter().find_map(check).map(|(requirement, refusal)| Unmet { requirement, refusal })
}

/// Why a variant is not to be tried on this kernel: it was not built for it, or is too old, or too new. One of the releases that
/// should be able to do what the variant needs is taken at its word: that it loads shows that it can, and trying all needs first
/// would make every start slower. Another may load it, and yet not do it well.
fn ruled_out(variant: &'static Variant) -> Option<String> {
    let lacks_sign =
        |requirement: &&&Requirement| requirement.sign.is_some_and(|file| host::in_tracefs(file) == Some(false));
    if let Some(requirement) = variant.requires.iter().find(lacks_sign) {
        return Some(format!("needs {requirement}, which this kernel was built without"));
    }
    let release = Release::parse(&host::kernel());
    let is_other = variant.requires.iter().any(|requirement| release.is_none_or(|release| !requirement.is_of(release)));
    if is_other { unmet(variant).map(|unmet| unmet.to_string()) } else { None }
}

/// Programs that are attached, by what makes them run.
#[derive(Default)]
struct Programs {
    events: Vec<Link>,
    samplers: Vec<Link>,
    lists: Vec<Link>,
}

/// Loads and attaches what is chosen, or says which choice was refused and why.
fn try_all(choices: &[Choice], plan: &Plan<'_>) -> Result<(Object, Programs), (usize, Refusal)> {
    let load_programs = |programs: Vec<&'static str>| load(&Plan { programs: Some(programs), ..plan.clone() });
    let all = choices.iter().flat_map(Choice::programs).copied().collect();
    let object = load_programs(all).map_err(|refusal| blame(choices, refusal, load_programs))?;
    let mut programs = Programs::default();
    let mut at_start = Vec::new();
    for (index, choice) in choices.iter().enumerate() {
        for name in choice.programs() {
            let (role, links) = load::attach(&object, name, plan.rate()).map_err(|refusal| (index, refusal))?;
            match role {
                Role::Event | Role::Clock => programs.events.extend(links),
                Role::Sample(_) => programs.samplers.extend(links),
                Role::List(_) => programs.lists.extend(links),
                Role::Start => at_start.extend(links.into_iter().map(|link| (index, *name, link))),
            }
        }
    }
    // What comes from now on is seen; this is about what was before.
    for (index, name, link) in at_start {
        let ran = sample::read(&link, &mut Vec::new());
        ran.map_err(|error| (index, Refusal::of_object(format!("run {name}"), error)))?;
    }
    Ok((object, programs))
}

/// An object loads as a whole or not at all: to learn which hook it failed for, each is loaded alone.
fn blame(
    choices: &[Choice],
    refusal: Refusal,
    load_programs: impl Fn(Vec<&'static str>) -> Result<Object, Refusal>,
) -> (usize, Refusal) {
    let open = choices.iter().enumerate().filter(|(_, choice)| choice.variant().is_some());
    for (index, choice) in open.clone() {
        if let Err(own) = load_programs(choice.programs().to_vec()) {
            return (index, own);
        }
    }
    // Each loads alone, but not together (memory?): give up the least needed first.
    let last = open.max_by_key(|(_, choice)| choice.hook.without.is_some()).map_or(0, |(index, _)| index);
    (last, refusal)
}

fn finish(gadget: &Gadget, choices: &[Choice], plan: &Plan<'_>, object: Object, programs: Programs) -> Attached {
    let mut variants = BTreeMap::new();
    let mut degraded = Vec::new();
    for choice in choices {
        let name = choice.variant().map_or("", |variant| variant.name);
        variants.insert(choice.hook.name.to_owned(), name.to_owned());
        if let (None, Some(without)) = (choice.variant(), choice.hook.without) {
            degraded.push(format!("{}: {without}: {}", gadget.name, choice.why()));
        }
        degraded.extend(choice.lacks().map(|lacks| format!("{}: {lacks}", gadget.name)));
    }
    if signatures::are_wanted(&object) && signatures::are_missing() {
        degraded.push(format!("{}: {}", gadget.name, signatures::WITHOUT));
    }
    let kernel_bytes = load::kernel_memory(&object, plan);
    let Programs { events, samplers, lists } = programs;
    Attached { _links: events, samplers, lists, object, kernel_bytes, variants, degraded }
}

/// Tries every variant of every hook of a gadget, each alone.
pub(crate) fn survey(gadget: &'static Gadget, plan: &Plan<'_>) -> Vec<VariantStatus> {
    let of_hook = |hook: &'static Hook| {
        let mut states: Vec<_> = hook.variants.iter().map(|variant| survey_one(gadget, hook, variant, plan)).collect();
        // What is taken if nobody forces another.
        if let Some(best) = states.iter_mut().find(|status| status.state == VariantState::Works) {
            best.state = VariantState::Best;
        }
        states
    };
    gadget.hooks.iter().flat_map(of_hook).collect()
}

fn survey_one(gadget: &Gadget, hook: &Hook, variant: &'static Variant, plan: &Plan<'_>) -> VariantStatus {
    let [gadget, hook, name] = [gadget.name, hook.name, variant.name].map(str::to_owned);
    let status = VariantStatus { gadget, hook, variant: name, ..VariantStatus::default() };
    if let Some(unmet) = unmet(variant) {
        let (name, why) = (unmet.requirement.name.to_owned(), unmet.to_string());
        return VariantStatus { state: VariantState::Unmet, unmet: name, why, log: unmet.refusal.log, ..status };
    }
    match try_alone(variant, plan) {
        Ok(()) => VariantStatus { state: VariantState::Works, ..status },
        Err(refusal) => VariantStatus { why: refusal.to_string(), log: refusal.log, ..status },
    }
}

fn try_alone(variant: &'static Variant, plan: &Plan<'_>) -> Result<(), Refusal> {
    let object = load(&Plan { programs: Some(variant.programs.to_vec()), ..plan.clone() })?;
    let attach = |name: &&'static str| load::attach(&object, name, plan.rate());
    let attached: Result<Vec<_>, _> = variant.programs.iter().map(attach).collect();
    attached.map(drop)
}
