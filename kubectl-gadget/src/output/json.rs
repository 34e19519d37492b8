//! One JSON object a line, told apart by `type`: `start` once every event is seen, `event`, `peer` (whose an address in an event
//! before it turned out to be), `loss`, `gap`, and `summary` at the end.

use std::io::{self, Write};
use std::net::IpAddr;

use gadgets::format::{self, TimeFormat};
use gadgets::record::{FLAG_RECORDED_OWNER, FLAG_SETUP, Record, Value};
use gadgets::wire::{CgroupEntry, Loss};
use serde::Serialize;
use serde_json::json;

use super::cell::add_value;
use super::context::Context;
use super::sums::Sample;
use super::totals::{LostFrom, summary};
use super::{Form, Hole, Totals};
use crate::notice::notice;
use crate::peers::Identity;

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

/// How the line of every event begins.
const BEGINNING: &[u8] = br#"{"type":"event""#;

/// How the line of every record of an owner begins.
fn beginning(context: &Context, entry: &CgroupEntry) -> Vec<u8> {
    let mut line = BEGINNING.to_vec();
    format::member("node", "", &context.node.name, &mut line);
    for (name, value) in [("namespace", &entry.namespace), ("pod", &entry.pod), ("container", &entry.container)] {
        format::member(name, "", value, &mut line);
    }
    if entry.sandbox {
        format::member("sandbox", "", &true, &mut line);
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
        if header.flags & FLAG_RECORDED_OWNER != 0 {
            format::member("recorded_owner", "", &true, line);
        }
        for field in context.stream(record).map(|stream| &stream.fields[..]).unwrap_or_default() {
            if let Ok(value) = record.value(field) {
                add_value(context, &value, field, line);
            }
        }
        line.push(b'}');
        write_line(line, out)
    }

    fn sample(&mut self, sample: Sample, out: &mut dyn Write) -> io::Result<()> {
        for row in &sample.rows {
            let line = &mut self.line;
            line.clear();
            line.extend_from_slice(BEGINNING);
            line.extend_from_slice(&row.json);
            format::member("time", "", self.time.of(sample.time), line);
            format::member("interval_ms", "", &sample.plan.interval.as_millis(), line);
            for (measure, sum) in sample.plan.measures.iter().zip(&row.sums) {
                format::json(&Value::Unsigned(*sum), measure, line);
            }
            line.push(b'}');
            write_line(line, out)?;
        }
        Ok(())
    }

    fn peer(&mut self, address: IpAddr, identity: &Identity, out: &mut dyn Write) -> io::Result<()> {
        let line = serde_json::to_vec(&Named { kind: "peer", address, identity })?;
        write_line(&line, out)
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

/// Who has an address.
#[derive(Serialize)]
struct Named<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    address: IpAddr,
    #[serde(flatten)]
    identity: &'a Identity,
}

fn write_line(json: &[u8], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&format::safe_json(json))?;
    out.write_all(b"\n")
}
