//! Names of system calls, by their number on an architecture.

use syscalls::{aarch64, arm, x86, x86_64};

macro_rules! names {
    ($(#[doc = $doc:literal] $function:ident $architecture:ident)*) => {$(
        #[doc = $doc]
        pub fn $function(number: u64) -> Option<&'static str> {
            Some($architecture::Sysno::new(usize::try_from(number).ok()?)?.name())
        }
    )*};
}

names! {
    /// The name on x86-64; `None` if there is none of this number.
    on_x86_64 x86_64
    /// The name for programs of 32 bits on x86; `None` if there is none of this number.
    on_x86 x86
    /// The name on arm64; `None` if there is none of this number.
    on_aarch64 aarch64
    /// The name for programs of 32 bits on arm; `None` if there is none of this number.
    on_arm arm
}

/// The kernel's functions whose names are not the calls' (`SYSCALL_DEFINE` and the tables of calls differ).
static FUNCTIONS: [(&str, &str); 8] = [
    ("newstat", "stat"),
    ("newlstat", "lstat"),
    ("newfstat", "fstat"),
    ("newuname", "uname"),
    ("sendfile64", "sendfile"),
    ("umount", "umount2"),
    ("fadvise64_64", "fadvise64"),
    ("arm64_personality", "personality"),
];

/// Number and name of the call that a function of the kernel makes for programs of 64 bits, as this is compiled for; `None`
/// if it makes none.
pub fn of_function(function: &str) -> Option<(u32, &'static str)> {
    let call = FUNCTIONS.iter().find(|(known, _)| *known == function).map_or(function, |(_, call)| call);
    let number: Native = call.parse().or_else(|_| function.parse()).ok()?;
    Some((number.id().try_into().ok()?, number.name()))
}

/// The number of the call of this name for programs of 64 bits, as this is compiled for.
pub fn number(name: &str) -> Option<u32> {
    let number: Native = name.parse().ok()?;
    number.id().try_into().ok()
}

/// The same for programs of 32 bits.
pub fn compat_number(name: &str) -> Option<u32> {
    let number: Compat = name.parse().ok()?;
    number.id().try_into().ok()
}

#[cfg(target_arch = "aarch64")]
use {aarch64::Sysno as Native, arm::Sysno as Compat};
#[cfg(not(target_arch = "aarch64"))]
use {x86::Sysno as Compat, x86_64::Sysno as Native};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_has_its_numbers() {
        assert_eq!((on_x86_64(0), on_x86_64(59), on_x86_64(1 << 30)), (Some("read"), Some("execve"), None));
        assert_eq!((on_x86(3), on_x86(11), on_x86(102)), (Some("read"), Some("execve"), Some("socketcall")));
        assert_eq!((on_aarch64(63), on_aarch64(221)), (Some("read"), Some("execve")));
        assert_eq!((on_arm(3), on_arm(11)), (Some("read"), Some("execve")));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn calls_are_found_by_name() {
        assert_eq!((number("read"), compat_number("read"), number("readd")), (Some(0), Some(3), None));
        assert_eq!((number("socketcall"), compat_number("socketcall")), (None, Some(102)));
    }

    #[test]
    fn functions_make_calls() {
        let name = |function| of_function(function).map(|(_, name)| name);
        assert_eq!(
            (name("openat"), name("newuname"), name("umount")),
            (Some("openat"), Some("uname"), Some("umount2"))
        );
        assert_eq!(name("old_readdir"), None);
        #[cfg(target_arch = "x86_64")]
        assert_eq!((of_function("newstat"), of_function("newfstatat")), (Some((4, "stat")), Some((262, "newfstatat"))));
    }
}
