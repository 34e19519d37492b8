//! What a column shows of a record.

use std::net::IpAddr;
use std::sync::Arc;

use gadgets::format::{self, TimeFormat};
use gadgets::record::{Record, Value};
use gadgets::schema::{Field, Kind, Stream};
use serde::Serialize;

use super::context::Context;
use crate::peers::{Identity, Peer, Traits};
use crate::profile::frame::Frame;

/// Stands for what does not exist.
pub(super) const NOTHING: &str = "-";

/// Between the frames of a stack, which each have a line of their own below the row. No other text has such a character.
pub(super) const NEXT_FRAME: char = '\n';

/// Adds it to a line.
pub(super) fn add_cell(
    name: &str,
    context: &Context,
    stream: &Stream,
    record: &Record<'_>,
    time: &mut TimeFormat,
    line: &mut String,
) {
    let entry = &context.owner(record.header.cgroup).entry;
    let mut text = |name: Option<&str>| format::escape(name.unwrap_or(NOTHING).as_bytes(), line);
    match name {
        "node" => text(Some(&context.node.name)),
        "namespace" => text(entry.namespace.as_deref()),
        "pod" => text(entry.pod.as_deref()),
        "container" => text(entry.container.as_deref()),
        "owner" => text(entry.owner.as_deref()),
        "labels" => {
            let labels: Vec<String> = entry.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            text((!labels.is_empty()).then(|| labels.join(",")).as_deref())
        }
        "time" => line.push_str(time.of(context.clock.wall(record.header.time))),
        field => match stream.field(field).and_then(|field| Some((record.value(field).ok()?, field))) {
            Some((Value::Path(names), _)) if names.is_empty() => line.push_str(NOTHING),
            Some((Value::Unsigned(number), field)) if field.kind == Kind::KernelStack => match context.stack(number) {
                Some(stack) => stack.frames.iter().for_each(|frame| {
                    line.push(NEXT_FRAME);
                    format::escape(frame.as_bytes(), line);
                }),
                None => line.push_str(NOTHING),
            },
            Some((Value::Unsigned(number), field)) if field.kind == Kind::UserStack => match context.user_stack(number)
            {
                Some(stack) => context.frames(stack).for_each(|frame| {
                    line.push(NEXT_FRAME);
                    format::escape(Frame::of_program(frame).title().as_bytes(), line);
                }),
                None => line.push_str(NOTHING),
            },
            Some((Value::Arguments(given), field)) => match context.signature(given.number) {
                Some(signature) => signature.cell(&given, line),
                None => format::cell(&Value::Arguments(given), field, line),
            },
            Some((value, field)) => match named(context, &value, field) {
                Some((identity, _, port)) => text(Some(&format!("{}:{port}", identity.peer))),
                None => format::cell(&value, field, line),
            },
            None => line.push_str(NOTHING),
        },
    }
}

/// Adds the same to a JSON object, behind a comma.
pub(super) fn add_member(name: &str, context: &Context, stream: &Stream, record: &Record<'_>, out: &mut Vec<u8>) {
    let entry = &context.owner(record.header.cgroup).entry;
    match name {
        "node" => format::member(name, "", &context.node.name, out),
        "namespace" => format::member(name, "", &entry.namespace, out),
        "pod" => format::member(name, "", &entry.pod, out),
        "container" => format::member(name, "", &entry.container, out),
        "owner" => format::member(name, "", &entry.owner, out),
        "labels" => format::member(name, "", &entry.labels, out),
        field => {
            if let Some((field, value)) = stream.field(field).and_then(|field| Some((field, record.value(field).ok()?)))
            {
                add_value(context, &value, field, out);
            }
        }
    }
}

/// Adds a value to a JSON object, behind a comma.
pub(super) fn add_value(context: &Context, value: &Value<'_>, field: &Field, out: &mut Vec<u8>) {
    match (named(context, value, field), value) {
        (Some((identity, address, port)), _) => {
            let traits = (field.kind == Kind::PolicyPeer).then_some(&identity.traits);
            let endpoint = NamedEndpoint { address, port, peer: &identity.peer, traits };
            format::member(&field.name, "", &endpoint, out);
        }
        (None, Value::Unsigned(number)) if field.kind == Kind::KernelStack => {
            let stack = context.stack(*number);
            format::member(&field.name, "", &stack.map(|stack| &stack.frames), out);
            if stack.is_some_and(|stack| stack.cut) {
                format::member(&field.name, "_truncated", &true, out);
            }
        }
        (None, Value::Unsigned(number)) if field.kind == Kind::UserStack => {
            let stack = context.user_stack(*number);
            let frames: Option<Vec<_>> = stack.map(|stack| context.frames(stack).collect());
            format::member(&field.name, "", &frames, out);
            if stack.is_some_and(|stack| stack.cut) {
                format::member(&field.name, "_truncated", &true, out);
            }
            if stack.is_some_and(|stack| stack.short) {
                format::member(&field.name, "_short", &true, out);
            }
            if let Some(problem) = stack.and_then(|stack| stack.problem.as_ref()) {
                format::member(&field.name, "_problem", problem, out);
            }
        }
        (None, Value::Arguments(given)) if let Some(signature) = context.signature(given.number) => {
            format::member(&field.name, "", &signature.json(given), out);
        }
        (None, _) => format::json(value, field, out),
    }
}

/// An endpoint whose peer is known, in JSON.
#[derive(Serialize)]
struct NamedEndpoint<'a> {
    address: IpAddr,
    port: u16,
    #[serde(flatten)]
    peer: &'a Peer,
    #[serde(flatten)]
    traits: Option<&'a Traits>,
}

/// A peer that has a name.
fn named(context: &Context, value: &Value<'_>, field: &Field) -> Option<(Arc<Identity>, IpAddr, u16)> {
    match value {
        Value::Endpoint(address, port) if field.kind.is_peer() => Some((context.who_is(*address)?, *address, *port)),
        _ => None,
    }
}
