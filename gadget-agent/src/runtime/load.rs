//! Loads an object: sets its constants, sizes its maps, shares maps with others, picks its programs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Once;

use gadgets::btf::Btf;
use libbpf_rs::{MapCore, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel};
use thiserror::Error;

/// What to load, and how.
#[derive(Clone, Default)]
pub(crate) struct Plan<'a> {
    /// The ELF object, aligned to 8 bytes.
    pub(crate) object: &'static [u8],
    /// Values of `const volatile` variables, by name.
    pub(crate) constants: BTreeMap<&'a str, u64>,
    /// Entries of maps (bytes of a ring), by name. Maps that the object does not have are passed over.
    pub(crate) entries: BTreeMap<&'a str, u32>,
    /// Maps of another object to use in place of its own, by name. The same holds.
    pub(crate) shared: BTreeMap<&'a str, &'a MapHandle>,
    /// The programs to load; all if `None`.
    pub(crate) programs: Option<Vec<&'a str>>,
}

/// Why an object does not load.
#[derive(Debug, Error)]
#[error("{message}{}", if self.log.is_empty() { String::new() } else { format!(" ({})", self.log) })]
pub(crate) struct LoadError {
    message: String,
    /// What libbpf had to say, the last lines of it.
    log: String,
}

const LOG_LINES: usize = 4;

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// libbpf prints through one callback of the process. Its warnings are kept for the error of the load that they belong
/// to: libbpf calls back on the thread that called it.
fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Warn, |_, line| {
            let line = line.trim_end().trim_start_matches("libbpf: ").to_owned();
            tracing::debug!("libbpf: {line}");
            LOG.with_borrow_mut(|log| log.extend(line.lines().map(str::to_owned)));
        })));
    });
    LOG.with_borrow_mut(Vec::clear);
}

fn error(doing: &str, error: impl std::fmt::Display) -> LoadError {
    let log = LOG.with_borrow(|log| log[log.len().saturating_sub(LOG_LINES)..].join("; "));
    LoadError { message: format!("cannot {doing}: {error:#}"), log }
}

/// Loads an object into the kernel. Nothing is attached.
pub(crate) fn load(plan: &Plan<'_>) -> Result<Object, LoadError> {
    keep_log();
    let mut object =
        ObjectBuilder::default().open_memory(plan.object).map_err(|reason| error("open the BPF object", reason))?;
    set_constants(&mut object, plan)?;
    for mut map in object.maps_mut() {
        let Some(name) = map.name().to_str().map(str::to_owned) else { continue };
        if let Some(shared) = plan.shared.get(name.as_str()) {
            map.reuse_fd(shared.as_fd()).map_err(|reason| error(&format!("share map {name}"), reason))?;
        } else if let Some(entries) = plan.entries.get(name.as_str()) {
            map.set_max_entries(*entries).map_err(|reason| error(&format!("size map {name}"), reason))?;
        }
    }
    if let Some(programs) = &plan.programs {
        for mut program in object.progs_mut() {
            let wanted = program.name().to_str().is_some_and(|name| programs.contains(&name));
            program.set_autoload(wanted);
        }
    }
    object.load().map_err(|reason| error("load the BPF program", reason))
}

/// Writes constants into the object's `.rodata`, whose BTF says where each lies.
fn set_constants(object: &mut OpenObject, plan: &Plan<'_>) -> Result<(), LoadError> {
    if plan.constants.is_empty() {
        return Ok(());
    }
    let btf = Btf::from_object(plan.object).map_err(|reason| error("read the object's BTF", reason))?;
    let variables = btf.section(".rodata");
    let mut rodata = object
        .maps_mut()
        .find(|map| map.name().to_str().is_some_and(|name| name.ends_with(".rodata")))
        .ok_or_else(|| error("set constants", "the object has none"))?;
    let data = rodata.initial_value_mut().ok_or_else(|| error("set constants", "they have no value"))?;
    for (name, value) in &plan.constants {
        let place = variables
            .iter()
            .find(|variable| variable.name == *name)
            .and_then(|variable| data.get_mut(variable.offset as usize..)?.get_mut(..variable.size as usize))
            .filter(|place| place.len() <= 8)
            .ok_or_else(|| error("set constants", format!("the object has no constant {name}")))?;
        let size = place.len();
        place.copy_from_slice(&value.to_le_bytes()[..size]);
    }
    Ok(())
}

/// A handle on one of an object's maps, which lives as long as it is held.
pub(crate) fn map(object: &Object, name: &str) -> Result<MapHandle, LoadError> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .ok_or_else(|| error("find a map", format!("the object has no map {name}")))?;
    MapHandle::try_from(&map).map_err(|reason| error(&format!("hold map {name}"), reason))
}
