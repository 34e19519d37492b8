//! The agent's own memory: what it no longer needs goes back to the system, since it waits for most of its life, on every
//! node.

#[cfg(target_env = "gnu")]
use nix::libc;

/// Has all threads allocate from one arena: only that one can be given back whole. To be called before there are others.
pub(crate) fn share_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and there is no other thread yet (mallopt(3): MT-Unsafe init).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what the allocator keeps for later.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and locks what it changes (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}
