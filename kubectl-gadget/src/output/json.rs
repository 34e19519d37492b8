//! One JSON object a line, told apart by `type`: `start` once every event is seen, `event`, `loss`, `gap`, and `summary`
//! at the end.

use std::io::{self, Write};

use gadgets::format;
use gadgets::record::{FLAG_SETUP, Record};
use gadgets::wire::Loss;
use serde_json::{Value, json};

use super::context::Context;
use super::{Form, Hole, Totals, summary};
use crate::notice::notice;

#[derive(Default)]
pub(super) struct Json {
    line: String,
}

impl Form for Json {
    fn ready(&mut self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn begin(&mut self, context: &Context, out: &mut dyn Write) -> io::Result<()> {
        let node = &context.node;
        let object = json!({
            "type": "start",
            "node": node.name,
            "kernel": node.kernel,
            "variants": node.variants,
            "degraded": node.degraded,
        });
        write_line(&object.to_string(), out)
    }

    fn row(&mut self, context: &Context, record: &Record<'_>, out: &mut dyn Write) -> io::Result<()> {
        let header = &record.header;
        let entry = context.cgroup(header.cgroup);
        let text = |text: Option<&str>| Value::from(text).to_string();
        let line = &mut self.line;
        line.clear();
        line.push_str(r#"{"type":"event","node":"#);
        line.push_str(&text(Some(&context.node.name)));
        for (name, value) in [("namespace", &entry.namespace), ("pod", &entry.pod), ("container", &entry.container)] {
            line.push_str(&format!(",\"{name}\":{}", text(value.as_deref())));
        }
        if let Some(owner) = &entry.owner {
            line.push_str(&format!(",\"owner\":{}", text(Some(owner))));
        }
        if !entry.labels.is_empty() {
            line.push_str(&format!(",\"labels\":{}", json!(entry.labels)));
        }
        let time = format::rfc3339(context.clock.wall(header.time));
        line.push_str(&format!(",\"time\":\"{time}\",\"cgroup\":{}", header.cgroup));
        if header.flags & FLAG_SETUP != 0 {
            line.push_str(",\"setup\":true");
        }
        for field in context.stream(record).map(|stream| &stream.fields[..]).unwrap_or_default() {
            if let Ok(value) = record.value(field) {
                format::json(&value, field, line);
            }
        }
        line.push('}');
        write_line(line, out)
    }

    fn loss(&mut self, context: &Context, loss: &Loss, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "type": "loss",
            "node": context.node.name,
            "namespace": loss.namespace,
            "pod": loss.pod,
            "stage": loss.stage,
            "reason": loss.reason,
            "from": format::rfc3339(context.clock.wall(loss.from_ns)),
            "to": format::rfc3339(context.clock.wall(loss.to_ns)),
            "count": loss.count,
        });
        write_line(&object.to_string(), out)
    }

    fn gap(&mut self, context: &Context, hole: &Hole, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "type": "gap",
            "node": context.node.name,
            "from": format::rfc3339(hole.from),
            "to": format::rfc3339(hole.to),
            "reason": hole.reason,
        });
        write_line(&object.to_string(), out)
    }

    fn end(&mut self, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "type": "summary",
            "nodes": totals.nodes,
            "events": totals.events,
            "lost": totals.lost,
            "gaps": totals.gaps,
            "complete": totals.complete(),
        });
        write_line(&object.to_string(), out)?;
        out.flush()?;
        // Standard output may go to a program: a person wants to know, too.
        notice(&summary(totals));
        Ok(())
    }
}

fn write_line(json: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", format::safe_json(json))
}
