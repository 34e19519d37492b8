//! What a gadget is, for both sides of a session: everything that client and agent must agree on, and nothing that is
//! Linux-only.
//!
//! - [`btf`] and [`schema`]: what a gadget's records look like, read from its object
//! - [`catalogue`]: what the object cannot say: summary, parameters, columns, hook variants
//! - [`spec`]: what is asked for
//! - [`wire`]: the frames of a session; [`decoder`] reads them
//! - [`diagnosis`]: what an agent finds when it looks at its host
//! - [`record`] and [`format`](mod@format): from raw records to what a person or a program reads

pub mod btf;
pub mod catalogue;
pub mod decoder;
pub mod diagnosis;
pub mod errno;
pub mod format;
pub mod labels;
pub mod record;
pub mod schema;
pub mod shares;
pub mod spec;
pub mod wire;
