//! Loads an object: sets its constants, sizes its maps, shares maps with others, picks its programs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd as _};

use gadgets::btf::Btf;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, OpenObject};

use super::processors::{self, Rate};
use super::refusal::{Refusal, start_log};
use super::sample::Role;

/// Makes keys and values of a map.
pub(crate) type Contents = fn() -> Vec<(Vec<u8>, Vec<u8>)>;

/// What to load, and how.
#[derive(Clone, Default)]
pub(crate) struct Plan<'a> {
    /// The ELF object, aligned to 8 bytes.
    pub(crate) object: &'static [u8],
    /// Values of `const volatile` variables, by name.
    pub(crate) constants: BTreeMap<&'a str, u64>,
    /// Entries of maps (bytes of a ring), by name. Maps that the object does not have are passed over.
    pub(crate) entries: BTreeMap<&'a str, u32>,
    /// Keys of maps that are sets (their values are one byte), by name. They have room for these.
    pub(crate) sets: BTreeMap<&'a str, Vec<Vec<u8>>>,
    /// What is in maps, by name. It is asked for if the object has such a map.
    pub(crate) contents: BTreeMap<&'a str, Contents>,
    /// Maps of another object to use in place of its own, by name. The same holds.
    pub(crate) shared: BTreeMap<&'a str, &'a MapHandle>,
    /// The programs to load; all if `None`.
    pub(crate) programs: Option<Vec<&'a str>>,
}

impl Plan<'_> {
    /// How often its clocks strike, by the constants of `profile.bpf.c`.
    pub(crate) fn rate(&self) -> Rate {
        let usual = Rate::default();
        let frequency = self.constants.get("gadget_frequency").copied().unwrap_or(usual.frequency);
        Rate { frequency, idle: self.constants.get("gadget_wants_idle").is_some_and(|wanted| *wanted != 0) }
    }
}

fn open(object: &'static [u8]) -> Result<OpenObject, Refusal> {
    start_log();
    ObjectBuilder::default().open_memory(object).map_err(|error| Refusal::new("open the BPF object", &error))
}

/// The sections of an object's programs, which say what each attaches to.
pub(crate) fn sections(object: &'static [u8]) -> Vec<String> {
    let sections =
        |object: OpenObject| object.progs().map(|program| program.section().to_string_lossy().into_owned()).collect();
    // One that cannot be opened is told when it is loaded.
    open(object).map(sections).unwrap_or_default()
}

/// Bytes that an object's maps take for each processor.
pub(crate) fn bytes_per_processor(plan: &Plan<'_>) -> Result<u64, Refusal> {
    let object = open(plan.object)?;
    let of_map = |map: libbpf_rs::OpenMap<'_>| match map.map_type() {
        MapType::PercpuArray | MapType::PercpuHash => {
            let entries = map.name().to_str().and_then(|name| plan.entries.get(name)).copied();
            u64::from(entries.unwrap_or(map.max_entries())) * u64::from(map.value_size()).next_multiple_of(8)
        }
        _ => 0,
    };
    Ok(object.maps().map(of_map).sum())
}

/// Loads an object into the kernel. Nothing is attached.
pub(crate) fn load(plan: &Plan<'_>) -> Result<Object, Refusal> {
    let mut object = open(plan.object)?;
    set_constants(&mut object, plan)?;
    for mut map in object.maps_mut() {
        let Some(name) = map.name().to_str().map(str::to_owned) else { continue };
        if let Some(shared) = plan.shared.get(name.as_str()) {
            map.reuse_fd(shared.as_fd()).map_err(|error| Refusal::new(format!("share map {name}"), &error))?;
        } else if let Some(entries) = plan.entries.get(name.as_str()) {
            map.set_max_entries(*entries).map_err(|error| Refusal::new(format!("size map {name}"), &error))?;
        } else if let Some(keys) = plan.sets.get(name.as_str()) {
            let room = u32::try_from(keys.len().max(1)).unwrap_or(u32::MAX);
            map.set_max_entries(room).map_err(|error| Refusal::new(format!("size map {name}"), &error))?;
        }
    }
    if let Some(programs) = &plan.programs {
        for mut program in object.progs_mut() {
            let wanted = program.name().to_str().is_some_and(|name| programs.contains(&name));
            program.set_autoload(wanted);
        }
    }
    let object = object.load().map_err(|error| Refusal::new("load the BPF program", &error))?;
    for (name, keys) in plan.sets.iter().filter(|(_, keys)| !keys.is_empty()) {
        let set = map(&object, name)?;
        for key in keys {
            set.update(key, &[1], MapFlags::ANY).map_err(|error| Refusal::new(format!("fill map {name}"), &error))?;
        }
    }
    for (name, contents) in &plan.contents {
        // Those that the object does not have are passed over, as above.
        let Ok(map) = map(&object, name) else { continue };
        for (key, value) in contents() {
            let filled = map.update(&key, &value, MapFlags::ANY);
            filled.map_err(|error| Refusal::new(format!("fill map {name}"), &error))?;
        }
    }
    Ok(object)
}

/// Writes constants into the object's `.rodata`, whose BTF says where each lies.
fn set_constants(object: &mut OpenObject, plan: &Plan<'_>) -> Result<(), Refusal> {
    if plan.constants.is_empty() {
        return Ok(());
    }
    let btf = Btf::from_object(plan.object).map_err(|error| Refusal::of_object("read the object's BTF", error))?;
    let variables = btf.section(".rodata");
    let mut rodata = object
        .maps_mut()
        .find(|map| map.name().to_str().is_some_and(|name| name.ends_with(".rodata")))
        .ok_or_else(|| Refusal::of_object("set constants", "the object has none"))?;
    let data = rodata.initial_value_mut().ok_or_else(|| Refusal::of_object("set constants", "they have no value"))?;
    for (name, value) in &plan.constants {
        let place = variables
            .iter()
            .find(|variable| variable.name == *name)
            .and_then(|variable| data.get_mut(variable.offset as usize..)?.get_mut(..variable.size as usize))
            .filter(|place| place.len() <= 8)
            .ok_or_else(|| Refusal::of_object("set constants", format!("the object has no constant {name}")))?;
        let size = place.len();
        place.copy_from_slice(&value.to_le_bytes()[..size]);
    }
    Ok(())
}

/// Bytes that an object's maps take in the kernel, by its own account; those of maps that it shares are left out.
pub(crate) fn kernel_memory(object: &Object, plan: &Plan<'_>) -> u64 {
    let own = object.maps().filter(|map| map.name().to_str().is_none_or(|name| !plan.shared.contains_key(name)));
    let of_map = |map: libbpf_rs::Map<'_>| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
        let told: u64 = info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())?;
        // From 5.11 to 6.3 the kernel does not count a ring's pages.
        let ring = if map.map_type() == MapType::RingBuf { map.max_entries() } else { 0 };
        Some(told.max(ring.into()))
    };
    own.filter_map(of_map).sum()
}

/// Attaches one of an object's programs to what its section names, to the map that it goes over, or to the clocks of all
/// processors. Says when it runs.
pub(crate) fn attach<'a>(object: &Object, name: &'a str, rate: Rate) -> Result<(Role<'a>, Vec<Link>), Refusal> {
    let program = object
        .progs_mut()
        .find(|program| program.name() == name)
        .ok_or_else(|| Refusal::of_object("attach a program", format!("the object has no program {name}")))?;
    let role = Role::of(&program.section().to_string_lossy(), name);
    let over = match role {
        Role::Sample(map) | Role::List(Some(map)) => Some(self::map(object, map)?),
        Role::Event | Role::Clock | Role::Start | Role::List(None) => None,
    };
    start_log();
    let link = match (role, &over) {
        (Role::Clock, _) => return Ok((role, processors::attach(&program, rate)?)),
        (_, Some(map)) => program.attach_iter(map.as_fd()),
        (_, None) => program.attach(),
    };
    Ok((role, vec![link.map_err(|error| Refusal::new(format!("attach {name}"), &error))?]))
}

/// Attaches all of an object's programs.
pub(crate) fn attach_all(object: &Object) -> Result<Vec<Link>, Refusal> {
    let attach =
        |program: libbpf_rs::ProgramMut<'_>| Ok(attach(object, &program.name().to_string_lossy(), Rate::default())?.1);
    Ok(object.progs_mut().map(attach).collect::<Result<Vec<_>, Refusal>>()?.into_iter().flatten().collect())
}

/// A handle on one of an object's maps, which lives as long as it is held.
pub(crate) fn map(object: &Object, name: &str) -> Result<MapHandle, Refusal> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .ok_or_else(|| Refusal::of_object("find a map", format!("the object has no map {name}")))?;
    MapHandle::try_from(&map).map_err(|error| Refusal::new(format!("hold map {name}"), &error))
}

/// What all processors have counted together at an index of a map: each value begins with a count of 64 bits.
pub(crate) fn count(map: &MapHandle, index: u32) -> u64 {
    let counts = map.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY).ok().flatten();
    counts.iter().flatten().filter_map(|bytes| Some(u64::from_ne_bytes(*bytes.first_chunk()?))).sum()
}
