//! Which cgroup is whose, and which are wanted.
//!
//! - [`path`]: what a cgroup's path says: pod, container
//! - [`bundle`]: what the runtime says of a container: its name, its pod's
//! - [`cgroup`]: both together, for one cgroup
//! - [`slots`]: the filter's slots: who has which, which are free, which instances want them
//! - [`tracker`]: follows the hierarchy and keeps all that up to date
//! - [`selection`]: whether a session wants a cgroup's events

pub(crate) mod bundle;
pub(crate) mod cgroup;
pub(crate) mod path;
pub(crate) mod selection;
pub(crate) mod slots;
pub(crate) mod tracker;
