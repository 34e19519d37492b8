//! What holds for any flows.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::flow::{Flow, Peer};
use super::golden::advisor;
use super::layout::{Layout, Rectangle};
use super::proposal::{Demand, Port};
use super::*;

/// A pod of a small cluster. Its labels tell it from all others, and no workload's are among another's.
fn pod(number: u8) -> Value {
    let app = format!("app-{}", number / 4);
    let name = format!("{app}-{number}");
    json!({
        "kind": "pod", "namespace": namespace(number), "name": name, "owner": format!("Deployment/{app}"),
        "labels": {"app": app, "pod-template-hash": number.to_string()}, "address": format!("10.1.0.{number}"),
    })
}

fn namespace(number: u8) -> &'static str {
    if number.is_multiple_of(2) { "shop" } else { "data" }
}

fn peer() -> impl Strategy<Value = Value> {
    let service = |(number, named): (u8, bool)| {
        let target = if named { json!("main") } else { json!(8000 + u16::from(number)) };
        let app = format!("app-{}", number / 4);
        json!({
            "kind": "svc", "namespace": namespace(number), "name": format!("svc-{number}"),
            "address": format!("10.96.0.{number}"), "selector": {"app": app},
            "ports": [{"protocol": "TCP", "port": 80, "target": target}],
        })
    };
    let bare = |number: u8| {
        json!({
            "kind": "svc", "namespace": "default", "name": format!("bare-{number}"),
            "address": format!("10.96.1.{number}"), "endpoints": [format!("172.16.0.{number}")],
            "ports": [{"protocol": "TCP", "port": 80, "target": 6443}],
        })
    };
    prop_oneof![
        (0_u8..16).prop_map(pod),
        (0_u8..16, any::<bool>()).prop_map(service),
        (0_u8..4).prop_map(bare),
        (0_u8..4)
            .prop_map(|n| json!({"kind": "node", "name": format!("node-{n}"), "address": format!("172.18.0.{n}")})),
        (0_u8..4).prop_map(|n| json!({"address": format!("192.0.2.{n}")})),
        (0_u8..4).prop_map(|n| json!({"address": format!("2001:db8::{n}")})),
    ]
}

fn event() -> impl Strategy<Value = Value> {
    let ports = || select(vec![0_u16, 53, 80, 443, 8080, 50_000]);
    let protocols = select(vec!["tcp", "udp", "sctp", "icmp"]);
    (0_u8..16, peer(), any::<bool>(), protocols, ports()).prop_map(|(own, mut peer, is_egress, protocol, port)| {
        let own = pod(own);
        let mut local = own.clone();
        local["port"] = if is_egress { json!(40_000) } else { json!(port) };
        peer["port"] = if is_egress { json!(port) } else { json!(40_001) };
        json!({
            "type": "event", "node": "node-0", "namespace": own["namespace"], "pod": own["name"], "owner": own["owner"],
            "labels": own["labels"], "direction": if is_egress { "egress" } else { "ingress" }, "protocol": protocol,
            "local": local, "peer": peer,
        })
    })
}

/// In what an event can differ from one that was seen.
const CHANGES: &[&str] = &["peer", "protocol", "port", "direction"];

/// An event that is another in one thing.
fn with(event: &Value, other: &Value, change: &str) -> Value {
    let mut event = event.clone();
    let ports = [event["local"]["port"].clone(), event["peer"]["port"].clone()];
    match change {
        "peer" => event["peer"] = other["peer"].clone(),
        "port" => return with_ports(event, [other["local"]["port"].clone(), other["peer"]["port"].clone()]),
        change => event[change] = other[change].clone(),
    }
    with_ports(event, ports)
}

fn with_ports(mut event: Value, [local, peer]: [Value; 2]) -> Value {
    event["local"]["port"] = local;
    event["peer"]["port"] = peer;
    event
}

fn lines(events: &[Value]) -> Vec<String> {
    events.iter().map(Value::to_string).collect()
}

fn events(number: usize) -> impl Strategy<Value = Vec<Value>> {
    proptest::collection::vec(event(), 0..number)
}

fn proposed(advisor: &NetworkPolicyAdvisor) -> Vec<Policy> {
    let workloads = Workloads::of(&advisor.trace);
    let demands: Vec<Demand<'_>> = replay::demands(&advisor.trace, &workloads, None);
    let Options { cidr4, cidr6, .. } = advisor.options;
    let widths = Widths { ipv4: cidr4, ipv6: cidr6 };
    Proposer { workloads: &workloads, widths, remarks: BTreeSet::new() }.policies(&demands, BTreeSet::new())
}

/// What two flows have in common if one policy cannot allow one without the other: who has the address, and the port.
fn scope(advisor: &NetworkPolicyAdvisor, name: &Name, flow: &Flow) -> String {
    let workloads = Workloads::of(&advisor.trace);
    let labels = |name: &Name| workloads.of_pod(name).map(|workload| (&workload.namespace, &workload.labels));
    let peer = match &flow.peer {
        Peer::Pod { pod, .. } => format!("{:?}", labels(pod)),
        Peer::Service(service) if !service.selector.is_empty() => {
            format!("{:?}", Some((&service.namespace, &service.selector)))
        }
        Peer::Service(service) => format!("{:?}", service.endpoints.first()),
        Peer::Node { address, .. } | Peer::World(address) => format!("{:?}", Some(address)),
        Peer::OwnNode { .. } => "own node".into(),
    };
    format!("{:?} {:?} {:?} {:?} {peer}", labels(name), flow.direction, flow.protocol, flow.target())
}

fn flows(advisor: &NetworkPolicyAdvisor) -> Vec<(Name, Flow)> {
    let flows = |(name, pod): (&Name, &flow::Pod)| {
        pod.flows.iter().map(|flow| (name.clone(), flow.clone())).collect::<Vec<_>>()
    };
    advisor.trace.watched().flat_map(flows).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_was_seen_is_allowed(events in events(40), cidr4 in proptest::option::of(0_u8..=40)) {
        let advisor = advisor(&lines(&events), Options { cidr4, cidr6: cidr4, ..Options::default() });
        let objects: Vec<NetworkPolicy> = proposed(&advisor).iter().map(kubernetes::object).collect();
        let namespaces = Namespaces::new();
        for outcome in replay::outcomes(&advisor.trace, &Policies::new(&objects, &namespaces)) {
            let is_allowed = matches!(outcome.verdict, Verdict::Allowed { .. });
            prop_assert!(is_allowed || outcome.flow.port == 0, "{:?}", outcome.complaint());
        }
    }

    #[test]
    fn what_was_not_seen_is_blocked(
        seen in proptest::collection::vec(event(), 1..30),
        others in events(30),
        changed in proptest::collection::vec((any::<Index>(), event(), select(CHANGES)), 0..60),
    ) {
        let own = advisor(&lines(&seen), Options::default());
        let objects: Vec<NetworkPolicy> = proposed(&own).iter().map(kubernetes::object).collect();
        let namespaces = Namespaces::new();
        let policies = Policies::new(&objects, &namespaces);
        let known: BTreeSet<String> = flows(&own).iter().map(|(name, flow)| scope(&own, name, flow)).collect();
        let changed = changed.iter().map(|(index, other, what)| with(index.get(&seen), other, what)).collect();
        // Of all, so that all workloads are known; only those that were seen have a policy.
        let all = advisor(&lines(&[seen.clone(), others, changed].concat()), Options::default());
        for outcome in replay::outcomes(&all.trace, &policies) {
            let is_new = !known.contains(&scope(&all, outcome.name, outcome.flow));
            let has_policy = own.trace.pods.get(outcome.name).is_some_and(|pod| pod.is_watched);
            if is_new && has_policy && !matches!(outcome.flow.peer, Peer::OwnNode { .. }) {
                // Of a named port it cannot be told.
                let is_allowed = matches!(outcome.verdict, Verdict::Allowed { .. });
                prop_assert!(!is_allowed, "{} {}", outcome.name, outcome.flow);
            }
        }
    }

    #[test]
    fn the_order_of_events_makes_no_difference(
        (events, shuffled) in events(30).prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
        form in select(vec![Form::Kubernetes, Form::Cilium, Form::Json, Form::Svg, Form::Dot, Form::Mermaid]),
    ) {
        let options = || Options { form, ..Options::default() };
        let [one, other] = [events, shuffled].map(|events| advisor(&lines(&events), options()).advise().expect("advice"));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn manifests_say_what_was_meant(events in events(30)) {
        let advisor = advisor(&lines(&events), Options::default());
        let objects: Vec<NetworkPolicy> = proposed(&advisor).iter().map(kubernetes::object).collect();
        prop_assert_eq!(&read(&advisor.advise().expect("advice").text).expect("manifests"), &objects);
        let json = self::advisor(&lines(&events), Options { form: Form::Json, ..Options::default() });
        prop_assert_eq!(read(&json.advise().expect("advice").text).expect("a list"), objects);
    }

    #[test]
    fn both_forms_carry_the_same_rules(events in events(30)) {
        let advisor = advisor(&lines(&events), Options::default());
        for policy in proposed(&advisor) {
            let object = serde_json::to_value(kubernetes::object(&policy)).expect("JSON");
            let cilium: Value = serde_saphyr::from_str(&cilium::yaml(&[policy]).expect("YAML")).expect("YAML");
            for (name, way) in [("ingress", "from"), ("egress", "to")] {
                prop_assert!(cilium["spec"][name].as_array().is_some_and(|rules| !rules.is_empty()));
                prop_assert_eq!(of_kubernetes(&object, name, way), of_cilium(&cilium, name, way));
            }
        }
    }

    #[test]
    fn nothing_in_a_picture_lies_upon_anything(events in events(60)) {
        let advisor = advisor(&lines(&events), Options::default());
        let picture = Picture::of(&advisor.trace, &Workloads::of(&advisor.trace));
        let layout = Layout::of(&picture);
        let words = layout.arrows.iter().map(|route| {
            let (x, width) = (route.head[0].x + 4.0, route.ports.len() as f32 * layout::SMALL_CHARACTER);
            Rectangle { x, y: route.head[0].y - 14.0, width, height: 14.0 }
        });
        let all: Vec<Rectangle> = layout.boxes.iter().copied().chain(words).collect();
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                let is_apart = |a: f32, a_length: f32, b: f32, b_length: f32| a + a_length <= b || b + b_length <= a;
                let apart = is_apart(one.x, one.width, other.x, other.width)
                    || is_apart(one.y, one.height, other.y, other.height);
                prop_assert!(apart, "{one:?} {other:?}");
            }
        }
        for (it, place) in picture.boxes.iter().zip(&layout.boxes) {
            let frame = layout.frames[it.frame];
            prop_assert!(frame.x <= place.x && place.x + place.width <= frame.x + frame.width);
            prop_assert!(frame.y <= place.y && place.y + place.height <= frame.y + frame.height);
        }
        // What runs level beside a column runs through no box of it.
        for [from, to] in layout.arrows.iter().flat_map(|route| &route.lines) {
            let is_level = (from.y - to.y).abs() < 0.1;
            let passes = |place: &&Rectangle| {
                let (left, right) = (from.x.min(to.x), from.x.max(to.x));
                left < place.x && place.x + place.width <= right && place.y < from.y && from.y < place.y + place.height
            };
            prop_assert!(!is_level || !layout.boxes.iter().any(|place| passes(&place)), "{from:?} {to:?}");
        }
    }

    #[test]
    fn hostile_input_is_read_or_refused(line in "\\PC{0,60}", events in events(4), cut in 0_usize..400, with in "\\PC{0,3}") {
        let mut advisor = NetworkPolicyAdvisor::new(Options::default());
        let _ = advisor.take(line.as_bytes());
        let _ = read(&line);
        for event in lines(&events) {
            let mut text: Vec<char> = event.chars().collect();
            let at = cut.min(text.len());
            text.splice(at..(at + 3).min(text.len()), with.chars());
            let _ = advisor.take(text.into_iter().collect::<String>().as_bytes());
        }
        for form in [Form::Kubernetes, Form::Cilium, Form::Json, Form::Svg, Form::Dot, Form::Mermaid] {
            advisor.options.form = form;
            prop_assert!(advisor.advise().is_ok());
        }
    }

    #[test]
    fn names_stay_where_they_are(name in "\\PC{0,12}|[\"\\\\<>&;#\n\r\u{1b}\\[\\]{}|-]{1,8}") {
        let mut event = json!({
            "namespace": name, "pod": name, "owner": format!("{name}/{name}"), "labels": {name.as_str(): name},
            "direction": "egress", "protocol": "tcp", "local": {"address": "10.0.0.1"},
            "peer": {"address": "10.0.0.2", "port": 80, "kind": "node", "name": name},
        });
        event["node"] = json!("other");
        for form in [Form::Kubernetes, Form::Cilium] {
            let text = advisor(&lines(&[event.clone()]), Options { form, ..Options::default() }).advise().expect("advice").text;
            let comments = text.lines().filter(|line| line.starts_with('#')).count();
            prop_assert_eq!(comments, 2);
            let document: Value = serde_saphyr::from_str(&text).expect("one document of YAML");
            prop_assert_eq!(&document["metadata"]["namespace"], &json!(name));
        }
        for (form, lines_of_it) in [(Form::Dot, 15), (Form::Mermaid, 8)] {
            let text = advisor(&lines(&[event.clone()]), Options { form, ..Options::default() }).advise().expect("advice").text;
            prop_assert_eq!(text.lines().count(), lines_of_it);
        }
    }
}

type Rules = BTreeSet<(String, String)>;

/// Who may use which port, a pair each, in words in which both forms can be compared.
fn of_kubernetes(object: &Value, name: &str, way: &str) -> Rules {
    let words = |peer: &Value| match peer["ipBlock"]["cidr"].as_str() {
        Some(cidr) => of_block(cidr),
        None => {
            let namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].clone();
            vec![format!("{namespace} {}", peer["podSelector"]["matchLabels"])]
        }
    };
    let mut found = Rules::new();
    for rule in object["spec"][name].as_array().into_iter().flatten() {
        for peer in rule[way].as_array().into_iter().flatten().flat_map(words) {
            for port in rule["ports"].as_array().into_iter().flatten() {
                let number = port["port"].as_str().map_or_else(|| port["port"].to_string(), str::to_owned);
                found.insert((peer.clone(), format!("{} {number}", port["protocol"])));
            }
        }
    }
    found
}

/// Nodes are one entity for Cilium. None of the services here is the API server.
fn of_block(cidr: &str) -> Vec<String> {
    vec![if cidr.starts_with("172.18.") { "remote-node".to_owned() } else { cidr.to_owned() }]
}

fn of_cilium(object: &Value, name: &str, way: &str) -> Rules {
    let namespace = "k8s:io.kubernetes.pod.namespace";
    let mut found = Rules::new();
    for rule in object["spec"][name].as_array().into_iter().flatten() {
        let all = |kind: &str| rule[format!("{way}{kind}")].as_array().cloned().unwrap_or_default();
        let endpoints = all("Endpoints").into_iter().map(|endpoint| {
            let mut labels = endpoint["matchLabels"].as_object().cloned().unwrap_or_default();
            let namespace = labels.remove(namespace).unwrap_or_default();
            format!("{namespace} {}", Value::Object(labels))
        });
        let others = all("CIDR").into_iter().chain(all("Entities"));
        let others = others.filter_map(|other| other.as_str().map(str::to_owned)).filter(|other| other != "host");
        for peer in endpoints.chain(others) {
            let ports = rule["toPorts"].as_array().into_iter().flatten().flat_map(|ports| ports["ports"].as_array());
            for port in ports.flatten() {
                let number = port["port"].as_str().unwrap_or_default();
                found.insert((peer.clone(), format!("{} {number}", port["protocol"])));
            }
        }
    }
    found
}

#[test]
fn a_rule_allows_no_port_of_another_peer() {
    let port = |port| Port { protocol: flow::Protocol::Tcp, port: crate::peers::TargetPort::Number(port) };
    let both: BTreeSet<Port> = [port(1), port(2)].into();
    let one: BTreeSet<Port> = [port(1)].into();
    let allowed = [("a", both.clone()), ("b", one.clone()), ("c", both.clone()), ("b", one.clone())];
    let rules = proposal::rules(allowed);
    assert_eq!(rules, [(both, ["a", "c"].into()), (one, ["b"].into())].into());
}
