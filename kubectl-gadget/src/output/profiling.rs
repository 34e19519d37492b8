//! A profile: functions on a screen while it goes on, and at the end the whole in the form that was asked for.

use std::cmp::Reverse;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gadgets::format::{TimeFormat, escaped, span};
use gadgets::record::{Record, Value};
use gadgets::schema::{Field, Kind};
use tokio::sync::Notify;

use super::cell::{NOTHING, add_cell};
use super::columns::Columns;
use super::context::Context;
use super::screen::Screen;
use super::sums::{Order, Plan, Row, Sample, Whole};
use super::totals::summary;
use super::{Form, Totals, now};
use crate::notice::notice;
use crate::profile::functions::{Function, Usage};
use crate::profile::sample::{self, KernelStack, ProgramStack};
use crate::profile::{Column, Occasion, Profile, Subject, Sums, flamegraph, folded, pprof, table};

/// How often the screen shows what has come.
const INTERVAL: Duration = Duration::from_secs(1);
/// Functions that a screen has, those with the most time.
const FUNCTIONS: usize = 5000;
/// A stack with this number does not exist, or nobody asked for it.
const NO_STACK: u64 = 0;

/// The columns of the screen.
const OWN: &str = "self %";
const TOTAL: &str = "total %";
const MODULE: &str = "module";
const FUNCTION: &str = "function";

/// What somebody wants of a profile.
pub(crate) struct Wanted {
    pub(crate) subject: Subject,
    /// What stacks stand on.
    pub(crate) columns: Vec<Column>,
    /// Which columns agents add up: of [`Kind::Span`] the time, else the samples.
    pub(crate) measures: &'static [&'static str],
    pub(crate) shape: Shape,
    /// There is a screen for it while it goes on.
    pub(crate) live: bool,
    /// What to say if nothing was seen.
    pub(crate) if_empty: String,
}

/// The forms of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// So many of the hottest stacks.
    Table(usize),
    Folded,
    FlameGraph,
    Pprof,
}

/// A form of output that adds up, and shows at the end.
pub(super) struct Profiling {
    profile: Profile,
    measures: &'static [&'static str],
    shape: Shape,
    if_empty: String,
    screen: Option<Screen>,
    /// When the screen shows what has come.
    due: Instant,
    /// When it began, in ns since 1970, and by the clock that nobody sets.
    began: Option<(u64, Instant)>,
    /// Cells of no event's time.
    time: TimeFormat,
}

impl Profiling {
    pub(super) fn new(wanted: Wanted, quit: Arc<Notify>) -> Self {
        let Wanted { subject, columns, measures, shape, live, if_empty } = wanted;
        let shown = Columns([OWN, TOTAL, MODULE, FUNCTION].map(str::to_owned).into());
        let screen = live.then(|| Screen::new(subject.gadget, shown, quit, Order::default()));
        let mut profile = Profile::new(subject, columns);
        if live {
            profile.watch_functions();
        }
        let time = TimeFormat::rfc3339();
        Self { profile, measures, shape, if_empty, screen, due: Instant::now(), began: None, time }
    }

    /// What a record says.
    fn sample<'a>(&mut self, context: &'a Context, record: &Record<'_>) -> Option<sample::Sample<'a>> {
        let stream = context.stream(record)?;
        let mut sample = sample::Sample::default();
        for name in self.profile.columns() {
            let mut cell = String::new();
            add_cell(name, context, stream, record, &mut self.time, &mut cell);
            sample.base.push(cell);
        }
        for field in &stream.fields {
            let Ok(Value::Unsigned(number)) = record.value(field) else { continue };
            match field.kind {
                Kind::UserStack => sample.program = program_stack(context, number),
                Kind::KernelStack => sample.kernel = kernel_stack(context, number),
                Kind::Span if self.is_measure(field) => sample.sums.time = number,
                _ if self.is_measure(field) => sample.sums.samples = number,
                _ => {}
            }
        }
        Some(sample)
    }

    fn is_measure(&self, field: &Field) -> bool {
        self.measures.contains(&field.name.as_str())
    }

    /// The functions so far.
    fn functions(&self) -> Sample {
        let mut usages: Vec<(&Function, &Usage)> =
            self.profile.functions().into_iter().flat_map(|functions| functions.usages()).collect();
        // None has more of its own than altogether.
        usages.sort_unstable_by_key(|(_, usage)| Reverse(usage.total));
        usages.truncate(FUNCTIONS);
        let row = |(function, usage): (&Function, &Usage)| {
            let place = function.place.as_deref().unwrap_or(NOTHING);
            let cells = [place, &function.title].map(escaped).into();
            Row { cells, json: Vec::new(), sums: vec![usage.own.time, usage.total.time] }
        };
        let Sums { time, samples } = self.profile.whole();
        let plan = Plan {
            interval: INTERVAL,
            keys: [MODULE, FUNCTION].map(str::to_owned).into(),
            measures: [OWN, TOTAL].map(measure).into(),
            order: Order::default(),
            most: None,
        };
        let whole = Whole { sum: time, said: format!("{samples} {}   {}", self.profile.subject().unit(), span(time)) };
        let rows = usages.into_iter().map(row).collect();
        Sample { time: now(), plan, rows, totals: Vec::new(), whole: Some(whole) }
    }

    fn write(&self, occasion: &Occasion, out: &mut dyn Write) -> io::Result<()> {
        match self.shape {
            Shape::Table(rows) => table::write(&self.profile, rows, out),
            Shape::Folded => folded::write(&self.profile, out),
            Shape::FlameGraph => flamegraph::write(&self.profile, occasion, out),
            Shape::Pprof => pprof::write(&self.profile, occasion, out),
        }
    }
}

/// A column of the screen that is added up.
fn measure(name: &str) -> Field {
    Field { name: name.to_owned(), offset: 0, size: 8, kind: Kind::Span, values: Vec::new(), doc: String::new() }
}

fn program_stack(context: &Context, number: u64) -> ProgramStack<'_> {
    match context.user_stack(number) {
        Some(stack) => ProgramStack::Known {
            frames: context.frames(stack).collect(),
            cut: stack.cut,
            short: stack.short,
            problem: stack.problem.as_deref(),
        },
        None if number == NO_STACK => ProgramStack::None,
        None => ProgramStack::NotKept,
    }
}

fn kernel_stack(context: &Context, number: u64) -> KernelStack<'_> {
    match context.stack(number) {
        Some(stack) => KernelStack::Known { frames: &stack.frames, cut: stack.cut },
        None if number == NO_STACK => KernelStack::None,
        None => KernelStack::NotKept,
    }
}

impl Form for Profiling {
    fn ready(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let begins = Instant::now();
        self.began = Some((now(), begins));
        self.due = begins + INTERVAL;
        match &mut self.screen {
            Some(screen) => screen.ready(out),
            None => self.notice("watching; the profile is shown at the end (Ctrl-C)", out),
        }
    }

    fn row(&mut self, context: &Context, record: &Record<'_>, _: &mut dyn Write) -> io::Result<()> {
        if let Some(sample) = self.sample(context, record) {
            self.profile.add(sample);
        }
        Ok(())
    }

    fn end(&mut self, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
        if let Some(mut screen) = self.screen.take() {
            screen.close();
        }
        let (began, took) = self.began.map_or((0, Duration::ZERO), |(began, begins)| (began, begins.elapsed()));
        self.write(&Occasion { began, took, nodes: totals.nodes.len() }, out)?;
        self.profile.remarks().iter().try_for_each(|remark| self.notice(remark, out))?;
        if self.profile.is_empty() {
            let text = self.if_empty.clone();
            self.notice(&text, out)?;
        }
        summary(totals).iter().try_for_each(|line| self.notice(line, out))
    }

    fn notice(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        if let Some(screen) = &mut self.screen {
            return screen.notice(text, out);
        }
        out.flush()?;
        notice(text);
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        self.screen.as_ref()?.due()
    }

    fn wake(&mut self, totals: &Totals) -> io::Result<()> {
        let sample = (self.due <= Instant::now()).then(|| self.functions());
        let Some(screen) = &mut self.screen else { return Ok(()) };
        if let Some(sample) = sample {
            self.due = Instant::now() + INTERVAL;
            screen.sample(sample, &mut io::sink())?;
        }
        screen.wake(totals)
    }
}

#[cfg(test)]
mod tests {
    use gadgets::record::{HEADER_SIZE, records};
    use gadgets::schema::{Schema, Stream};
    use gadgets::wire::{CgroupEntry, Dictionary, FrameEntry, Hello, Node, StackEntry, StackFrame, UserStackEntry};

    use super::super::json::Json;
    use super::*;

    const MEASURES: &[&str] = &["samples", "spent"];

    fn context() -> Context {
        let fields = [
            ("user_stack", Kind::UserStack),
            ("kernel_stack", Kind::KernelStack),
            ("samples", Kind::Unsigned),
            ("spent", Kind::Span),
        ];
        let place = |at: usize| u32::try_from(HEADER_SIZE + at * 8).expect("a place");
        let fields = fields.into_iter().enumerate().map(|(at, (name, kind))| Field {
            name: name.into(),
            offset: place(at),
            size: 8,
            kind,
            values: Vec::new(),
            doc: String::new(),
        });
        let stream = Stream { id: 0, name: "sample".into(), size: place(4), fields: fields.collect() };
        let mut context = Context::new("node-a".into(), None);
        context.begin(Hello { node: Some(Node::default()), ..Hello::default() });
        context.schema = Some(Schema { streams: vec![stream] });
        let named = |function: &str| StackFrame { function: Some(function.into()), ..StackFrame::default() };
        context.learn(Dictionary {
            cgroups: vec![CgroupEntry { cgroup: 5, pod: Some("web".into()), ..CgroupEntry::default() }],
            frames: vec![FrameEntry { id: 1, frame: named("work") }, FrameEntry { id: 2, frame: named("_start") }],
            user_stacks: vec![UserStackEntry { number: 7, frames: vec![1, 2], ..UserStackEntry::default() }],
            stacks: vec![StackEntry { number: 8, frames: vec!["read+0x1".into()], cut: false }],
            ..Dictionary::default()
        });
        context
    }

    fn record(fields: [u64; 4]) -> Vec<u8> {
        let size = u32::try_from(HEADER_SIZE + 32).expect("a size").to_le_bytes();
        let cgroup = 5u64.to_le_bytes();
        let header = [&size[..], &[0; 12], &cgroup, &[0; 8]].concat();
        [header, fields.iter().flat_map(|field| field.to_le_bytes()).collect()].concat()
    }

    fn shown(shape: Shape, batch: &[u8]) -> String {
        let column = Column { name: "pod".into(), is_number: false };
        let mut form = Profiling::new(
            Wanted {
                subject: Subject { gadget: "profile", is_waiting: false },
                columns: vec![column],
                measures: MEASURES,
                shape,
                live: false,
                if_empty: "nothing".into(),
            },
            Arc::default(),
        );
        let (context, mut out) = (context(), Vec::new());
        form.ready(&mut out).expect("it begins");
        for record in records(batch) {
            form.row(&context, &record.expect("a record"), &mut out).expect("a row");
        }
        assert!(out.is_empty(), "before the end");
        form.end(&Totals::default(), &mut out).expect("it ends");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn all_is_shown_at_the_end() {
        let batch = [record([7, 8, 30, 600]), record([7, 8, 7, 140]), record([0, u64::MAX, 2, 40])].concat();
        assert_eq!(shown(Shape::Folded, &batch), "web;[stack not kept] 2\nweb;_start;work;read_[k] 37\n");
        assert!(shown(Shape::Table(1), &batch).ends_with("more: --rows 2, or -o flamegraph\n"));
        assert_eq!(shown(Shape::Folded, &[]), "");
    }

    #[test]
    fn each_record_has_its_stack_as_a_column_and_in_json() {
        let (context, batch) = (context(), record([7, 8, 30, 600]));
        let record = records(&batch).next().expect("one").expect("a record");
        let mut cell = String::new();
        let stream = context.stream(&record).expect("a stream");
        add_cell("user_stack", &context, stream, &record, &mut TimeFormat::rfc3339(), &mut cell);
        assert_eq!(cell, "\nwork\n_start");
        let mut json = Vec::new();
        Json::new("profile").row(&context, &record, &mut json).expect("JSON");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["user_stack"], serde_json::json!([{"function": "work"}, {"function": "_start"}]));
        assert_eq!((&json["kernel_stack"][0], &json["spent"]), (&"read+0x1".into(), &600.into()));
    }
}
