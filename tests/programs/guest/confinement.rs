//! An agent with the capabilities of `manifests/agent.yaml`, and no others.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use gadgets::catalogue::{CHARGED_TO_CGROUPS, Release};
use nix::unistd::execv;

/// CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF.
const CAPABILITIES: [libc::c_ulong; 4] = [18, 19, 38, 39];
/// What `deploy` adds where kernels of before 5.11 count BPF's memory as locked memory.
const SYS_RESOURCE: libc::c_ulong = 24;
/// The highest that any kernel has.
const LAST: libc::c_ulong = 63;

/// Becomes this program, confined.
pub(crate) fn confine(program: &CStr) -> ExitCode {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let is_old = Release::parse(&release).unwrap() < CHARGED_TO_CGROUPS;
    for capability in 0..=LAST {
        let is_kept = CAPABILITIES.contains(&capability) || (is_old && capability == SYS_RESOURCE);
        if !is_kept {
            // SAFETY: it takes numbers, and only lessens what this process may become. Unknown numbers are refused.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
    }
    let args = std::env::args_os().skip(1).map(|arg| CString::new(arg.into_vec()).unwrap());
    let args: Vec<CString> = std::iter::once(program.to_owned()).chain(args).collect();
    let Err(error) = execv(program, &args);
    eprintln!("cannot execute {}: {error}", program.to_string_lossy());
    ExitCode::FAILURE
}
