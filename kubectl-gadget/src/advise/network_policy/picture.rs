//! Who talks to whom, as a picture: Mermaid and Graphviz draw it themselves, for SVG it is laid out here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use gadgets::format::escaped;

use super::flow::{Direction, Flow, Name, Peer, Trace};
use super::workload::{Workload, Workloads};
use crate::peers::TargetPort;

/// How many ports stand at an arrow.
const PORTS: usize = 3;

/// Boxes in frames, and arrows between them.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) boxes: Vec<Box>,
    pub(super) frames: Vec<Frame>,
    pub(super) arrows: Vec<Arrow>,
}

/// Somebody who talks.
#[derive(Debug)]
pub(super) struct Box {
    /// Which of the frames it is in.
    pub(super) frame: usize,
    pub(super) title: String,
    pub(super) detail: String,
}

/// From who began to who listens, both as indices of boxes.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) ports: String,
}

/// What boxes have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Frame {
    World,
    Namespace(String),
    Nodes,
}

impl Frame {
    pub(super) fn title(&self) -> String {
        match self {
            Self::World => "outside".to_owned(),
            Self::Namespace(name) => escaped(name),
            Self::Nodes => "nodes".to_owned(),
        }
    }
}

/// Who is a box.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Actor {
    /// Who comes from outside, and who is called there, are others.
    World(Direction),
    Workload {
        namespace: String,
        kind: String,
        name: String,
    },
    Service(Name),
    Node(String),
}

impl Actor {
    fn of(workload: &Workload) -> Self {
        let (kind, name) = workload.kind_and_name();
        Self::Workload { namespace: workload.namespace.clone(), kind: kind.to_owned(), name: name.to_owned() }
    }

    fn frame(&self) -> Frame {
        match self {
            Self::World(_) => Frame::World,
            Self::Workload { namespace, .. } | Self::Service(Name { namespace, .. }) => {
                Frame::Namespace(namespace.clone())
            }
            Self::Node(_) => Frame::Nodes,
        }
    }

    fn title_and_detail(&self) -> (&str, &str) {
        match self {
            Self::World(Direction::Ingress) => ("world", "clients"),
            Self::World(Direction::Egress) => ("world", "servers"),
            Self::Workload { kind, name, .. } => (name, kind),
            Self::Service(name) => (&name.name, "Service"),
            Self::Node(name) => (name, "Node"),
        }
    }
}

impl Picture {
    pub(super) fn of(trace: &Trace, workloads: &Workloads) -> Self {
        let watched = workloads.iter().filter(|workload| workload.is_watched);
        let mut actors: BTreeSet<Actor> = watched.map(Actor::of).collect();
        let mut arrows: BTreeMap<(Actor, Actor), BTreeSet<String>> = BTreeMap::new();
        let mut world: BTreeMap<Direction, BTreeSet<IpAddr>> = BTreeMap::new();
        for (name, pod) in trace.watched() {
            let Some(own) = workloads.of_pod(name).map(Actor::of) else { continue };
            for flow in &pod.flows {
                if let Peer::World(address) = flow.peer {
                    world.entry(flow.direction).or_default().insert(address);
                }
                let peer = peer(flow, workloads);
                actors.insert(peer.clone());
                let ends = if flow.direction == Direction::Egress { (own.clone(), peer) } else { (peer, own.clone()) };
                arrows.entry(ends).or_default().insert(port(flow));
            }
        }
        let frames: BTreeSet<Frame> = actors.iter().map(Actor::frame).collect();
        let index_of: BTreeMap<&Actor, usize> = actors.iter().zip(0..).collect();
        let boxes = actors.iter().map(|actor| {
            let (title, detail) = actor.title_and_detail();
            let mut detail = escaped(detail);
            if let Actor::World(direction) = actor {
                let addresses = world.get(direction).map_or(0, BTreeSet::len);
                let _ = write!(detail, ", {addresses} address{}", if addresses == 1 { "" } else { "es" });
            }
            Box { frame: frames.range(..actor.frame()).count(), title: escaped(title), detail }
        });
        let ends = |ends: &(Actor, Actor)| Some((*index_of.get(&ends.0)?, *index_of.get(&ends.1)?));
        let arrows = arrows.iter().filter_map(|(actors, ports)| {
            let (from, to) = ends(actors)?;
            Some(Arrow { from, to, ports: in_short(ports) })
        });
        Self { boxes: boxes.collect(), arrows: arrows.collect(), frames: frames.iter().cloned().collect() }
    }

    /// For Markdown.
    pub(super) fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        for (index, frame) in self.frames.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  subgraph f{index}[\"{}\"]", for_mermaid(&frame.title()));
            for (index, it) in self.boxes_in(index) {
                let _ = writeln!(text, "    b{index}[\"{}<br/>{}\"]", for_mermaid(&it.title), for_mermaid(&it.detail));
            }
            text.push_str("  end\n");
        }
        for Arrow { from, to, ports } in &self.arrows {
            let _ = writeln!(text, "  b{from} -->|\"{}\"| b{to}", for_mermaid(ports));
        }
        text
    }

    /// For Graphviz.
    pub(super) fn dot(&self) -> String {
        let mut text = "digraph flows {\n  rankdir=LR;\n  fontname=\"sans-serif\";\n".to_owned();
        text.push_str("  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n");
        text.push_str("  edge [fontname=\"sans-serif\", fontsize=10];\n");
        for (index, frame) in self.frames.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  subgraph cluster_{index} {{\n    label=\"{}\";", for_dot(&frame.title()));
            for (index, it) in self.boxes_in(index) {
                let _ = writeln!(text, "    b{index} [label=\"{}\\n{}\"];", for_dot(&it.title), for_dot(&it.detail));
            }
            text.push_str("  }\n");
        }
        for Arrow { from, to, ports } in &self.arrows {
            let _ = writeln!(text, "  b{from} -> b{to} [label=\"{}\"];", for_dot(ports));
        }
        text.push_str("}\n");
        text
    }

    fn boxes_in(&self, frame: usize) -> impl Iterator<Item = (usize, &Box)> {
        self.boxes.iter().enumerate().filter(move |(_, it)| it.frame == frame)
    }
}

/// A service is drawn as the workload behind it, if that was seen.
fn peer(flow: &Flow, workloads: &Workloads) -> Actor {
    match &flow.peer {
        Peer::World(_) => Actor::World(flow.direction),
        Peer::Node { name, .. } | Peer::OwnNode { name, .. } => Actor::Node(name.clone()),
        Peer::Pod { pod, .. } => {
            let unknown =
                || Actor::Workload { namespace: pod.namespace.clone(), kind: "Pod".to_owned(), name: pod.name.clone() };
            workloads.of_pod(pod).map_or_else(unknown, Actor::of)
        }
        Peer::Service(service) => {
            let is_behind = |workload: &&Workload| {
                !service.selector.is_empty() && workload.has(&service.namespace, &service.selector)
            };
            let mut behind = workloads.iter().filter(is_behind);
            match (behind.next(), behind.next()) {
                (Some(only), None) => Actor::of(only),
                _ => Actor::Service(Name { namespace: service.namespace.clone(), name: service.name.clone() }),
            }
        }
    }
}

fn port(flow: &Flow) -> String {
    let protocol = flow.protocol.name().to_lowercase();
    match flow.target() {
        TargetPort::Number(number) => format!("{protocol}/{number}"),
        TargetPort::Name(name) => format!("{protocol}/{}", escaped(&name)),
    }
}

fn in_short(ports: &BTreeSet<String>) -> String {
    let more = ports.len().saturating_sub(PORTS);
    let first: Vec<&str> = ports.iter().take(PORTS).map(String::as_str).collect();
    if more > 0 { format!("{} +{more}", first.join(", ")) } else { first.join(", ") }
}

/// Mermaid has its own entities; whatever is not plain becomes one.
fn for_mermaid(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || " -_./,+:()".contains(c);
    text.chars().map(|c| if is_plain(c) { c.to_string() } else { format!("#{};", u32::from(c)) }).collect()
}

fn for_dot(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
