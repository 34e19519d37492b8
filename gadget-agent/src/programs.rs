//! The BPF programs of this kernel, and who holds them: `bpf/programs.bpf.c`.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use gadgets::wire::Program;
use libbpf_rs::{Iter, ProgramType};

use crate::error::AgentError;
use crate::runtime::load::{Plan, attach_all, load};

/// `struct program`.
const NAME_AT: usize = 8;
const HOOK_AT: usize = 24;
const SIZE: usize = 88;

/// By program, the pid and name of a process that holds it.
type Holders = HashMap<u32, (u32, String)>;

/// All programs that are loaded now.
///
/// # Errors
/// If the kernel does not tell.
pub(crate) fn list() -> Result<Vec<Program>, AgentError> {
    let failed = |error: &dyn std::fmt::Display| AgentError::internal("list BPF programs", error);
    let plan = Plan { object: bpf::object("programs").unwrap_or_default(), ..Plan::default() };
    let object = load(&plan).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    for link in &attach_all(&object).map_err(|error| failed(&error))? {
        let mut iterator = Iter::new(link).map_err(|error| failed(&error))?;
        iterator.read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    }
    let holders = holders();
    Ok(bytes.chunks_exact(SIZE).filter_map(|bytes| parse(bytes, &holders)).collect())
}

fn parse(bytes: &[u8], holders: &Holders) -> Option<Program> {
    let number = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let id = number(0)?;
    Some(Program {
        id,
        name: text(bytes.get(NAME_AT..HOOK_AT)?),
        kind: format!("{:?}", ProgramType::from(number(4)?)).to_lowercase(),
        hook: text(bytes.get(HOOK_AT..)?),
        own: holders.get(&id).is_some_and(|(pid, _)| *pid == std::process::id()),
        holder: holders.get(&id).map(|(_, name)| name.clone()).unwrap_or_default(),
    })
}

/// For each program the process that has a descriptor of it, or of its link. One that is pinned or attached to an
/// interface has none.
fn holders() -> Holders {
    let mut holders = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let ids = program_ids(&process.path());
        if ids.is_empty() {
            continue;
        }
        let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        for id in ids {
            holders.entry(id).or_insert_with(|| (pid, format!("{}[{pid}]", comm.trim_end())));
        }
    }
    holders
}

fn program_ids(process: &Path) -> Vec<u32> {
    // Only descriptors of programs and links are worth being asked: there are many others.
    let is_bpf = |descriptor: &Path| {
        fs::read_link(descriptor).is_ok_and(|target| target.to_string_lossy().starts_with("anon_inode:bpf"))
    };
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(Result::ok);
    let of_bpf = descriptors.filter(|descriptor| is_bpf(&descriptor.path()));
    let info = |descriptor: fs::DirEntry| {
        let info = fs::read_to_string(process.join("fdinfo").join(descriptor.file_name())).ok()?;
        info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    };
    of_bpf.filter_map(info).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_as_the_kernel_writes_them() {
        let mut bytes = [7u32.to_ne_bytes(), 5u32.to_ne_bytes()].concat();
        bytes.extend_from_slice(b"exec_started\0\0\0\0");
        bytes.extend_from_slice(b"sched_process_exec");
        bytes.resize(SIZE, 0);
        let program = parse(&bytes, &[(7, (1, "agent[1]".to_owned()))].into()).expect("a program");
        assert_eq!((program.id, program.name.as_str(), program.kind.as_str()), (7, "exec_started", "tracepoint"));
        assert_eq!((program.hook.as_str(), program.holder.as_str()), ("sched_process_exec", "agent[1]"));
        assert_eq!(parse(&bytes[..10], &HashMap::new()), None);
    }
}
