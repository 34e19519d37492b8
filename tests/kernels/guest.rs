//! A virtual machine with another kernel: emulated, since nothing else can be relied on where tests run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::kernels::{Cell, Outcome, Report, last_lines};
use tests::scenarios::bcc::WITNESSES;
use tests::{Package, Process, dist};

/// How long a guest may take from its start to its end.
const DEADLINE: Duration = Duration::from_secs(1200);
/// How much of a guest's console is shown if it does not come to its end.
const LAST_LINES: usize = 80;
/// What emulates them, of which Debian: QEMU 7.2 executed code that another processor had changed as it was before, and a kernel died ("Oops:
/// int3") or stood still where it changed its own.
const EMULATOR: (&str, &str) = ("trixie", "qemu-system-x86");
/// Guests without this instruction: with it, Linux 6.12 dies at random under QEMU 7.2's emulation.
const PROCESSOR: &str = "max,-cx16";
/// A panic ends the guest at once. Without that instruction, newer kernels have memory for socket storage from slabs with
/// checks only.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 slab_debug=F,kmalloc-*";

/// Puts bcc's tools into a folder, and what they need.
fn bring_tools(folder: &Path) {
    let package = Package::fetch("bookworm", "libbpf-tools");
    let tools = WITNESSES.iter().map(|witness| package.file(&format!("usr/sbin/{}", witness.tool[0])));
    let libraries = ["libelf.so.1", "libz.so.1", "libc.so.6"].map(|name| package.library(name));
    for file in tools.chain(libraries).chain([package.file("lib64/ld-linux-x86-64.so.2")]) {
        fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
}

/// A kernel to run.
#[derive(Clone)]
pub(crate) struct Kernel {
    /// Its series, or `newest`.
    pub(crate) name: String,
    pub(crate) image: PathBuf,
    /// A folder of modules, named in the order in which they are to be loaded.
    pub(crate) modules: PathBuf,
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
        let again = if self.repeated { ", not at the first attempt" } else { "" };
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
    emulator: Package,
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
        for program in ["workload", "hot"] {
            fs::copy(dist(program), root.join("confined").join(program)).unwrap();
        }
        fs::create_dir(root.join("bcc")).unwrap();
        bring_tools(&root.join("bcc"));
        // The kernel opens the console before anything can be mounted.
        let script = "mknod dev/console c 5 1 && find . | cpio --quiet --create --format newc >../initrd";
        let status = Command::new("sh").args(["-euc", script]).current_dir(&root).status().unwrap();
        assert!(status.success(), "cannot make the guests' root file system: {status}");
        Self { folder, emulator: Package::fetch(EMULATOR.0, EMULATOR.1) }
    }

    /// Runs a guest to its end; once more if it does not come there, unless it died of what we loaded.
    pub(crate) fn run(&self, kernel: &Kernel) -> Run {
        let run = self.run_once(kernel);
        match &run.broken {
            Some(why) if !why.contains("bpf_prog_") && !why.contains("bpf_trampoline_") => {
                println!("{}: {why}\nonce more:", kernel.name);
                Run { repeated: true, ..self.run_once(kernel) }
            }
            _ => run,
        }
    }

    fn run_once(&self, kernel: &Kernel) -> Run {
        let file = |name: &str| self.folder.join(format!("{}.{name}", kernel.name));
        let (console, results) = (file("console"), file("results"));
        let begin = Instant::now();
        let ended = self.boot(kernel, &console, &results);
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

    /// All guests' root file system, and this kernel's modules.
    fn initrd_of(&self, kernel: &Kernel) -> PathBuf {
        let initrd = self.folder.join(format!("{}.initrd", kernel.name));
        // The kernel reads one archive after the other.
        let script = r#"cd "$1" && find . | cpio --quiet --create --format newc | cat ../initrd - >"$2""#;
        let folder = self.folder.join(&kernel.name);
        fs::create_dir_all(folder.join("modules")).unwrap();
        for module in fs::read_dir(&kernel.modules).unwrap().map(Result::unwrap) {
            fs::copy(module.path(), folder.join("modules").join(module.file_name())).unwrap();
        }
        let status = Command::new("sh").args(["-euc", script, "sh"]).arg(&folder).arg(&initrd).status().unwrap();
        assert!(status.success(), "cannot add modules to the guests' root file system: {status}");
        initrd
    }

    /// Returns whether the guest turned itself off in time.
    fn boot(&self, kernel: &Kernel, console: &Path, results: &Path) -> bool {
        let mut command = self.emulator.command("usr/bin/qemu-system-x86_64");
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.emulator.file(firmware));
        }
        command.args(["-accel", "tcg", "-cpu", PROCESSOR, "-smp", "2", "-m", "1G", "-nodefaults", "-no-reboot"]);
        command.args(["-display", "none", "-kernel"]).arg(&kernel.image);
        command.arg("-initrd").arg(self.initrd_of(kernel));
        // What the kernel does not know itself is the first process's environment.
        let gadgets = std::env::var("GADGETS").map(|names| format!(" GADGETS={names}")).unwrap_or_default();
        command.arg("-append").arg(format!("{COMMAND_LINE}{gadgets}"));
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
