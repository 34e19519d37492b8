//! BPF objects: [`load`], [`attach`] and read their [`ring`]. Generic over gadgets.
//!
//! [`features`] says what this kernel can do, [`refusal`] why it did not do something.

pub(crate) mod attach;
pub(crate) mod features;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod refusal;
pub(crate) mod ring;
