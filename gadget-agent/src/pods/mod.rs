//! Which cgroup is whose, and which are wanted.
//!
//! - [`hierarchy`]: where cgroups are found, and which are this node's
//! - [`path`]: what a cgroup's path says: pod, container
//! - [`bundle`]: what the runtime says of a container: its name, its pod's
//! - [`pod`] and [`watch`]: what the API server says of a pod: names, labels, owner
//! - [`cgroup`]: all of it together, for one cgroup
//! - [`slots`]: the filter's slots: who has which, which are free, which instances want them
//! - [`directory`]: all cgroups that are known, and all of the above for each
//! - [`kernel`]: the programs that tell of new ones
//! - [`tracker`]: keeps the directory up to date
//! - [`selection`]: whether a session wants a cgroup's events

pub(crate) mod bundle;
pub(crate) mod cgroup;
pub(crate) mod directory;
pub(crate) mod hierarchy;
pub(crate) mod kernel;
pub(crate) mod path;
pub(crate) mod pod;
pub(crate) mod selection;
pub(crate) mod slots;
pub(crate) mod tracker;
pub(crate) mod watch;
