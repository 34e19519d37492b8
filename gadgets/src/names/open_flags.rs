//! Names of the flags of open(2), as `asm-generic/fcntl.h` has them. Gadgets number them like that on every architecture.

/// The bits that say how a file is accessed: a number, and no flags.
const ACCESS: u64 = 0b11;
static ACCESSES: [&str; 4] = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];

/// A file is made that has no name.
pub(crate) const TEMPORARY: u64 = 0o20_000_000;

/// Those of several bits come before those that are part of them.
static FLAGS: [(&str, u64); 19] = [
    ("O_SYNC", 0o4_010_000),
    ("O_TMPFILE", 0o20_200_000),
    ("O_CREAT", 0o100),
    ("O_EXCL", 0o200),
    ("O_NOCTTY", 0o400),
    ("O_TRUNC", 0o1000),
    ("O_APPEND", 0o2000),
    ("O_NONBLOCK", 0o4000),
    ("O_DSYNC", 0o10_000),
    ("O_ASYNC", 0o20_000),
    ("O_DIRECT", 0o40_000),
    ("O_LARGEFILE", 0o100_000),
    ("O_DIRECTORY", 0o200_000),
    ("O_NOFOLLOW", 0o400_000),
    ("O_NOATIME", 0o1_000_000),
    ("O_CLOEXEC", 0o2_000_000),
    ("__O_SYNC", 0o4_000_000),
    ("O_PATH", 0o10_000_000),
    ("__O_TMPFILE", 0o20_000_000),
];

/// The names of the flags in a number, and the bits that have none.
pub fn names(number: u64) -> (Vec<&'static str>, u64) {
    let access = ACCESSES[(number & ACCESS) as usize];
    let (flags, rest) = of_bits(number & !ACCESS, FLAGS.iter().copied());
    (std::iter::once(access).chain(flags).collect(), rest)
}

/// The names of the bits in a number, and the bits that have none.
pub(crate) fn of_bits<'a>(number: u64, known: impl Iterator<Item = (&'a str, u64)>) -> (Vec<&'a str>, u64) {
    let mut rest = number;
    let mut names = Vec::new();
    for (name, bits) in known {
        if bits != 0 && rest & bits == bits {
            names.push(name);
            rest &= !bits;
        }
    }
    (names, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_once() {
        assert_eq!(names(0), (vec!["O_RDONLY"], 0));
        assert_eq!(names(0o1_102), (vec!["O_RDWR", "O_CREAT", "O_TRUNC"], 0));
        assert_eq!(names(0o4_010_001), (vec!["O_WRONLY", "O_SYNC"], 0));
        assert_eq!(names(0o20_200_001), (vec!["O_WRONLY", "O_TMPFILE"], 0));
        assert_eq!(names(1 << 40 | 0o200_000), (vec!["O_RDONLY", "O_DIRECTORY"], 1 << 40));
    }
}
