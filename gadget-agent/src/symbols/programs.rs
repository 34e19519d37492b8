//! Programs that were looked at: their stacks may come when they have ended, or have become others.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::ProgramId;
use super::process::Process;

/// How long one is kept after it was found to have ended, and after its last stack: those that it has left in rings come within two seconds. Its root,
/// which a container's end removes, is in use until then.
pub(super) const KEPT: Duration = Duration::from_secs(3);
/// Programs that are kept: each has three descriptors.
const MOST: usize = 512;
/// Bytes of what is known of them all: some kilobytes each.
const MOST_BYTES: usize = 16 << 20;
/// How long what was mapped is still taken to be, where it is enough: a library may take another's place.
const FRESH: Duration = Duration::from_secs(3);
const FORGOTTEN: &str = "too many processes were looked at at once";

/// Those that are kept.
#[derive(Default)]
pub(super) struct Programs {
    kept: HashMap<ProgramId, Kept>,
    /// When those that have ended were last forgotten.
    tidied: Option<Instant>,
}

struct Kept {
    /// As it was when it was last found; or why it was not.
    process: Result<Process, String>,
    /// Bytes that it takes.
    size: usize,
    /// When it was looked at.
    looked: Instant,
    asked: Instant,
    /// It was found to have ended, or to have become another.
    is_over: bool,
}

impl Programs {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Looks at one as it is now, if it is still there, and was not looked at just now: then what is at these addresses is known.
    pub(super) fn look_at(&mut self, program: ProgramId, addresses: impl IntoIterator<Item = u64>) {
        if let Some(Kept { process: Ok(process), looked, asked, .. }) = self.kept.get_mut(&program)
            && looked.elapsed() < FRESH
            && addresses.into_iter().all(|address| process.has_code_at(address))
        {
            *asked = Instant::now();
            return;
        }
        let former = self.kept.remove(&program).and_then(|kept| kept.process.ok());
        let process = match former {
            Some(former) => Ok(former.look_again(program).unwrap_or(former)),
            None => Process::look_at(program),
        };
        let size = process.as_ref().map_or(0, Process::size);
        let now = Instant::now();
        self.kept.insert(program, Kept { process, size, looked: now, asked: now, is_over: false });
        if self.kept.len() > MOST {
            self.forget_first_by(|kept| Reverse(kept.asked));
        }
        while self.kept.values().map(|kept| kept.size).sum::<usize>() > MOST_BYTES {
            self.forget_first_by(|kept| kept.size);
        }
    }

    /// Forgets the one for which this is the most.
    fn forget_first_by<K: Ord>(&mut self, key: impl Fn(&Kept) -> K) {
        let most = self.kept.iter().max_by_key(|(_, kept)| key(kept)).map(|(program, _)| *program);
        most.into_iter().for_each(|program| _ = self.kept.remove(&program));
    }

    /// One that was looked at.
    pub(super) fn get(&self, program: ProgramId) -> Result<&Process, &str> {
        let kept = self.kept.get(&program).ok_or(FORGOTTEN)?;
        kept.process.as_ref().map_err(String::as_str)
    }

    /// Forgets those that had ended or become others a while ago, and were not asked about since.
    pub(super) fn forget_ended(&mut self) {
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < KEPT) {
            return;
        }
        self.tidied = Some(Instant::now());
        let mut last_asked: HashMap<u32, Instant> = HashMap::new();
        for (program, kept) in &self.kept {
            let last = last_asked.entry(program.pid).or_insert(kept.asked);
            *last = kept.asked.max(*last);
        }
        self.kept.retain(|program, kept| {
            let is_there = || kept.process.as_ref().is_ok_and(|process| !process.has_ended());
            let is_over = last_asked.get(&program.pid) != Some(&kept.asked) || !is_there();
            let was_over = std::mem::replace(&mut kept.is_over, is_over);
            kept.asked.elapsed() < KEPT || !(was_over && is_over)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::super::process::{CLOCK_TICK_NS, identity_in};
    use super::*;

    /// Where the code of a process's program is, and its file, once it is another than that.
    fn code(pid: u32, former: &str) -> (u64, String) {
        loop {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).expect("a process").display().to_string();
            let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process");
            let line = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with(&exe));
            let begin = line.and_then(|line| u64::from_str_radix(line.split('-').next()?, 16).ok());
            // The kernel's own comes last.
            match begin.filter(|_| exe != former && maps.contains("[vdso]")) {
                Some(begin) => return (begin, exe),
                None => std::thread::yield_now(),
            }
        }
    }

    /// The program that a process is now.
    fn program(pid: u32) -> ProgramId {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let [ticks, stack_end, data_end] = identity_in(&stat).expect("its numbers");
        ProgramId { pid, started: ticks * CLOCK_TICK_NS, stack_end, data_end }
    }

    /// The file that has the code at an address.
    fn file_at(programs: &Programs, program: ProgramId, address: u64) -> Result<String, String> {
        let process = programs.get(program).map_err(str::to_owned)?;
        process.spot(address).module.map(|module| module.to_string()).ok_or_else(|| "nothing is there".to_owned())
    }

    #[test]
    fn programs_are_kept_as_they_were() {
        let script = "read begin; exec sleep 1000";
        let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().expect("a shell");
        let pid = child.id();
        let own = std::env::current_exe().expect("this program").display().to_string();
        let (shell_at, shell) = code(pid, &own);
        let before = program(pid);
        let mut programs = Programs::default();
        // Where nothing is: it is looked at again.
        let nowhere = || [1];
        programs.look_at(before, nowhere());
        assert_eq!(file_at(&programs, before, shell_at), Ok(shell.clone()));

        let looked = |programs: &Programs| programs.kept[&before].looked;
        let first = looked(&programs);
        programs.look_at(before, [shell_at]);
        assert_eq!(looked(&programs), first);
        programs.look_at(before, [shell_at].into_iter().chain(nowhere()));
        let second = looked(&programs);
        assert!(second > first);
        let long_ago = second.checked_sub(FRESH).expect("a time");
        programs.kept.values_mut().for_each(|kept| kept.looked = long_ago);
        programs.look_at(before, [shell_at]);
        assert!(looked(&programs) > second);

        child.stdin.take().expect("its input").write_all(b"\n").expect("a line");
        let (sleep_at, sleep) = code(pid, &shell);
        let after = program(pid);
        [before, after].into_iter().for_each(|program| programs.look_at(program, nowhere()));
        assert_eq!(file_at(&programs, before, shell_at), Ok(shell));
        assert_eq!(file_at(&programs, after, sleep_at), Ok(sleep.clone()));
        // Who comes too late to look is not told of another program, nor of another process with the same id.
        for other in [ProgramId { started: 0, ..after }, ProgramId { data_end: 0, ..after }] {
            programs.look_at(other, nowhere());
            assert!(file_at(&programs, other, sleep_at).is_err_and(|why| why.contains("another program")));
        }

        child.kill().and_then(|()| child.wait()).expect("its end");
        programs.look_at(after, nowhere());
        assert_eq!(file_at(&programs, after, sleep_at), Ok(sleep));
        let mut unknown = Programs::default();
        unknown.look_at(after, nowhere());
        assert!(file_at(&unknown, after, sleep_at).is_err_and(|why| why.contains("had ended")));

        // They may have left stacks behind until they are found to have ended, and for a while after that.
        programs.kept.values_mut().for_each(|kept| kept.asked = kept.asked.checked_sub(KEPT).expect("a time"));
        programs.forget_ended();
        assert!(!programs.is_empty());
        programs.forget_ended();
        assert!(!programs.is_empty());
        programs.tidied = programs.tidied.and_then(|tidied| tidied.checked_sub(KEPT));
        programs.forget_ended();
        assert!(programs.is_empty());
    }

    #[test]
    fn what_is_forgotten_first() {
        let mut programs = Programs::default();
        let now = Instant::now();
        for (pid, size) in [(1, 10), (2, 30), (3, 20)] {
            let asked = now + Duration::from_secs(pid.into());
            let program = ProgramId { pid, started: 0, stack_end: 0, data_end: 0 };
            programs
                .kept
                .insert(program, Kept { process: Err(String::new()), size, looked: now, asked, is_over: false });
        }
        programs.forget_first_by(|kept| Reverse(kept.asked));
        let mut pids: Vec<u32> = programs.kept.keys().map(|program| program.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [2, 3]);
        programs.forget_first_by(|kept| kept.size);
        assert_eq!(programs.kept.keys().next().map(|program| program.pid), Some(3));
    }
}
