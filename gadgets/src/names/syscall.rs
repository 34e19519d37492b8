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
}
