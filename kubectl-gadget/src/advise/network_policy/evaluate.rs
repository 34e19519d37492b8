//! What NetworkPolicies (networking.k8s.io/v1) let through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::flow::{Direction, Labels, Name, Protocol};
use super::selector::{Block, Doubt, Known, Truth, all, any, selects};
use crate::peers::TargetPort;

/// The label that every namespace has.
pub(super) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Labels of namespaces.
pub(crate) type Namespaces = BTreeMap<String, Labels>;

/// Policies of a cluster.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    by_namespace: BTreeMap<&'a str, Vec<Policy<'a>>>,
    namespaces: &'a Namespaces,
}

#[derive(Debug)]
struct Policy<'a> {
    name: Name,
    selector: LabelSelector,
    /// Rules by the directions in which it isolates.
    rules: BTreeMap<Direction, Vec<Rule<'a>>>,
}

#[derive(Debug)]
struct Rule<'a> {
    /// Nothing if all may.
    peers: Vec<Peer<'a>>,
    /// Nothing if all are open.
    ports: &'a [NetworkPolicyPort],
}

#[derive(Debug)]
enum Peer<'a> {
    Block(Block),
    Pods {
        namespaces: Option<&'a LabelSelector>,
        pods: Option<&'a LabelSelector>,
    },
    /// What the API server would refuse.
    Nobody,
}

/// Somebody tries to reach somebody.
#[derive(Clone, Debug)]
pub(super) struct Traffic<'a> {
    /// As the subject has it.
    pub(super) direction: Direction,
    pub(super) protocol: Protocol,
    /// The pod that policies isolate.
    pub(super) subject: Subject<'a>,
    /// The other end; several behind a service, each of which it may be.
    pub(super) ends: Vec<End<'a>>,
    /// The service's own address and port.
    pub(super) before_translation: Option<End<'a>>,
}

#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    pub(super) namespace: &'a str,
    pub(super) labels: &'a Labels,
    pub(super) address: Option<IpAddr>,
}

#[derive(Clone, Debug)]
pub(super) struct End<'a> {
    pub(super) party: Party<'a>,
    /// The port that counts, wherever it is.
    pub(super) port: TargetPort,
}

#[derive(Clone, Debug)]
pub(super) enum Party<'a> {
    /// The node on which the subject runs.
    OwnNode,
    Address(IpAddr),
    Pod {
        namespace: &'a str,
        labels: Known<'a>,
        address: Option<IpAddr>,
    },
}

/// What becomes of traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// By these policies; by none if nothing isolates the pod.
    Allowed {
        by: BTreeSet<Name>,
    },
    /// In this direction, by these policies, which isolate the pod.
    Blocked {
        direction: Direction,
        by: BTreeSet<Name>,
    },
    Untold(Doubt),
}

impl<'a> Policies<'a> {
    /// Policies without a namespace are taken as of `default`.
    pub(super) fn new(policies: impl IntoIterator<Item = &'a NetworkPolicy>, namespaces: &'a Namespaces) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<Policy<'_>>> = BTreeMap::new();
        for policy in policies {
            let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
            by_namespace.entry(namespace).or_default().push(Policy::of(policy, namespace));
        }
        Self { by_namespace, namespaces }
    }

    /// Whether traffic is let through on the side of its subject.
    pub(super) fn verdict(&self, traffic: &Traffic<'_>) -> Verdict {
        let mut verdicts = traffic.ends.iter().map(|end| self.one(traffic, end));
        let Some(first) = verdicts.next() else { return Verdict::Untold(Doubt::Address) };
        let verdict = verdicts.fold(first, |known, next| match (known, next) {
            (Verdict::Allowed { mut by }, Verdict::Allowed { by: more }) => {
                by.extend(more);
                Verdict::Allowed { by }
            }
            (Verdict::Untold(doubt), _) | (_, Verdict::Untold(doubt)) => Verdict::Untold(doubt),
            (known @ Verdict::Blocked { .. }, Verdict::Blocked { .. }) => known,
            _ => Verdict::Untold(Doubt::Backends),
        });
        match (&verdict, &traffic.before_translation) {
            (Verdict::Blocked { .. }, Some(end)) if !matches!(self.one(traffic, end), Verdict::Blocked { .. }) => {
                Verdict::Untold(Doubt::Translation)
            }
            _ => verdict,
        }
    }

    /// Whether it is let through on both sides, as far as the other side is a pod of which all labels are known.
    pub(super) fn verdict_of_both(&self, traffic: &Traffic<'_>) -> Verdict {
        let own = self.verdict(traffic);
        let Verdict::Allowed { mut by } = own else { return own };
        for mirrored in traffic.ends.iter().filter_map(|end| mirrored(traffic, end)) {
            match self.verdict(&mirrored) {
                Verdict::Allowed { by: more } => by.extend(more),
                // Of several behind a service the connection reaches one.
                Verdict::Blocked { .. } if traffic.ends.len() > 1 => return Verdict::Untold(Doubt::Backends),
                other => return other,
            }
        }
        Verdict::Allowed { by }
    }

    /// Whether a policy limits what a pod does in a direction.
    pub(super) fn isolate(&self, subject: &Subject<'_>, direction: Direction) -> bool {
        self.isolating(subject, direction).next().is_some()
    }

    /// Policies that have rules at all.
    pub(super) fn with_rules(&self) -> impl Iterator<Item = &Name> {
        let policies = self.by_namespace.values().flatten();
        policies.filter(|policy| policy.rules.values().any(|rules| !rules.is_empty())).map(|policy| &policy.name)
    }

    fn isolating(
        &self,
        subject: &Subject<'_>,
        direction: Direction,
    ) -> impl Iterator<Item = (&Policy<'a>, &[Rule<'a>])> {
        let policies = self.by_namespace.get(subject.namespace).into_iter().flatten();
        let labels = Known::Exactly(subject.labels);
        policies
            .filter(move |policy| selects(&policy.selector, labels) == Ok(true))
            .filter_map(move |policy| Some((policy, policy.rules.get(&direction)?.as_slice())))
    }

    fn one(&self, traffic: &Traffic<'_>, end: &End<'_>) -> Verdict {
        let (mut allowing, mut isolating, mut doubts) = (BTreeSet::new(), BTreeSet::new(), None);
        if matches!(end.party, Party::OwnNode) {
            return Verdict::Allowed { by: allowing };
        }
        for (policy, rules) in self.isolating(&traffic.subject, traffic.direction) {
            isolating.insert(policy.name.clone());
            match any(rules.iter().map(|rule| self.allows(rule, traffic, end))) {
                Ok(true) => _ = allowing.insert(policy.name.clone()),
                Ok(false) => {}
                Err(doubt) => doubts = doubts.or(Some(doubt)),
            }
        }
        match doubts {
            _ if isolating.is_empty() || !allowing.is_empty() => Verdict::Allowed { by: allowing },
            Some(doubt) => Verdict::Untold(doubt),
            None => Verdict::Blocked { direction: traffic.direction, by: isolating },
        }
    }

    fn allows(&self, rule: &Rule<'_>, traffic: &Traffic<'_>, end: &End<'_>) -> Truth {
        let ports = rule.ports.iter().map(|port| is_open(port, traffic.protocol, &end.port));
        let ports = if rule.ports.is_empty() { Ok(true) } else { any(ports) };
        let peers = rule.peers.iter().map(|peer| self.is_peer(peer, traffic.subject.namespace, &end.party));
        all([ports, if rule.peers.is_empty() { Ok(true) } else { any(peers) }])
    }

    fn is_peer(&self, peer: &Peer<'_>, home: &str, party: &Party<'_>) -> Truth {
        match (peer, party) {
            (Peer::Block(block), Party::Address(address)) => block.has(Some(*address)),
            (Peer::Block(block), Party::Pod { address, .. }) => block.has(*address),
            (Peer::Pods { namespaces, pods }, Party::Pod { namespace, labels, .. }) => {
                let is_near =
                    || namespaces.map_or(Ok(*namespace == home), |wanted| self.is_namespace(wanted, namespace));
                all([is_near(), pods.map_or(Ok(true), |pods| selects(pods, *labels))])
            }
            _ => Ok(false),
        }
    }

    fn is_namespace(&self, selector: &LabelSelector, namespace: &str) -> Truth {
        let known = self.namespaces.get(namespace);
        let mut labels = known.cloned().unwrap_or_default();
        labels.insert(NAMESPACE_NAME.to_owned(), namespace.to_owned());
        selects(selector, if known.is_some() { Known::Exactly(&labels) } else { Known::AtLeast(&labels) })
    }
}

/// The same traffic, as the other end has it.
fn mirrored<'a>(traffic: &Traffic<'a>, end: &End<'a>) -> Option<Traffic<'a>> {
    let Party::Pod { namespace, labels: Known::Exactly(labels), address } = end.party else { return None };
    let Subject { namespace: home, labels: own, address: own_address } = traffic.subject;
    let party = Party::Pod { namespace: home, labels: Known::Exactly(own), address: own_address };
    Some(Traffic {
        direction: traffic.direction.reversed(),
        protocol: traffic.protocol,
        subject: Subject { namespace, labels, address },
        ends: vec![End { party, port: end.port.clone() }],
        before_translation: None,
    })
}

/// A port that is open to the protocol and the port at which somebody listens.
fn is_open(open: &NetworkPolicyPort, protocol: Protocol, port: &TargetPort) -> Truth {
    if open.protocol.as_deref().unwrap_or("TCP") != protocol.name() {
        return Ok(false);
    }
    let named = |name: &String| Err(Doubt::NamedPort(name.clone()));
    match (&open.port, port) {
        (None, _) => Ok(true),
        (Some(IntOrString::Int(first)), TargetPort::Number(port)) => {
            Ok((*first..=open.end_port.unwrap_or(*first)).contains(&i32::from(*port)))
        }
        (Some(IntOrString::String(name)), TargetPort::Name(port)) if name == port => Ok(true),
        (Some(IntOrString::String(name)), _) | (Some(IntOrString::Int(_)), TargetPort::Name(name)) => named(name),
    }
}

impl<'a> Policy<'a> {
    fn of(policy: &'a NetworkPolicy, namespace: &str) -> Self {
        let name = policy.metadata.name.clone().unwrap_or_default();
        let mut rules = BTreeMap::new();
        if let Some(spec) = &policy.spec {
            let types = spec.policy_types.as_deref().unwrap_or_default();
            let egress = spec.egress.as_deref().unwrap_or_default();
            let is_of = |direction: Direction, default: bool| {
                if types.is_empty() { default } else { types.iter().any(|known| known == direction.policy_type()) }
            };
            if is_of(Direction::Ingress, true) {
                let ingress = spec.ingress.iter().flatten();
                let rule = ingress.map(|rule| Rule::of(rule.from.as_deref(), rule.ports.as_deref()));
                rules.insert(Direction::Ingress, rule.collect());
            }
            if is_of(Direction::Egress, !egress.is_empty()) {
                let rule = egress.iter().map(|rule| Rule::of(rule.to.as_deref(), rule.ports.as_deref()));
                rules.insert(Direction::Egress, rule.collect());
            }
        }
        let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
        Self { name: Name { namespace: namespace.to_owned(), name }, selector, rules }
    }
}

impl<'a> Rule<'a> {
    fn of(peers: Option<&'a [NetworkPolicyPeer]>, ports: Option<&'a [NetworkPolicyPort]>) -> Self {
        let peers = peers.unwrap_or_default().iter().map(Peer::of).collect();
        Self { peers, ports: ports.unwrap_or_default() }
    }
}

impl<'a> Peer<'a> {
    fn of(peer: &'a NetworkPolicyPeer) -> Self {
        match (&peer.ip_block, peer.namespace_selector.as_ref(), peer.pod_selector.as_ref()) {
            (Some(block), None, None) => Block::of(block).map_or(Self::Nobody, Self::Block),
            (Some(_), ..) | (None, None, None) => Self::Nobody,
            (None, namespaces, pods) => Self::Pods { namespaces, pods },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn policy(name: &str, spec: Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
            .expect("a policy")
    }

    /// Traffic of a pod of `shop` that is `app=web`, over TCP to port 80.
    fn traffic<'a>(direction: Direction, own: &'a Labels, party: Party<'a>) -> Traffic<'a> {
        Traffic {
            direction,
            protocol: Protocol::Tcp,
            subject: Subject { namespace: "shop", labels: own, address: None },
            ends: vec![End { party, port: TargetPort::Number(80) }],
            before_translation: None,
        }
    }

    fn pod<'a>(namespace: &'a str, labels: &'a Labels) -> Party<'a> {
        Party::Pod { namespace, labels: Known::Exactly(labels), address: Some("10.0.0.7".parse().expect("an address")) }
    }

    fn address(address: &str) -> Party<'_> {
        Party::Address(address.parse().expect("an address"))
    }

    /// `+` is allowed by a policy, `o` allowed since nothing isolates, `-` blocked, `?` cannot be told.
    fn short(verdict: &Verdict) -> char {
        match verdict {
            Verdict::Allowed { by } => {
                if by.is_empty() {
                    'o'
                } else {
                    '+'
                }
            }
            Verdict::Blocked { .. } => '-',
            Verdict::Untold(_) => '?',
        }
    }

    fn judge(spec: &Value, direction: Direction, party: Party<'_>) -> char {
        let own = labels(&[("app", "web")]);
        judge_as(spec, &traffic(direction, &own, party))
    }

    fn judge_as(spec: &Value, traffic: &Traffic<'_>) -> char {
        let namespaces = [("edge".to_owned(), labels(&[("team", "red")]))].into();
        let policies = [policy("it", spec.clone())];
        short(&Policies::new(&policies, &namespaces).verdict(traffic))
    }

    /// By an ingress rule, or an egress rule, with this peer and these ports.
    fn rule(way: &str, rule: Value) -> Value {
        let direction = if way == "from" { "ingress" } else { "egress" };
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], direction: [rule]})
    }

    #[test]
    fn directions_are_isolated_by_types_and_their_defaults() {
        let anybody = || address("192.0.2.1");
        let cases = [
            (json!({"podSelector": {}}), "-o"),
            (json!({"podSelector": {}, "policyTypes": []}), "-o"),
            (json!({"podSelector": {}, "egress": []}), "-o"),
            (json!({"podSelector": {}, "egress": [{}]}), "-+"),
            (json!({"podSelector": {}, "ingress": [{}]}), "+o"),
            (json!({"podSelector": {}, "ingress": []}), "-o"),
            (json!({"podSelector": {}, "policyTypes": ["Egress"]}), "o-"),
            (json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}), "o-"),
            (json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}), "-o"),
            (json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}), "--"),
            (json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"]}), "oo"),
            (json!({}), "-o"),
        ];
        for (spec, expected) in cases {
            let found: String = [Direction::Ingress, Direction::Egress]
                .map(|direction| judge(&spec, direction, anybody()))
                .iter()
                .collect();
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn selectors_of_pods() {
        let anybody = || address("192.0.2.1");
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"podSelector": {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}});
        for (spec, expected) in [
            (json!({"podSelector": {}}), '-'),
            (json!({"podSelector": {"matchLabels": {"app": "web"}}}), '-'),
            (json!({"podSelector": {"matchLabels": {"app": "web", "tier": "x"}}}), 'o'),
            (expression("app", "In", &["db", "web"]), '-'),
            (expression("app", "In", &["db"]), 'o'),
            (expression("tier", "In", &["x"]), 'o'),
            (expression("app", "NotIn", &["db"]), '-'),
            (expression("app", "NotIn", &["web"]), 'o'),
            (expression("tier", "NotIn", &["x"]), '-'),
            (expression("app", "Exists", &[]), '-'),
            (expression("tier", "Exists", &[]), 'o'),
            (expression("tier", "DoesNotExist", &[]), '-'),
            (expression("app", "DoesNotExist", &[]), 'o'),
            (expression("app", "Near", &["web"]), 'o'),
        ] {
            assert_eq!(judge(&spec, Direction::Ingress, anybody()), expected, "{spec}");
        }
    }

    #[test]
    fn peers_by_namespaces_and_labels() {
        let (db, none) = (labels(&[("app", "db")]), Labels::new());
        let by_name = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        let red = || json!({"matchLabels": {"team": "red"}});
        let app = || json!({"matchLabels": {"app": "db"}});
        for (peer, party, expected) in [
            (json!({"podSelector": {}}), pod("shop", &none), '+'),
            (json!({"podSelector": {}}), pod("edge", &none), '-'),
            (json!({"podSelector": {}}), address("10.0.0.7"), '-'),
            (json!({"podSelector": app()}), pod("shop", &db), '+'),
            (json!({"podSelector": app()}), pod("shop", &none), '-'),
            (json!({"namespaceSelector": {}}), pod("edge", &none), '+'),
            (json!({"namespaceSelector": {}}), address("192.0.2.1"), '-'),
            (json!({"namespaceSelector": red()}), pod("edge", &none), '+'),
            (json!({"namespaceSelector": by_name("edge")}), pod("edge", &none), '+'),
            (json!({"namespaceSelector": by_name("edge")}), pod("shop", &none), '-'),
            (json!({"namespaceSelector": by_name("edge"), "podSelector": app()}), pod("edge", &db), '+'),
            (json!({"namespaceSelector": by_name("edge"), "podSelector": app()}), pod("edge", &none), '-'),
            (json!({"namespaceSelector": by_name("edge"), "podSelector": app()}), pod("shop", &db), '-'),
            // Nobody said which labels this one has.
            (json!({"namespaceSelector": red()}), pod("unknown", &none), '?'),
            (json!({"namespaceSelector": red(), "podSelector": app()}), pod("unknown", &none), '-'),
            // What the API server refuses lets nobody through.
            (json!({}), pod("shop", &db), '-'),
            (json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}), pod("shop", &db), '-'),
        ] {
            for (way, direction) in [("from", Direction::Ingress), ("to", Direction::Egress)] {
                let spec = rule(way, json!({way: [peer]}));
                assert_eq!(judge(&spec, direction, party.clone()), expected, "{spec}");
            }
        }
    }

    #[test]
    fn blocks_of_addresses() {
        let except = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
        let none = Labels::new();
        for (peer, party, expected) in [
            (except("192.0.2.0/24", &[]), address("192.0.2.255"), '+'),
            (except("192.0.2.0/24", &[]), address("192.0.3.0"), '-'),
            (except("192.0.2.0/24", &["192.0.2.128/25"]), address("192.0.2.127"), '+'),
            (except("192.0.2.0/24", &["192.0.2.128/25", "192.0.2.1/32"]), address("192.0.2.128"), '-'),
            (except("0.0.0.0/0", &[]), address("2001:db8::1"), '-'),
            (except("2001:db8::/64", &[]), address("2001:db8::ffff"), '+'),
            (except("2001:db8::/64", &["2001:db8::/127"]), address("2001:db8::1"), '-'),
            (except("::/0", &[]), address("192.0.2.1"), '-'),
            (except("10.0.0.0/24", &[]), pod("shop", &none), '+'),
            (except("nonsense", &[]), address("192.0.2.1"), '-'),
            (except("192.0.2.0/24", &["nonsense"]), address("192.0.2.1"), '-'),
            (except("192.0.2.0/33", &[]), address("192.0.2.1"), '-'),
        ] {
            let spec = rule("to", json!({"to": [peer]}));
            assert_eq!(judge(&spec, Direction::Egress, party), expected, "{spec}");
        }
    }

    #[test]
    fn ports() {
        let own = labels(&[("app", "web")]);
        let (number, name) = (TargetPort::Number, |name: &str| TargetPort::Name(name.into()));
        for (ports, protocol, port, expected) in [
            (json!([]), Protocol::Sctp, number(1), '+'),
            (json!([{"port": 80}]), Protocol::Tcp, number(80), '+'),
            (json!([{"port": 80}]), Protocol::Udp, number(80), '-'),
            (json!([{"port": 80}]), Protocol::Tcp, number(81), '-'),
            (json!([{"protocol": "UDP"}]), Protocol::Udp, number(9), '+'),
            (json!([{}]), Protocol::Udp, number(9), '-'),
            (json!([{"protocol": "SCTP", "port": 9}, {"port": 8}]), Protocol::Sctp, number(9), '+'),
            (json!([{"port": 80, "endPort": 90}]), Protocol::Tcp, number(90), '+'),
            (json!([{"port": 80, "endPort": 90}]), Protocol::Tcp, number(91), '-'),
            (json!([{"port": 80, "endPort": 90}]), Protocol::Tcp, number(79), '-'),
            (json!([{"port": "http"}]), Protocol::Tcp, name("http"), '+'),
            (json!([{"port": "http"}]), Protocol::Tcp, number(80), '?'),
            (json!([{"port": "http"}]), Protocol::Udp, number(80), '-'),
            (json!([{"port": 80}]), Protocol::Tcp, name("http"), '?'),
            (json!([{"port": "http"}, {"port": 80}]), Protocol::Tcp, number(80), '+'),
        ] {
            for (way, direction) in [("from", Direction::Ingress), ("to", Direction::Egress)] {
                let spec = rule(way, json!({"ports": ports}));
                let mut traffic = traffic(direction, &own, address("192.0.2.1"));
                traffic.protocol = protocol;
                traffic.ends[0].port = port.clone();
                assert_eq!(judge_as(&spec, &traffic), expected, "{spec} {protocol:?} {port:?}");
            }
        }
    }

    #[test]
    fn peers_and_ports_must_both_fit_and_one_rule_is_enough() {
        let peer = |cidr: &str| json!([{"ipBlock": {"cidr": cidr}}]);
        let both = rule("to", json!({"to": peer("192.0.2.1/32"), "ports": [{"port": 81}]}));
        assert_eq!(judge(&both, Direction::Egress, address("192.0.2.1")), '-');
        let two = json!({"podSelector": {}, "egress": [
            {"to": peer("192.0.2.2/32"), "ports": [{"port": 80}]},
            {"to": peer("192.0.2.1/32"), "ports": [{"port": 80}]},
        ]});
        assert_eq!(judge(&two, Direction::Egress, address("192.0.2.1")), '+');
        let empty = rule("to", json!({"to": [], "ports": []}));
        assert_eq!(judge(&empty, Direction::Egress, address("192.0.2.1")), '+');
    }

    #[test]
    fn policies_add_up_and_are_named() {
        let own = labels(&[("app", "web")]);
        let namespaces = Namespaces::new();
        let policies = [
            policy("deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
            policy("all", rule("to", json!({}))),
            policy("others", json!({"podSelector": {"matchLabels": {"app": "db"}}, "egress": [{}]})),
        ];
        let policies = Policies::new(&policies, &namespaces);
        let name = |name: &str| Name { namespace: "shop".into(), name: name.into() };
        let out = traffic(Direction::Egress, &own, address("192.0.2.1"));
        assert_eq!(policies.verdict(&out), Verdict::Allowed { by: [name("all")].into() });
        let way = Direction::Ingress;
        let blocked = Verdict::Blocked { direction: way, by: [name("deny"), name("all")].into() };
        assert_eq!(policies.verdict(&traffic(way, &own, address("192.0.2.1"))), blocked);
        assert_eq!(short(&policies.verdict(&traffic(way, &own, Party::OwnNode))), 'o');
        let mut elsewhere = out;
        elsewhere.subject.namespace = "edge";
        assert_eq!(short(&policies.verdict(&elsewhere)), 'o');
    }

    #[test]
    fn behind_services() {
        let (own, selector) = (labels(&[("app", "web")]), labels(&[("app", "db")]));
        let (first, second) = (labels(&[("app", "db"), ("n", "1")]), labels(&[("app", "db"), ("n", "2")]));
        let behind = |known| Party::Pod { namespace: "shop", labels: known, address: None };
        let to = |peer: Value| rule("to", json!({"to": [peer]}));
        let mut traffic = traffic(Direction::Egress, &own, behind(Known::AtLeast(&selector)));
        let by = |labels: Value| to(json!({"podSelector": {"matchLabels": labels}}));
        assert_eq!(judge_as(&by(json!({"app": "db"})), &traffic), '+');
        assert_eq!(judge_as(&by(json!({"app": "web"})), &traffic), '-');
        assert_eq!(judge_as(&by(json!({"app": "db", "n": "1"})), &traffic), '?');
        assert_eq!(judge_as(&by(json!({"app": "web", "n": "1"})), &traffic), '-');
        assert_eq!(judge_as(&to(json!({"ipBlock": {"cidr": "10.0.0.0/8"}})), &traffic), '?');
        assert_eq!(judge_as(&to(json!({"ipBlock": {"cidr": "0.0.0.0/0"}})), &traffic), '+');
        let end = |labels| End { party: behind(Known::Exactly(labels)), port: TargetPort::Number(80) };
        traffic.ends = vec![end(&first), end(&second)];
        assert_eq!(judge_as(&by(json!({"app": "db"})), &traffic), '+');
        assert_eq!(judge_as(&by(json!({"n": "1"})), &traffic), '?');
        assert_eq!(judge_as(&by(json!({"n": "3"})), &traffic), '-');
        // Some network plugins look at the address of the service, some at that behind it.
        let party = address("10.96.0.1");
        traffic.before_translation = Some(End { party, port: TargetPort::Number(80) });
        assert_eq!(judge_as(&to(json!({"ipBlock": {"cidr": "10.96.0.1/32"}})), &traffic), '?');
        assert_eq!(judge_as(&by(json!({"n": "3"})), &traffic), '-');
    }

    #[test]
    fn both_sides() {
        let (own, db) = (labels(&[("app", "web")]), labels(&[("app", "db")]));
        let namespaces = Namespaces::new();
        let deny = json!({"podSelector": {"matchLabels": {"app": "db"}}});
        let from = |app: &str| {
            let peers = json!([{"podSelector": {"matchLabels": {"app": app}}}]);
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": peers, "ports": [{"port": 80}]}]})
        };
        let out = traffic(Direction::Egress, &own, pod("shop", &db));
        for (spec, expected) in [(deny, '-'), (from("web"), '+'), (from("other"), '-')] {
            let policies = [policy("it", spec.clone())];
            let policies = Policies::new(&policies, &namespaces);
            assert_eq!(short(&policies.verdict(&out)), 'o', "{spec}");
            assert_eq!(short(&policies.verdict_of_both(&out)), expected, "{spec}");
        }
    }
}
