//! What the user sees: rows as a table or as JSON, and an honest end.

mod cell;
pub(crate) mod columns;
mod context;
mod json;
pub(crate) mod profiling;
mod report;
pub(crate) mod screen;
pub(crate) mod sums;
mod table;
mod totals;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use gadgets::format::TimeFormat;
use gadgets::record::Record;
use gadgets::wire::{CgroupEntry, Frame, Gap, Loss, Stage, Trailer};
use jiff::tz::TimeZone;
use tokio::sync::Notify;

use crate::advise::Advisor;
use crate::notice::notice;
use crate::peers::{Identity, Peers};
use crate::run::inbox::{Inbox, News, SourceId};
use crate::run::merge::{Merge, Next};
use columns::Columns;
use context::Context;
use json::Json;
use profiling::{Profiling, Wanted};
use report::Report;
use screen::Screen;
use sums::{Sample, Sums};
use table::Table;
pub(crate) use totals::Totals;
use totals::{summary, whose};

/// The forms of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    /// A table that stays where it is, of a sampled gadget.
    #[value(skip)]
    Screen,
}

/// A time in which events of a node may be missing, in ns since 1970.
struct Hole {
    from: u64,
    to: u64,
    reason: String,
}

/// A form of output. What would disturb it is said in words.
trait Form {
    /// Called once, when every event from now on will be seen.
    fn ready(&mut self, out: &mut dyn Write) -> io::Result<()>;
    /// Called when a node's stream begins.
    fn begin(&mut self, context: &Context, out: &mut dyn Write) -> io::Result<()> {
        let node = &context.node;
        node.degraded.iter().try_for_each(|what| self.notice(&format!("node {}: {what}", node.name), out))
    }
    /// Shows an event, of a gadget that is not sampled.
    fn row(&mut self, _: &Context, _: &Record<'_>, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
    /// Shows what came in an interval, of a sampled gadget.
    fn sample(&mut self, _: Sample, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
    /// Told who has an address, of which that was not known when a row with it was shown.
    fn peer(&mut self, _: IpAddr, _: &Identity, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
    fn loss(&mut self, context: &Context, loss: &Loss, out: &mut dyn Write) -> io::Result<()> {
        let (node, whose) = (&context.node.name, whose(&loss.namespace, &loss.pod));
        let Loss { count, stage, reason, .. } = loss;
        self.notice(&format!("lost on node {node}: {count} events{whose}, in the {stage} ({reason})"), out)
    }
    fn gap(&mut self, context: &Context, hole: &Hole, out: &mut dyn Write) -> io::Result<()> {
        let mut time = TimeFormat::time_of_day(TimeZone::system());
        let (from, to) = (time.of(hole.from).to_owned(), time.of(hole.to));
        let (node, reason) = (&context.node.name, &hole.reason);
        self.notice(&format!("gap: events of node {node} may be missing from {from} to {to}: {reason}"), out)
    }
    fn end(&mut self, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        summary(totals).iter().try_for_each(|line| self.notice(line, out))
    }
    /// Says something to whoever sits before the terminal.
    fn notice(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        notice(text);
        Ok(())
    }
    /// Whether it has found something that would not be let through.
    fn is_refused(&self) -> bool {
        false
    }
    /// When it wants to be woken, to look at its keys; then `wake` is called.
    fn due(&self) -> Option<Instant> {
        None
    }
    fn wake(&mut self, _: &Totals) -> io::Result<()> {
        Ok(())
    }
}

/// The stream of one node.
struct Stream {
    context: Context,
    /// What has come since its last Hello, to be compared with its trailer.
    came: Trailer,
    state: State,
}

enum State {
    /// It has not begun, or has broken off for this reason; complete up to here, in ns since 1970.
    Broken {
        from: u64,
        reason: Option<String>,
    },
    Live,
    Ended,
}

/// What prints a run.
pub(crate) struct Output {
    form: Box<dyn Form + Send>,
    /// Of a sampled gadget.
    sums: Option<Sums>,
    /// Records of this interval for which there was no room, by stream and cgroup.
    refused: BTreeMap<SourceId, BTreeMap<u64, u64>>,
    quit: Arc<Notify>,
    /// Who knows the names of peers.
    peers: Option<Peers>,
    /// Where it goes, if not to standard output.
    file: Option<File>,
    streams: Vec<Stream>,
    totals: Totals,
    is_ready: bool,
    /// When the run began, in ns since 1970.
    began: u64,
}

impl Output {
    /// That of a gadget; of a sampled one, with what is to be added up.
    pub(crate) fn new(format: Format, gadget: &'static str, columns: Columns, sums: Option<Sums>) -> Self {
        let quit = Arc::<Notify>::default();
        let form: Box<dyn Form + Send> = match (format, &sums) {
            (Format::Json, _) => Box::new(Json::new(gadget)),
            (Format::Screen, Some(sums)) => Box::new(Screen::new(gadget, columns, Arc::clone(&quit), sums.order())),
            (Format::Table | Format::Screen, _) => Box::new(Table::new(columns)),
        };
        Self::of(form, sums, quit)
    }

    /// One that shows at the end where time went.
    pub(crate) fn profile(wanted: Wanted) -> Self {
        let quit = Arc::<Notify>::default();
        Self::of(Box::new(Profiling::new(wanted, Arc::clone(&quit))), None, quit)
    }

    fn of(form: Box<dyn Form + Send>, sums: Option<Sums>, quit: Arc<Notify>) -> Self {
        Self {
            form,
            sums,
            refused: BTreeMap::new(),
            quit,
            peers: None,
            file: None,
            streams: Vec::new(),
            totals: Totals::default(),
            is_ready: false,
            began: 0,
        }
    }

    /// Shows at the end what an advisor says, instead of a gadget's events.
    pub(crate) fn report(self, gadget: &'static str, advisor: Box<dyn Advisor>) -> Self {
        let form = Box::new(Report::new(gadget, advisor, self.form));
        Self { form, ..self }
    }

    /// Writes to a file instead of standard output.
    pub(crate) fn write_to(&mut self, file: File) {
        self.file = Some(file);
    }

    /// Shows peers by their names.
    pub(crate) fn name_peers(&mut self, peers: Peers) {
        self.peers = Some(peers);
    }

    /// Notified when the user has asked the output for the end.
    pub(crate) fn quit(&self) -> Arc<Notify> {
        Arc::clone(&self.quit)
    }

    /// Prints what comes until there is no more, and then the end.
    ///
    /// # Errors
    /// If nothing can be written: [`io::ErrorKind::BrokenPipe`] if nobody reads any more.
    pub(crate) fn print(mut self, inbox: &Inbox) -> io::Result<Totals> {
        let out: Box<dyn Write> = match self.file.take() {
            Some(file) => Box::new(file),
            None => Box::new(io::stdout().lock()),
        };
        let mut out = BufWriter::with_capacity(64 << 10, out);
        let mut merge = Merge::default();
        self.began = now();
        loop {
            let sums_due = self.sums.as_ref().map(|sums| Instant::now() + sums.due_in());
            let due = [merge.next_due(), sums_due, self.form.due()];
            let came = inbox.take(due.into_iter().flatten().min());
            let is_last = came.is_none();
            if inbox.is_abandoned() {
                return Ok(self.totals);
            }
            if is_last {
                merge.finish();
            }
            came.into_iter().flatten().for_each(|(arrived, news)| merge.push(arrived, news));
            let now = Instant::now();
            while let Some(next) = merge.pop(now) {
                match next {
                    Next::Record(source, record) => self.record(source, &record, &mut out)?,
                    Next::News(news) => self.news(news, &mut out)?,
                }
            }
            if self.sums.as_ref().is_some_and(|sums| is_last || sums.due_in().is_zero()) {
                self.sample(&mut out)?;
            }
            for (address, identity) in self.peers.iter().flat_map(Peers::take_late) {
                self.form.peer(address, &identity, &mut out)?;
            }
            if self.form.due().is_some_and(|due| due <= now) {
                self.form.wake(&self.totals)?;
            }
            out.flush()?;
            if is_last {
                break;
            }
        }
        self.finish(&mut out)?;
        out.flush()?;
        self.totals.is_refused = self.form.is_refused();
        Ok(self.totals)
    }

    fn record(&mut self, source: SourceId, record: &Record<'_>, out: &mut dyn Write) -> io::Result<()> {
        self.become_ready(out)?;
        let stream = &mut self.streams[source];
        stream.came.records += 1;
        if !self.sums.as_mut().is_none_or(|sums| sums.add(&stream.context, record)) {
            *self.refused.entry(source).or_default().entry(record.header.cgroup).or_default() += 1;
            return Ok(());
        }
        self.totals.events += 1;
        if self.sums.is_some() { Ok(()) } else { self.form.row(&stream.context, record, out) }
    }

    /// Shows the interval that is over.
    fn sample(&mut self, out: &mut dyn Write) -> io::Result<()> {
        for (source, counts) in std::mem::take(&mut self.refused) {
            self.dropped(source, &counts, "an interval has more rows than are kept", out)?;
        }
        let sample = self.sums.as_mut().map(Sums::take);
        sample.map_or(Ok(()), |sample| self.form.sample(sample, out))
    }

    fn news(&mut self, news: News, out: &mut dyn Write) -> io::Result<()> {
        match news {
            News::Ready => self.become_ready(out),
            News::Notice(text) => self.form.notice(&text, out),
            News::Joined(source, name) => {
                debug_assert_eq!(source, self.streams.len(), "nodes are numbered as they come");
                let context = Context::new(name, self.peers.clone());
                // Whoever is late has missed what was before.
                let state = State::Broken { from: self.began, reason: None };
                self.streams.push(Stream { context, came: Trailer::default(), state });
                Ok(())
            }
            News::Broken(source, reason) => self.broken(source, reason, out),
            News::Dropped(source, counts) => {
                self.streams[source].came.records += counts.values().sum::<u64>();
                self.dropped(source, &counts, "the output is read too slowly", out)
            }
            News::Frame(source, frame) => self.frame(source, frame, out),
        }
    }

    fn become_ready(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.is_ready, true) { Ok(()) } else { self.form.ready(out) }
    }

    fn frame(&mut self, source: SourceId, frame: Frame, out: &mut dyn Write) -> io::Result<()> {
        let Self { form, streams, totals, .. } = self;
        let Stream { context, came, state } = &mut streams[source];
        match frame {
            Frame::Hello(hello) => {
                *came = Trailer::default();
                context.begin(*hello);
            }
            Frame::Schema(schema) => {
                context.schema = Some(schema);
                if !totals.nodes.contains(&context.node.name) {
                    totals.nodes.push(context.node.name.clone());
                }
                form.begin(context, out)?;
                if let State::Broken { from, reason: Some(reason) } = std::mem::replace(state, State::Live) {
                    totals.gaps += 1;
                    form.gap(context, &Hole { from, to: context.clock.wall_ns, reason }, out)?;
                }
            }
            Frame::Dictionary(dictionary) => context.learn(dictionary),
            Frame::Loss(loss) => {
                came.lost = came.lost.saturating_add(loss.count);
                totals.count(&context.node.name, &loss);
                form.loss(context, &loss, out)?;
            }
            Frame::Gap(Gap { from_ns, to_ns, reason }) => {
                came.gaps += 1;
                totals.gaps += 1;
                let hole = Hole { from: context.clock.wall(from_ns), to: context.clock.wall(to_ns), reason };
                form.gap(context, &hole, out)?;
            }
            Frame::Heartbeat(heartbeat) => context.hear(heartbeat),
            Frame::Trailer(sent) => {
                *state = State::Ended;
                if sent != *came {
                    totals.incomplete.get_or_insert(format!(
                        "{} events came of {} that the agent on {} sent",
                        came.records, sent.records, context.node.name
                    ));
                }
                let count =
                    sent.records.saturating_add(sent.lost).saturating_sub(came.records.saturating_add(came.lost));
                if count > 0 {
                    let loss = context.loss(Stage::Stream, "the agent sent them and they did not arrive", count);
                    totals.count(&context.node.name, &loss);
                    form.loss(context, &loss, out)?;
                }
            }
            // Records come one by one; the others end a session, and are never passed on to here.
            Frame::Batch(_) | Frame::Stop | Frame::Error(_) | Frame::Status(_) | Frame::Recording(_) => {}
        }
        Ok(())
    }

    /// Tells of records that came and could not be kept.
    fn dropped(
        &mut self,
        source: SourceId,
        counts: &BTreeMap<u64, u64>,
        reason: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let Self { form, streams, totals, .. } = self;
        let context = &streams[source].context;
        for (cgroup, count) in counts {
            let CgroupEntry { namespace, pod, .. } = context.owner(*cgroup).entry.clone();
            let loss = context.loss(Stage::Client, reason, *count);
            let loss = Loss { namespace, pod, ..loss };
            totals.count(&context.node.name, &loss);
            form.loss(context, &loss, out)?;
        }
        Ok(())
    }

    fn broken(&mut self, source: SourceId, reason: String, out: &mut dyn Write) -> io::Result<()> {
        let Stream { context, state, .. } = &mut self.streams[source];
        let (from, known) = match state {
            State::Broken { from, reason } => (*from, reason.take()),
            State::Live => (context.complete_to, None),
            State::Ended => return Ok(()),
        };
        // It is tried again and again.
        if known.as_ref() != Some(&reason) {
            self.form.notice(&format!("node {}: {reason}", context.node.name), out)?;
        }
        *state = State::Broken { from, reason: Some(reason) };
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        // Without a stream nothing has begun, and so nothing ends.
        if self.totals.nodes.is_empty() && !self.is_ready {
            return Ok(());
        }
        let Self { form, streams, totals, .. } = self;
        for Stream { context, state, .. } in streams {
            let (from, reason) = match std::mem::replace(state, State::Ended) {
                State::Live => (context.complete_to, "the stream broke off".to_owned()),
                State::Broken { from, reason } => (from, reason.unwrap_or_else(|| "it was not reached".into())),
                State::Ended => continue,
            };
            totals.broken.get_or_insert_with(|| format!("node {}: {reason}", context.node.name));
            totals.gaps += 1;
            form.gap(context, &Hole { from, to: now(), reason }, out)?;
        }
        form.end(totals, out)
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or_default()
}
