//! What is written for traces that were made by hand: `golden/NAME.jsonl` becomes `golden/NAME.yaml` and the others.
//!
//! `GOLDEN=write cargo test -p kubectl-gadget golden` writes them anew, to be read before they are committed.

use std::fs;
use std::path::PathBuf;

use super::*;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/advise/network_policy/golden").join(name)
}

pub(super) fn lines(name: &str) -> Vec<String> {
    let path = file(&format!("{name}.jsonl"));
    fs::read_to_string(path).expect(name).lines().map(str::to_owned).collect()
}

pub(super) fn advisor(lines: &[String], options: Options) -> NetworkPolicyAdvisor {
    let mut advisor = NetworkPolicyAdvisor::new(options);
    for line in lines {
        advisor.take(line.as_bytes()).expect(line);
    }
    advisor
}

/// Compares with a file, remarks below.
fn compare(output: &str, advice: &Advice) {
    let remarks: String = advice.remarks.iter().map(|remark| format!("# remark: {remark}\n")).collect();
    let text = format!("{}{remarks}", advice.text);
    if std::env::var_os("GOLDEN").is_some() {
        fs::write(file(output), &text).expect(output);
    }
    assert_eq!(fs::read_to_string(file(output)).expect(output), text, "{output}");
}

fn golden(trace: &str, output: &str, options: Options) {
    compare(output, &advisor(&lines(trace), options).advise().expect(output));
}

fn kubernetes_and_cilium(trace: &str, options: &Options) {
    golden(trace, &format!("{trace}.yaml"), Options { form: Form::Kubernetes, ..options.clone() });
    golden(trace, &format!("{trace}.cilium.yaml"), Options { form: Form::Cilium, ..options.clone() });
}

macro_rules! golden {
    ($($trace:ident)*) => {$(
        #[test]
        fn $trace() {
            kubernetes_and_cilium(stringify!($trace), &Options::default());
        }
    )*};
}

golden! {
    api_server daemon_set deployment dns host_network_peer host_network_pod hostile_names job named_port no_labels
    other_namespace same_name sctp shop stateful_set udp_high_port world
}

#[test]
fn pictures() {
    for trace in ["shop", "hostile_names", "stateful_set"] {
        for (form, ending) in [(Form::Svg, "svg"), (Form::Dot, "dot"), (Form::Mermaid, "mermaid")] {
            let advice = advisor(&lines(trace), Options { form, ..Options::default() }).advise().expect(trace);
            compare(&format!("{trace}.{ending}"), &Advice { text: advice.text, ..Advice::default() });
        }
    }
}

#[test]
fn widened() {
    kubernetes_and_cilium("widened", &Options { cidr4: Some(24), cidr6: Some(32), ..Options::default() });
}

#[test]
fn every_trace_is_looked_at_and_every_manifest_can_be_read() {
    for entry in fs::read_dir(file("")).expect("golden") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        if let Some(trace) = name.strip_suffix(".jsonl") {
            assert!(file(&format!("{trace}.yaml")).exists(), "{trace}");
        } else if name.ends_with(".yaml") && !name.ends_with(".cilium.yaml") {
            read(&fs::read_to_string(path).expect("a file")).expect(&name);
        }
    }
}
