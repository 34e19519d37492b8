//! One JSON object a line, told apart by `type`: `start` once every event is seen, `event`, `loss`, `gap`, and `summary`
//! at the end.

use std::io::{self, Write};

use gadgets::format::{self, TimeFormat};
use gadgets::record::{FLAG_SETUP, Record};
use gadgets::wire::{CgroupEntry, Loss};
use serde_json::json;

use super::context::Context;
use super::{Form, Hole, LostFrom, Totals, summary};
use crate::notice::notice;

pub(super) struct Json {
    gadget: &'static str,
    line: Vec<u8>,
    time: TimeFormat,
}

impl Json {
    pub(super) fn new(gadget: &'static str) -> Self {
        Self { gadget, line: Vec::new(), time: TimeFormat::rfc3339() }
    }
}

/// How the line of every record of an owner begins.
fn beginning(context: &Context, entry: &CgroupEntry) -> Vec<u8> {
    let mut line = br#"{"type":"event""#.to_vec();
    format::member("node", "", &context.node.name, &mut line);
    for (name, value) in [("namespace", &entry.namespace), ("pod", &entry.pod), ("container", &entry.container)] {
        format::member(name, "", value, &mut line);
    }
    if let Some(owner) = &entry.owner {
        format::member("owner", "", owner, &mut line);
    }
    if !entry.labels.is_empty() {
        format::member("labels", "", &entry.labels, &mut line);
    }
    line
}

impl Form for Json {
    fn ready(&mut self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn begin(&mut self, context: &Context, out: &mut dyn Write) -> io::Result<()> {
        let node = &context.node;
        let object = json!({
            "type": "start",
            "gadget": self.gadget,
            "node": node.name,
            "kernel": node.kernel,
            "variants": node.variants,
            "degraded": node.degraded,
        });
        write_line(object.to_string().as_bytes(), out)
    }

    fn row(&mut self, context: &Context, record: &Record<'_>, out: &mut dyn Write) -> io::Result<()> {
        let header = &record.header;
        let owner = context.owner(header.cgroup);
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(owner.json.get_or_init(|| beginning(context, &owner.entry)));
        format::member("time", "", self.time.of(context.clock.wall(header.time)), line);
        format::member("cgroup", "", &header.cgroup, line);
        if header.flags & FLAG_SETUP != 0 {
            format::member("setup", "", &true, line);
        }
        for field in context.stream(record).map(|stream| &stream.fields[..]).unwrap_or_default() {
            if let Ok(value) = record.value(field) {
                format::json(&value, field, line);
            }
        }
        line.push(b'}');
        write_line(line, out)
    }

    fn loss(&mut self, context: &Context, loss: &Loss, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "type": "loss",
            "gadget": self.gadget,
            "node": context.node.name,
            "namespace": loss.namespace,
            "pod": loss.pod,
            "stage": loss.stage,
            "reason": loss.reason,
            "from": format::rfc3339(context.clock.wall(loss.from_ns)),
            "to": format::rfc3339(context.clock.wall(loss.to_ns)),
            "count": loss.count,
        });
        write_line(object.to_string().as_bytes(), out)
    }

    fn gap(&mut self, context: &Context, hole: &Hole, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "type": "gap",
            "gadget": self.gadget,
            "node": context.node.name,
            "from": format::rfc3339(hole.from),
            "to": format::rfc3339(hole.to),
            "reason": hole.reason,
        });
        write_line(object.to_string().as_bytes(), out)
    }

    fn end(&mut self, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        let loss = |(from, count): (&LostFrom, &u64)| {
            json!({
                "node": from.node,
                "namespace": from.namespace,
                "pod": from.pod,
                "stage": from.stage,
                "reason": from.reason,
                "count": count,
            })
        };
        let object = json!({
            "type": "summary",
            "gadget": self.gadget,
            "nodes": totals.nodes,
            "events": totals.events,
            "lost": totals.lost,
            "losses": totals.losses.iter().map(loss).collect::<Vec<_>>(),
            "gaps": totals.gaps,
            "complete": totals.complete(),
        });
        write_line(object.to_string().as_bytes(), out)?;
        out.flush()?;
        // Standard output may go to a program: a person wants to know, too.
        summary(totals).iter().for_each(|line| notice(line));
        Ok(())
    }
}

fn write_line(json: &[u8], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&format::safe_json(json))?;
    out.write_all(b"\n")
}
