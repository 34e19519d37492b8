//! Addresses of sockets, as programs hand them to the kernel: `struct sockaddr` of any family.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use linux_raw_sys::net::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX};

use crate::format::escape;
use crate::names::constant::FAMILIES;

/// Adds one as text: `{AF_INET, 10.0.0.7:443}`. Of a family that is not known its bytes.
pub(crate) fn text(bytes: &[u8], out: &mut String) {
    let Some((family, rest)) = bytes.split_first_chunk() else { return out.push_str("{}") };
    let family = u16::from_le_bytes(*family);
    out.push('{');
    match FAMILIES.name(family.into()) {
        Some(name) => out.push_str(name),
        None => _ = write!(out, "{family}"),
    }
    out.push_str(", ");
    if known(family.into(), rest, out).is_none() {
        rest.iter().for_each(|byte| _ = write!(out, "{byte:02x}"));
    }
    out.push('}');
}

/// What is behind the family, if it is one that is known, and all of it is there.
fn known(family: u32, rest: &[u8], out: &mut String) -> Option<()> {
    match family {
        AF_INET => {
            let (port, rest) = rest.split_first_chunk()?;
            let address = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            let _ = write!(out, "{}", SocketAddr::new(address.into(), u16::from_be_bytes(*port)));
        }
        AF_INET6 => {
            let (port, rest) = rest.split_first_chunk()?;
            // Between them is the flow.
            let address = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
            let _ = write!(out, "{}", SocketAddr::new(address.into(), u16::from_be_bytes(*port)));
        }
        AF_UNIX => {
            // An abstract one begins with a NUL, and may have more.
            let (sign, name) = match rest.split_first() {
                Some((0, name)) => ("@", name),
                _ => ("", rest.split(|byte| *byte == 0).next()?),
            };
            out.push_str(sign);
            quoted(name, out);
        }
        AF_NETLINK => {
            let port = u32::from_le_bytes(*rest.get(2..)?.first_chunk()?);
            let groups = u32::from_le_bytes(*rest.get(6..)?.first_chunk()?);
            let _ = write!(out, "{port}, {groups:#x}");
        }
        _ => return None,
    }
    Some(())
}

/// Adds text in quotes, harmless to terminals.
pub(crate) fn quoted(text: &[u8], out: &mut String) {
    out.push('"');
    for (index, part) in text.split(|byte| *byte == b'"').enumerate() {
        if index > 0 {
            out.push_str("\\\"");
        }
        escape(part, out);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(bytes: &[u8]) -> String {
        let mut out = String::new();
        text(bytes, &mut out);
        out
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        assert_eq!(text_of(&[2, 0, 1, 187, 10, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]), "{AF_INET, 10.0.0.7:443}");
        let mut six = vec![10, 0, 0, 80, 0, 0, 0, 0];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        assert_eq!(text_of(&six), "{AF_INET6, [::1]:80}");
        assert_eq!(text_of(b"\x01\x00/run/a\"b\x00left"), r#"{AF_UNIX, "/run/a\"b"}"#);
        assert_eq!(text_of(b"\x01\x00\x00abc"), r#"{AF_UNIX, @"abc"}"#);
        assert_eq!(text_of(&[16, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0]), "{AF_NETLINK, 7, 0x1}");
        assert_eq!(
            (text_of(&[2, 0, 1]), text_of(&[99, 1, 255]), text_of(&[])),
            ("{AF_INET, 01}".into(), "{355, ff}".into(), "{}".into())
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_harmless_line(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            prop_assert!(!text_of(&bytes).contains(char::is_control));
        }
    }
}
