//! What the user sees: rows as a table or as JSON, and an honest end.

pub(crate) mod columns;
mod json;
mod table;

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use gadgets::record::{Header, Record, records};
use gadgets::schema::{Schema, Stream};
use gadgets::wire::{CgroupEntry, Clock, Frame, Gap, Loss, Node, Stage, Trailer};
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use columns::Columns;
use json::Json;
use table::Table;

/// The forms of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// What the records of a session need to be understood: filled by the frames before them.
#[derive(Default)]
struct Context {
    node: Node,
    clock: Clock,
    schema: Option<Schema>,
    cgroups: HashMap<u64, CgroupEntry>,
    nobody: CgroupEntry,
}

impl Context {
    fn cgroup(&self, header: &Header) -> &CgroupEntry {
        self.cgroups.get(&header.cgroup).unwrap_or(&self.nobody)
    }
}

/// One row, on its way to a form.
struct Row<'a> {
    context: &'a Context,
    stream: &'a Stream,
    record: Record<'a>,
}

/// A form of output. Rows and notices go to standard output or, where they would disturb it, to standard error.
trait Form {
    /// Called when the gadget runs: every event from now on will be seen.
    fn begin(&mut self, context: &Context, out: &mut dyn Write) -> io::Result<()>;
    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()>;
    fn loss(&mut self, context: &Context, loss: &Loss, out: &mut dyn Write) -> io::Result<()>;
    fn gap(&mut self, context: &Context, gap: &Gap, out: &mut dyn Write) -> io::Result<()>;
    fn end(&mut self, context: &Context, totals: &Totals, out: &mut dyn Write) -> io::Result<()>;
}

/// The sums of a run.
#[derive(Default)]
pub(crate) struct Totals {
    /// Events printed.
    pub(crate) events: u64,
    /// Events lost.
    pub(crate) lost: u64,
    /// The same by stage, in the order of the way.
    pub(crate) lost_at: Vec<(Stage, u64)>,
    pub(crate) gaps: u64,
    /// What the agent says the sums are; `None` while it has not.
    pub(crate) trailer: Option<Trailer>,
}

impl Totals {
    /// Whether the trailer came and has the same sums.
    pub(crate) fn complete(&self) -> bool {
        let own = Trailer { records: self.events, lost: self.lost, gaps: self.gaps };
        self.trailer.as_ref() == Some(&own)
    }

    fn count(&mut self, loss: &Loss) {
        self.lost += loss.count;
        match self.lost_at.iter_mut().find(|(stage, _)| *stage == loss.stage) {
            Some((_, count)) => *count += loss.count,
            None => self.lost_at.push((loss.stage, loss.count)),
        }
        self.lost_at.sort();
    }
}

/// What prints a run.
pub(crate) struct Output {
    form: Box<dyn Form + Send>,
    context: Context,
    totals: Totals,
}

impl Output {
    pub(crate) fn new(format: Format, columns: Columns) -> Self {
        let form: Box<dyn Form + Send> = match format {
            Format::Table => Box::new(Table::new(columns)),
            Format::Json => Box::new(Json::default()),
        };
        Self { form, context: Context::default(), totals: Totals::default() }
    }

    /// Prints frames until there are no more.
    ///
    /// # Errors
    /// If nothing can be written: [`io::ErrorKind::BrokenPipe`] if nobody reads any more.
    pub(crate) fn print(mut self, mut frames: Receiver<Frame>) -> io::Result<Self> {
        let mut out = standard_output();
        loop {
            let frame = match frames.try_recv() {
                Ok(frame) => frame,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // Nothing more to come at once: show what there is.
                    out.flush()?;
                    match frames.blocking_recv() {
                        Some(frame) => frame,
                        None => break,
                    }
                }
            };
            self.print_one(frame, &mut out)?;
        }
        out.flush()?;
        Ok(self)
    }

    /// Prints the end of a run, after its last frame, and returns the sums.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn finish(mut self) -> io::Result<Totals> {
        let mut out = standard_output();
        // Without a schema nothing has begun, and so nothing ends.
        if self.context.schema.is_some() {
            if self.totals.trailer.is_none() {
                let now = self.context.clock.boot_ns;
                self.print_one(
                    Frame::Gap(Gap { from_ns: now, to_ns: now, reason: "the stream broke off".into() }),
                    &mut out,
                )?;
            }
            self.form.end(&self.context, &self.totals, &mut out)?;
        }
        out.flush()?;
        Ok(self.totals)
    }

    fn print_one(&mut self, frame: Frame, out: &mut dyn Write) -> io::Result<()> {
        let Self { form, context, totals } = self;
        match frame {
            Frame::Hello(hello) => {
                if let Some(node) = hello.node {
                    context.clock = node.clock;
                    context.node = node;
                }
            }
            Frame::Schema(schema) => {
                context.schema = Some(schema);
                form.begin(context, out)?;
            }
            Frame::Dictionary(dictionary) => {
                dictionary.gone.iter().for_each(|id| _ = context.cgroups.remove(id));
                context.cgroups.extend(dictionary.cgroups.into_iter().map(|entry| (entry.cgroup, entry)));
            }
            Frame::Batch(batch) => totals.events += print_batch(form.as_mut(), &batch, context, out)?,
            Frame::Loss(loss) => {
                totals.count(&loss);
                form.loss(context, &loss, out)?;
            }
            Frame::Gap(gap) => {
                totals.gaps += 1;
                form.gap(context, &gap, out)?;
            }
            Frame::Heartbeat(heartbeat) => {
                if let Some(clock) = heartbeat.clock {
                    context.clock = clock;
                }
            }
            Frame::Trailer(trailer) => {
                totals.trailer = Some(trailer);
            }
            // Ends the run, and is never passed on to here.
            Frame::Stop | Frame::Error(_) => {}
        }
        Ok(())
    }
}

fn standard_output() -> impl Write {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Prints the records of a batch, and returns how many they were.
fn print_batch(form: &mut dyn Form, batch: &[u8], context: &Context, out: &mut dyn Write) -> io::Result<u64> {
    let mut printed = 0;
    for record in records(batch) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                eprintln!("warning: the rest of a batch cannot be read: {error}");
                break;
            }
        };
        let Some(stream) = context.schema.as_ref().and_then(|schema| schema.stream(record.header.stream)) else {
            eprintln!("warning: a record of unknown stream {}", record.header.stream);
            continue;
        };
        form.row(&Row { context, stream, record }, out)?;
        printed += 1;
    }
    Ok(printed)
}
