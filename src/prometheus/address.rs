//! Which addresses a URL taken from an API object may lead to.
//!
//! A tenant's URL makes the operator, which stands inside the cluster's network, send a request. It must not
//! become a way to reach what only the operator can: its own loopback, the node's link-local metadata
//! service, the API server. The rules look at the *resolved* address, and the connection is made to the very addresses
//! that were looked at ([`Guard`] is the client's resolver), so that a name which resolves differently a moment
//! later gains nothing. Spellings do not matter either: `2130706433`, `0x7f.1` and `::ffff:127.0.0.1` have become
//! addresses before they are judged.
//!
//! It may not decide whether objects may bring URLs at all; that is the operator's setting.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A range of addresses, `10.0.0.0/8` or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` lies in the range. IPv4 ranges also hold the IPv6 spellings of their addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        fn same_prefix(a: u128, b: u128, width: u32, prefix: u8) -> bool {
            // A shift by the full width is an overflow, and means a prefix of 0: all addresses.
            let shift = width - u32::from(prefix);
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        }
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                same_prefix(u32::from(network).into(), u32::from(address).into(), 32, self.prefix)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => same_prefix(network.into(), address.into(), 128, self.prefix),
            _ => false,
        }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let whole = Self::from(address.parse::<IpAddr>().map_err(|_| InvalidNetwork)?);
        let Some(prefix) = prefix else {
            return Ok(whole);
        };
        let prefix = prefix.parse::<u8>().map_err(|_| InvalidNetwork)?;
        if prefix > whole.prefix {
            return Err(InvalidNetwork);
        }
        Ok(Self { prefix, ..whole })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The text is neither an address nor `address/prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP address or a network such as 10.0.0.0/8")]
pub struct InvalidNetwork;

/// The rules for URLs that come from API objects.
#[derive(Clone, Debug, Default)]
pub struct AddressRules {
    denied: Vec<Network>,
    allowed: Vec<Network>,
}

impl AddressRules {
    /// `denied`: refused besides the built-in ranges; the API server's addresses belong here. `allowed`: the operator's
    /// exceptions from the built-in ranges (a Prometheus beside the operator on loopback). What is in both is denied.
    pub fn new(denied: impl IntoIterator<Item = Network>, allowed: impl IntoIterator<Item = Network>) -> Self {
        Self { denied: denied.into_iter().collect(), allowed: allowed.into_iter().collect() }
    }

    /// Judges one address. The error says which rule refused it.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        // An IPv6 address that a gateway or the kernel turns into an IPv4 one is judged as both.
        let forms = [Some(address), embedded_v4(address).map(IpAddr::V4)];
        let among = |networks: &[Network]| {
            forms.iter().flatten().any(|form| networks.iter().any(|network| network.contains(*form)))
        };
        if among(&self.denied) {
            return Err(Refused("it leads to an address the operator denies"));
        }
        if among(&self.allowed) {
            return Ok(());
        }
        for form in forms.into_iter().flatten() {
            if let Some(reason) = built_in(form) {
                return Err(Refused(reason));
            }
        }
        Ok(())
    }

    /// Judges a URL whose host is an address, which no resolver will see. A name passes: [`Guard`] judges what it
    /// resolves to.
    pub fn check_literal(&self, url: &Url) -> Result<(), Refused> {
        let Some(host) = url.host_str() else {
            return Err(Refused("the URL names no host"));
        };
        // `Url` has already turned decimal, octal, hexadecimal and short forms into dotted ones.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => self.check(address),
            Err(_) => Ok(()),
        }
    }
}

/// Why an address may not be used; made of our own words only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub &'static str);

fn built_in(address: IpAddr) -> Option<&'static str> {
    const LOOPBACK: &str = "it leads to a loopback address";
    const LINK_LOCAL: &str = "it leads to a link-local address";
    const UNSPECIFIED: &str = "it leads to an unspecified address";
    const MULTICAST: &str = "it leads to a multicast or broadcast address";
    const METADATA: &str = "it leads to a cloud provider's metadata service";
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            // All of 0.0.0.0/8 means "this host" to some kernels.
            [0, ..] => Some(UNSPECIFIED),
            _ if v4.is_loopback() => Some(LOOPBACK),
            _ if v4.is_link_local() => Some(LINK_LOCAL),
            _ if v4.is_multicast() || v4.is_broadcast() => Some(MULTICAST),
            // Alibaba Cloud and Oracle Cloud keep theirs outside the link-local range.
            [100, 100, 100, 200] | [192, 0, 0, 192] => Some(METADATA),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            _ if v6.is_unspecified() => Some(UNSPECIFIED),
            _ if v6.is_loopback() => Some(LOOPBACK),
            _ if v6.is_unicast_link_local() => Some(LINK_LOCAL),
            _ if v6.is_multicast() => Some(MULTICAST),
            // AWS's instance metadata over IPv6.
            [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] => Some(METADATA),
            _ => None,
        },
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, NAT64 and 6to4.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let last = |v6: Ipv6Addr| {
        let [.., a, b, c, d] = v6.octets();
        Ipv4Addr::new(a, b, c, d)
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some(last(v6)),
        // ::/96, but `::` and `::1` are IPv6's own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(last(v6)),
        [0x0064, 0xff9b, 0, 0, 0, 0, ..] => Some(last(v6)),
        [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

/// The resolver of clients for URLs from objects: resolves as the operating system does, and hands only
/// allowed addresses to the connector.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) rules: Arc<AddressRules>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = Arc::clone(&self.rules);
        Box::pin(async move {
            let resolved = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses = allowed(&rules, resolved)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The allowed ones of `resolved`; the first refusal if there are none. A name with both kinds is used by its
/// allowed addresses: a link-local address beside a routable one is common where nodes register themselves.
fn allowed(rules: &AddressRules, resolved: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let mut refused = None;
    let mut addresses = Vec::new();
    for address in resolved {
        match rules.check(address.ip()) {
            Ok(()) => addresses.push(address),
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    match refused {
        Some(reason) if addresses.is_empty() => Err(reason),
        _ => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(rules: &AddressRules, host: &str) -> Result<(), Refused> {
        rules.check_literal(&format!("http://{host}:9090/x").parse().unwrap())
    }

    #[test]
    fn literals_in_every_spelling() {
        let rules = AddressRules::new(["10.96.0.1".parse().unwrap(), "fd00:1::/64".parse().unwrap()], []);
        for (host, word) in [
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("127.1", "loopback"),
            ("127.0.0.1.", "loopback"),
            ("2130706433", "loopback"),
            ("0x7f000001", "loopback"),
            ("0x7f.1", "loopback"),
            ("0177.0.0.1", "loopback"),
            ("017700000001", "loopback"),
            ("%31%32%37.0.0.1", "loopback"),
            ("１２７.0.0.1", "loopback"),
            ("[::1]", "loopback"),
            ("[0:0:0:0:0:0:0:1]", "loopback"),
            ("[::ffff:127.0.0.1]", "loopback"),
            ("[::ffff:7f00:1]", "loopback"),
            ("[::127.0.0.1]", "loopback"),
            ("[64:ff9b::127.0.0.1]", "loopback"),
            ("[2002:7f00:1::]", "loopback"),
            ("169.254.169.254", "link-local"),
            ("2852039166", "link-local"),
            ("[::ffff:169.254.169.254]", "link-local"),
            ("[fe80::1]", "link-local"),
            ("[febf::1]", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("[::]", "unspecified"),
            ("[::ffff:0.0.0.0]", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("[ff02::1]", "multicast"),
            ("100.100.100.200", "metadata"),
            ("192.0.0.192", "metadata"),
            ("[fd00:ec2::254]", "metadata"),
            ("10.96.0.1", "denies"),
            ("174063617", "denies"),
            ("[::ffff:10.96.0.1]", "denies"),
            ("[64:ff9b::10.96.0.1]", "denies"),
            ("[fd00:1::5]", "denies"),
        ] {
            let refused = literal(&rules, host).expect_err(host);
            assert!(refused.0.contains(word), "{host}: {refused}");
        }
        for host in [
            "10.96.0.2",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "203.0.113.9",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.1.1",
            "[2001:db8::1]",
            "[fd00:2::5]",
            "[::ffff:203.0.113.9]",
            "[64:ff9b::cb00:7109]",
            // Names are judged by what they resolve to.
            "localhost",
            "prometheus.monitoring.svc",
        ] {
            assert_eq!(literal(&rules, host), Ok(()), "{host}");
        }
    }

    #[test]
    fn the_operators_exceptions_do_not_reach_into_the_denied() {
        let rules = AddressRules::new(["127.0.0.9".parse().unwrap()], ["127.0.0.0/8".parse().unwrap()]);
        assert_eq!(literal(&rules, "127.0.0.1"), Ok(()));
        assert_eq!(literal(&rules, "[::ffff:127.0.0.1]"), Ok(()));
        assert!(literal(&rules, "127.0.0.9").is_err());
        assert!(literal(&rules, "[::ffff:127.0.0.9]").is_err());
        assert!(literal(&rules, "[::1]").is_err());
        assert!(literal(&rules, "169.254.0.1").is_err());
    }

    #[test]
    fn networks() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "ffff::1", "1.2.3.4"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network}");
            assert!(!network.contains(outside.parse().unwrap()), "{network}");
        }
        for text in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }

    #[test]
    fn of_a_names_addresses_only_the_allowed_reach_the_connector() {
        let rules = AddressRules::default();
        let resolve =
            |addresses: &[&str]| allowed(&rules, addresses.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)));
        let ips = |addresses: Vec<SocketAddr>| addresses.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>();
        assert_eq!(
            ips(resolve(&["127.0.0.1", "203.0.113.9", "fe80::1", "2001:db8::1"]).unwrap()),
            ["203.0.113.9", "2001:db8::1"]
        );
        assert!(resolve(&["127.0.0.1", "::1"]).is_err());
        // No address at all is for the connector to report: nothing was refused.
        assert_eq!(ips(resolve(&[]).unwrap()), Vec::<String>::new());
    }
}
