//! A virtual machine with another kernel: emulated, since nothing else can be relied on where tests run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::kernels::{Cell, Outcome, Report, last_lines};
use tests::{Process, dist};

/// How long a guest may take from its start to its end.
const DEADLINE: Duration = Duration::from_secs(300);
/// How much of a guest's console is shown if it does not come to its end.
const LAST_LINES: usize = 40;
/// Guests without this instruction: with it, Linux 6.12 dies at random under QEMU 7.2's emulation.
const PROCESSOR: &str = "max,-cx16";

/// A kernel to run.
#[derive(Clone)]
pub(crate) struct Kernel {
    /// Its series, or `newest`.
    pub(crate) name: String,
    pub(crate) image: PathBuf,
}

/// What came of one guest.
pub(crate) struct Run {
    pub(crate) kernel: String,
    /// The kernel's release, if the guest came as far as to say it.
    pub(crate) release: String,
    pub(crate) cells: Vec<Cell>,
    /// Why it did not come to its end.
    pub(crate) broken: Option<String>,
    pub(crate) seconds: u64,
    /// The first attempt did not come to its end.
    pub(crate) repeated: bool,
}

impl Run {
    /// In a line.
    pub(crate) fn summary(&self) -> String {
        let count = |is: fn(&Outcome) -> bool| self.cells.iter().filter(|cell| is(&cell.outcome)).count();
        let (passed, unmet) = (
            count(|outcome| matches!(outcome, Outcome::Pass { .. })),
            count(|outcome| matches!(outcome, Outcome::Unmet(_))),
        );
        let failed = self.failures().len();
        let again = if self.repeated { ", at the second attempt" } else { "" };
        format!(
            "{} ({}): {passed} pass, {unmet} unmet, {failed} fail; {} s{again}",
            self.kernel, self.release, self.seconds
        )
    }

    /// All that is wrong.
    pub(crate) fn failures(&self) -> Vec<String> {
        let of_cell = |cell: &Cell| match &cell.outcome {
            Outcome::Fail(why) => {
                let (mode, gadget, check) = (cell.mode.name(), &cell.gadget, &cell.check);
                Some(format!("{} with cgroups {mode}: {gadget}, {check}: {why}", self.kernel))
            }
            _ => None,
        };
        let broken = self.broken.iter().map(|why| format!("{}: {why}", self.kernel));
        self.cells.iter().filter_map(of_cell).chain(broken).collect()
    }
}

/// The files that guests need, in a folder that goes with this.
pub(crate) struct Files {
    folder: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Files {
    /// Makes the root file system that all guests have.
    pub(crate) fn make() -> Self {
        let folder = std::env::temp_dir().join(format!("kubectl-gadget-kernels-{}", std::process::id()));
        let root = folder.join("root");
        for name in ["product", "confined", "dev"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let programs = dist("programs");
        fs::copy(&programs, root.join("init")).unwrap();
        // Links: the archive has the file once.
        for name in [
            "product/tiny-agent",
            "confined/tiny-agent",
            "confined/gadget-agent",
            "confined/tiny-client",
            "confined/kubectl-gadget",
        ] {
            fs::hard_link(root.join("init"), root.join(name)).unwrap();
        }
        fs::copy(dist("gadget-agent"), root.join("product/gadget-agent")).unwrap();
        fs::copy(dist("workload"), root.join("confined/workload")).unwrap();
        // The kernel opens the console before anything can be mounted.
        let script = "mknod dev/console c 5 1 && find . | cpio --quiet --create --format newc >../initrd";
        let status = Command::new("sh").args(["-euc", script]).current_dir(&root).status().unwrap();
        assert!(status.success(), "cannot make the guests' root file system: {status}");
        Self { folder }
    }

    /// Runs a guest to its end; once more if it does not come there, unless it died of what we loaded.
    pub(crate) fn run(&self, kernel: &Kernel) -> Run {
        let first = self.run_once(kernel);
        let Some(why) = &first.broken else { return first };
        if why.contains("bpf_prog_") || why.contains("bpf_trampoline_") {
            return first;
        }
        println!("{}: {why}\nonce more:", kernel.name);
        Run { repeated: true, ..self.run_once(kernel) }
    }

    fn run_once(&self, kernel: &Kernel) -> Run {
        let file = |name: &str| self.folder.join(format!("{}.{name}", kernel.name));
        let (console, results) = (file("console"), file("results"));
        let begin = Instant::now();
        let ended = self.boot(&kernel.image, &console, &results);
        let mut run = Run {
            kernel: kernel.name.clone(),
            release: String::new(),
            cells: Vec::new(),
            broken: None,
            seconds: begin.elapsed().as_secs(),
            repeated: false,
        };
        let mut is_complete = false;
        for line in fs::read_to_string(&results).unwrap_or_default().lines() {
            match serde_json::from_str(line) {
                Ok(Report::Begin { kernel }) => run.release = kernel,
                Ok(Report::Cell(cell)) => run.cells.push(cell),
                Ok(Report::End) => is_complete = true,
                Err(_) => {}
            }
        }
        if !is_complete {
            let how = if ended { "turned off before its end" } else { "did not come to its end in time" };
            run.broken =
                Some(format!("the guest {how}; the last of its console:\n{}", last_lines(&console, LAST_LINES)));
        }
        run
    }

    /// Returns whether the guest turned itself off in time.
    fn boot(&self, image: &Path, console: &Path, results: &Path) -> bool {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-cpu", PROCESSOR, "-smp", "2", "-m", "1G", "-nodefaults", "-no-reboot"]);
        command.args(["-display", "none", "-kernel"]).arg(image).arg("-initrd").arg(self.folder.join("initrd"));
        // A panic ends the guest at once.
        command.args(["-append", "console=ttyS0 panic=-1"]);
        for file in [console, results] {
            command.arg("-serial").arg(format!("file:{}", file.display()));
        }
        let mut guest = Process(command.stdin(Stdio::null()).spawn().unwrap());
        let begin = Instant::now();
        while guest.0.try_wait().unwrap().is_none() {
            if begin.elapsed() > DEADLINE {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }
}
