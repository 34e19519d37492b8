//! BPF objects: [`load`], [`attach`] and read their [`ring`]. Generic over gadgets.

pub(crate) mod attach;
pub(crate) mod load;
pub(crate) mod ring;
