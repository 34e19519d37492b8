//! BPF objects: [`load`], [`attach`], read their [`ring`] or [`recorder`] (whose [`page`]s a [`replay`] gives out), [`sample`] them, name
//! their [`stacks`], and describe system calls by their [`signatures`]. Generic over gadgets.
//!
//! [`features`] says what this kernel can do, [`refusal`] why it did not do something, [`recursion`] what it left out.

pub(crate) mod attach;
pub(crate) mod descriptor;
pub(crate) mod features;
pub(crate) mod load;
pub(crate) mod memory;
mod page;
mod place;
mod processors;
mod queue;
mod recorded;
pub(crate) mod recorder;
pub(crate) mod recursion;
pub(crate) mod refusal;
pub(crate) mod replay;
pub(crate) mod ring;
pub(crate) mod sample;
pub(crate) mod signatures;
pub(crate) mod stacks;
