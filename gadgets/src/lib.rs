//! What a gadget is, for both sides of a session: everything that client and agent must agree on, and nothing that is
//! Linux-only.
//!
//! - [`btf`] and [`schema`]: what a gadget's records look like, read from its object
//! - [`catalogue`]: what the object cannot say: summary, parameters, columns, hook variants
//! - [`spec`]: what is asked for: of whom ([`labels`], [`workload`], [`tasks`]), how much
//! - [`wire`]: the frames of a session; [`decoder`] reads them
//! - [`interval`]: when sampled gadgets show what has come
//! - [`diagnosis`]: what an agent finds when it looks at its host
//! - [`capture`] and [`call`]: what system calls are given: what is copied of it, and how it is written
//! - [`record`], [`names`] and [`format`](mod@format): from raw records to what a person or a program reads

pub mod btf;
pub mod call;
pub mod capture;
pub mod catalogue;
pub mod decoder;
pub mod diagnosis;
mod dictionary;
pub mod format;
pub mod interval;
pub mod labels;
pub mod names;
pub mod record;
mod recordings;
pub mod schema;
pub mod shares;
mod socket_address;
pub mod spec;
pub mod tasks;
pub mod wire;
pub mod workload;
