//! What the kernel's numbers are called.

pub mod capability;
pub(crate) mod constant;
pub mod errno;
pub mod open_flags;
pub mod syscall;
