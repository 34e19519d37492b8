//! The agent's own memory.

/// Gives back to the system what the allocator keeps for later: an agent waits for most of its life, on every node.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and locks what it changes (malloc_trim(3): MT-Safe).
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
