//! Which NetworkPolicies allow what pods were seen to do, and nothing else.

mod cilium;
mod evaluate;
mod flow;
#[cfg(test)]
mod golden;
mod in_force;
mod kubernetes;
mod layout;
mod manifest;
mod picture;
#[cfg(test)]
mod properties;
mod proposal;
mod replay;
mod selector;
mod svg;
mod workload;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use gadgets::format::escaped;
use k8s_openapi::api::networking::v1::NetworkPolicy;

pub(crate) use self::evaluate::Namespaces;
use self::evaluate::{Policies, Verdict};
use self::flow::{Name, Trace};
pub(crate) use self::in_force::{in_force, namespaces};
pub(crate) use self::kubernetes::read;
use self::picture::Picture;
use self::proposal::{Policy, Proposer, Widths};
use self::replay::Outcome;
use self::workload::Workloads;
use super::{Advice, Advisor, event};

/// What is wanted of the advisor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) form: Form,
    /// How long the prefixes of ipBlocks are at most, of IPv4: 32 if nothing is said.
    pub(crate) cidr4: Option<u8>,
    /// The same of IPv6: 128.
    pub(crate) cidr6: Option<u8>,
    /// Policies that are there: only what they leave open is proposed.
    pub(crate) existing: Option<Vec<NetworkPolicy>>,
    /// Policies to judge, instead of a proposal.
    pub(crate) check: Option<Vec<NetworkPolicy>>,
    /// Labels of namespaces, as far as they are known.
    pub(crate) namespaces: Namespaces,
}

/// How policies, or what they allow, are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Manifests of NetworkPolicies
    #[default]
    Kubernetes,
    /// Manifests of CiliumNetworkPolicies
    Cilium,
    /// A NetworkPolicyList
    Json,
    /// A picture of who talks to whom
    Svg,
    /// The same, for Graphviz
    Dot,
    /// The same, for Markdown
    Mermaid,
}

/// Advises on NetworkPolicies, from events of the gadget `flows`.
#[derive(Debug)]
pub(crate) struct NetworkPolicyAdvisor {
    options: Options,
    trace: Trace,
}

impl NetworkPolicyAdvisor {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, trace: Trace::default() }
    }

    fn check(&self, trace: &Trace, policies: &[NetworkPolicy]) -> Advice {
        let policies = Policies::new(policies, &self.options.namespaces);
        let outcomes = replay::outcomes_of_both(trace, &policies);
        let is_refused = outcomes.iter().any(|outcome| matches!(outcome.verdict, Verdict::Blocked { .. }));
        let mut text = String::new();
        for line in outcomes.iter().filter_map(Outcome::complaint) {
            text.push_str(&line);
            text.push('\n');
        }
        let allowed = outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Allowed { .. })).count();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{allowed} of {} flows that were seen are allowed", outcomes.len());
        Advice { text, remarks: remarks_on(trace).into_iter().collect(), is_refused }
    }

    fn propose(&self, trace: &Trace) -> anyhow::Result<Advice> {
        let Options { form, cidr4, cidr6, existing, namespaces, .. } = &self.options;
        let workloads = Workloads::of(trace);
        let existing = existing.as_deref();
        let known = existing.map(|existing| Policies::new(existing, namespaces));
        let demands = replay::demands(trace, &workloads, known.as_ref());
        let mut remarks = remarks_on(trace);
        remarks.extend(workloads.remarks());
        let mut proposer =
            Proposer { workloads: &workloads, widths: Widths { ipv4: *cidr4, ipv6: *cidr6 }, remarks: BTreeSet::new() };
        let proposed = proposer.policies(&demands, existing.unwrap_or_default().iter().map(name).collect());
        remarks.append(&mut proposer.remarks);
        if let Some(known) = &known {
            let unused = replay::unused(known, &replay::outcomes(trace, known));
            remarks.extend(unused.iter().map(|name| format!("no flow that was seen needs NetworkPolicy {name}")));
        }
        remarks.extend(self.mistakes(trace, &proposed, &workloads));
        let text = match form {
            Form::Kubernetes => kubernetes::yaml(&proposed)?,
            Form::Json => kubernetes::json(&proposed)?,
            Form::Cilium => {
                remarks.append(&mut cilium::remarks(&proposed));
                cilium::yaml(&proposed)?
            }
            Form::Svg => svg::draw(&Picture::of(trace, &workloads)),
            Form::Dot => Picture::of(trace, &workloads).dot(),
            Form::Mermaid => Picture::of(trace, &workloads).mermaid(),
        };
        Ok(Advice { text, remarks: remarks.into_iter().collect(), is_refused: false })
    }

    /// Flows that the proposal, with what is there, would still not let through.
    fn mistakes(&self, trace: &Trace, proposed: &[Policy], workloads: &Workloads) -> Vec<String> {
        let objects: Vec<NetworkPolicy> = proposed.iter().map(kubernetes::object).collect();
        let existing = self.options.existing.iter().flatten();
        let policies = Policies::new(objects.iter().chain(existing), &self.options.namespaces);
        let outcomes = replay::outcomes(trace, &policies);
        let has_policy = |outcome: &&Outcome<'_>| workloads.of_pod(outcome.name).is_some_and(|own| own.is_selectable());
        let complaints = outcomes.iter().filter(has_policy).filter_map(Outcome::complaint);
        complaints.map(|complaint| format!("with these policies, {complaint}")).collect()
    }
}

impl Advisor for NetworkPolicyAdvisor {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.trace.take(event(line)?);
        Ok(())
    }

    fn learn(&mut self, peer: &[u8]) -> anyhow::Result<()> {
        self.trace.learn(event(peer)?);
        Ok(())
    }

    fn advise(&self) -> anyhow::Result<Advice> {
        let trace = self.trace.settled();
        match &self.options.check {
            Some(policies) => Ok(self.check(&trace, policies)),
            None => self.propose(&trace),
        }
    }
}

/// What no policy can help.
fn remarks_on(trace: &Trace) -> BTreeSet<String> {
    let mut remarks = BTreeSet::new();
    for (name, pod) in &trace.pods {
        for protocol in &pod.odd_protocols {
            remarks.insert(format!(
                "pod/{name} used {}, of which no NetworkPolicy speaks: what becomes of it depends on the network plugin",
                escaped(protocol)
            ));
        }
        if pod.left_out > 0 {
            remarks.insert(format!(
                "pod/{name} had so many flows that {} events were left out: what is said of it is not all",
                pod.left_out
            ));
        }
    }
    remarks
}

fn name(policy: &NetworkPolicy) -> Name {
    let namespace = policy.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    Name { namespace, name: policy.metadata.name.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::golden::{advisor, lines};
    use super::*;

    fn advice(trace: &str, options: Options) -> Advice {
        advisor(&lines(trace), options).advise().expect(trace)
    }

    fn policies(yaml: &str) -> Option<Vec<NetworkPolicy>> {
        Some(read(yaml).expect("policies"))
    }

    const DENY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";
    const DNS: &str = "\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
";

    #[test]
    fn a_check_lists_what_would_be_blocked_and_what_cannot_be_told() {
        let check = policies(&format!("{DENY}{DNS}"));
        let found = advice("dns", Options { check, ..Options::default() });
        // Which number `dns-tcp` has, nobody says.
        let text = "\
cannot be told: pod/shop/web-6f7c-x1 (Deployment/web) tcp/53 to svc/kube-system/kube-dns: the number of port \"dns-tcp\" is not known
1 of 2 flows that were seen are allowed
";
        assert_eq!((found.text.as_str(), found.is_refused), (text, false));
        let found = advice("dns", Options { check: policies(DENY), ..Options::default() });
        let text = "\
blocked: pod/shop/web-6f7c-x1 (Deployment/web) tcp/53 to svc/kube-system/kube-dns: no rule for egress in shop/deny
blocked: pod/shop/web-6f7c-x1 (Deployment/web) udp/53 to svc/kube-system/kube-dns: no rule for egress in shop/deny
0 of 2 flows that were seen are allowed
";
        assert_eq!((found.text.as_str(), found.is_refused), (text, true));
        let found = advice("dns", Options { check: Some(Vec::new()), ..Options::default() });
        assert_eq!((found.text.as_str(), found.is_refused), ("2 of 2 flows that were seen are allowed\n", false));
    }

    #[test]
    fn a_check_looks_at_peers_of_which_nothing_else_tells() {
        let deny = DENY.replace("shop", "data");
        let found = advice("other_namespace", Options { check: policies(&deny), ..Options::default() });
        assert!(found.is_refused);
        assert!(found.text.starts_with(
            "blocked: pod/shop/web-6f7c-x1 (Deployment/web) tcp/5432 to pod/data/db-0: no rule for ingress in data/deny\n"
        ), "{}", found.text);
    }

    #[test]
    fn what_is_proposed_passes_its_own_check() {
        for trace in ["deployment", "job", "api_server", "world", "shop", "widened", "sctp", "named_port"] {
            let check = policies(&advice(trace, Options::default()).text);
            let found = advice(trace, Options { check: check.clone(), ..Options::default() });
            assert!(!found.is_refused && !found.text.contains("cannot be told"), "{trace}: {}", found.text);
            // Nothing is missing, then, and all of it is used.
            let found = advice(trace, Options { existing: check, ..Options::default() });
            assert_eq!(found.text, "", "{trace}");
            assert!(!found.remarks.iter().any(|remark| remark.starts_with("no flow")), "{trace}: {:?}", found.remarks);
        }
    }

    #[test]
    fn only_what_is_missing_is_proposed() {
        let unused = DNS.replace("name: dns", "name: web").replace("53", "54");
        let found =
            advice("dns", Options { existing: policies(&format!("{DENY}{DNS}{unused}")), ..Options::default() });
        // Only the direction of which something is missing, under a name that is free.
        let text = "\
# shop: Deployment/web; seen: web-6f7c-x1
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web-deployment
  namespace: shop
spec:
  egress:
  - ports:
    - port: dns-tcp
      protocol: TCP
    to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
      podSelector:
        matchLabels:
          k8s-app: kube-dns
  podSelector:
    matchLabels:
      app: web
  policyTypes:
  - Egress
";
        assert_eq!(found.text, text);
        assert_eq!(found.remarks, ["no flow that was seen needs NetworkPolicy shop/web"]);
        // What is not isolated gets all its rules.
        let existing = policies(&DENY.replace("Ingress, Egress", "Ingress"));
        let found = advice("dns", Options { existing, ..Options::default() });
        assert!(found.text.contains("dns-tcp") && found.text.contains("UDP"), "{}", found.text);
        assert!(found.text.ends_with("policyTypes:\n  - Egress\n"), "{}", found.text);
    }

    #[test]
    fn labels_of_namespaces_count() {
        let yaml = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: red, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]
";
        let verdict = |namespaces: Namespaces| {
            let text =
                advice("other_namespace", Options { check: policies(yaml), namespaces, ..Options::default() }).text;
            text.split(':').next().unwrap_or_default().to_owned()
        };
        let of = |team: &str| [("edge".to_owned(), [("team".to_owned(), team.to_owned())].into())].into();
        assert_eq!(verdict(Namespaces::new()), "cannot be told");
        assert_eq!(verdict(of("blue")), "blocked");
        assert_eq!(verdict(of("red")), "3 of 3 flows that were seen are allowed\n");
    }

    #[test]
    fn manifests_that_cannot_be_checked_are_refused() {
        for yaml in ["{", "kind: CiliumNetworkPolicy", "kind: NetworkPolicy\nspec: 7", "a: b"] {
            assert!(read(yaml).is_err(), "{yaml}");
        }
        assert_eq!(read("---\n---\n").expect("nothing"), []);
        let list = r#"{"kind": "List", "items": [{"kind": "NetworkPolicy", "metadata": {"name": "a"}}]}"#;
        assert_eq!(read(list).expect("a list").len(), 1);
    }

    #[test]
    fn who_scans_addresses_is_cut_off_and_told_of() {
        let line = |number: u32| {
            format!(
                r#"{{"namespace":"shop","pod":"scan","labels":{{"app":"scan"}},"direction":"egress","protocol":"tcp",
                "local":{{"address":"10.0.0.1"}},"peer":{{"address":"{}","port":1}}}}"#,
                std::net::Ipv4Addr::from(number + 0x0b00_0000)
            )
        };
        let lines: Vec<String> = (0..10_003).map(line).collect();
        let found = advisor(&lines, Options { cidr4: Some(0), ..Options::default() }).advise().expect("advice");
        let remark = "pod/shop/scan had so many flows that 3 events were left out: what is said of it is not all";
        assert_eq!(found.remarks, [remark]);
        assert!(found.text.contains("0.0.0.0/0"));
    }
}
