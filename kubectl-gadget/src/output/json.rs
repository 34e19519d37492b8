//! One JSON object a line, told apart by `type`: `start` once every event is seen, `event`, `loss`, `gap`, and `summary`
//! at the end.

use std::io::{self, Write};

use gadgets::format;
use gadgets::record::FLAG_SETUP;
use gadgets::wire::{Gap, Loss};
use serde_json::{Value, json};

use super::{Context, Form, Row, Totals};

#[derive(Default)]
pub(super) struct Json {
    line: String,
}

impl Form for Json {
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

    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        let header = &row.record.header;
        let entry = row.context.cgroup(header);
        let text = |text: Option<&str>| Value::from(text).to_string();
        let line = &mut self.line;
        line.clear();
        line.push_str(r#"{"type":"event","node":"#);
        line.push_str(&text(Some(&row.context.node.name)));
        for (name, value) in [("namespace", &entry.namespace), ("pod", &entry.pod), ("container", &entry.container)] {
            line.push_str(&format!(",\"{name}\":{}", text(value.as_deref())));
        }
        let time = format::rfc3339(row.context.clock.wall(header.time));
        line.push_str(&format!(",\"time\":\"{time}\",\"cgroup\":{}", header.cgroup));
        if header.flags & FLAG_SETUP != 0 {
            line.push_str(",\"setup\":true");
        }
        for field in &row.stream.fields {
            if let Ok(value) = row.record.value(field) {
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

    fn gap(&mut self, context: &Context, gap: &Gap, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "type": "gap",
            "node": context.node.name,
            "from": format::rfc3339(context.clock.wall(gap.from_ns)),
            "to": format::rfc3339(context.clock.wall(gap.to_ns)),
            "reason": gap.reason,
        });
        write_line(&object.to_string(), out)
    }

    fn end(&mut self, context: &Context, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        let object = json!({
            "type": "summary",
            "node": context.node.name,
            "events": totals.events,
            "lost": totals.lost,
            "gaps": totals.gaps,
            "complete": totals.complete(),
        });
        write_line(&object.to_string(), out)
    }
}

fn write_line(json: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", format::safe_json(json))
}
