//! What follows from all events of a run, instead of the events: shown at its end.

use std::io::{self, Write};
use std::net::IpAddr;

use gadgets::record::Record;
use gadgets::wire::Loss;

use super::context::Context;
use super::json::Json;
use super::{Form, Hole, Totals};
use crate::advise::Advisor;
use crate::peers::Identity;

/// A form of output that gives events to an advisor, as they stand in JSON, and leaves all else to another form.
pub(super) struct Report {
    advisor: Box<dyn Advisor>,
    json: Json,
    line: Vec<u8>,
    form: Box<dyn Form + Send>,
    /// Events that are none as the advisor knows them, and what is wrong with the first.
    unread: Option<(u64, anyhow::Error)>,
    is_refused: bool,
}

impl Report {
    pub(super) fn new(gadget: &'static str, advisor: Box<dyn Advisor>, form: Box<dyn Form + Send>) -> Self {
        Self { advisor, json: Json::new(gadget), line: Vec::new(), form, unread: None, is_refused: false }
    }
}

impl Form for Report {
    fn ready(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.notice("watching; what follows from it is shown at the end (Ctrl-C)", out)
    }

    fn begin(&mut self, context: &Context, out: &mut dyn Write) -> io::Result<()> {
        self.form.begin(context, out)
    }

    fn row(&mut self, context: &Context, record: &Record<'_>, _: &mut dyn Write) -> io::Result<()> {
        self.line.clear();
        self.json.row(context, record, &mut self.line)?;
        if let Err(error) = self.advisor.take(&self.line) {
            // Of an agent of another version, perhaps; what others say still counts.
            self.unread.get_or_insert((0, error)).0 += 1;
        }
        Ok(())
    }

    fn peer(&mut self, address: IpAddr, identity: &Identity, _: &mut dyn Write) -> io::Result<()> {
        self.line.clear();
        self.json.peer(address, identity, &mut self.line)?;
        self.advisor.learn(&self.line).map_err(io::Error::other)
    }

    fn loss(&mut self, context: &Context, loss: &Loss, out: &mut dyn Write) -> io::Result<()> {
        self.form.loss(context, loss, out)
    }

    fn gap(&mut self, context: &Context, hole: &Hole, out: &mut dyn Write) -> io::Result<()> {
        self.form.gap(context, hole, out)
    }

    fn end(&mut self, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        let advice = self.advisor.advise().map_err(io::Error::other)?;
        out.write_all(advice.text.as_bytes())?;
        advice.remarks.iter().try_for_each(|remark| self.notice(remark, out))?;
        if let Some((count, error)) = self.unread.take() {
            self.notice(&format!("{count} events are not in here: {error:#}"), out)?;
        }
        self.is_refused = advice.is_refused;
        self.form.end(totals, out)
    }

    fn is_refused(&self) -> bool {
        self.is_refused
    }
}
