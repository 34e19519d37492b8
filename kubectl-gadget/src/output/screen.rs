//! A sampled gadget on a terminal: a table that stays where it is, with keys.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use gadgets::format::{TimeFormat, escaped};
use gadgets::schema::Kind;
use jiff::tz::TimeZone;
use nix::sys::signal::{Signal, raise};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Row as TableRow, Table};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::Notify;

use super::cell::NOTHING;
use super::columns::Columns;
use super::sums::{Order, Row, Sample};
use super::totals::summary;
use super::{Form, Totals};
use crate::notice::notice;

/// How often the keys are looked at, and what has changed is drawn.
const KEYS: Duration = Duration::from_millis(50);
/// What was said last, at the bottom.
const NOTICES: usize = 3;
/// And what of it is repeated when the screen has gone.
const SAID: usize = 100;
/// Rows by which a page is scrolled.
const PAGE: usize = 10;

/// Whether the terminal is ours.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

pub(super) struct Screen {
    quit: Arc<Notify>,
    terminal: Option<DefaultTerminal>,
    view: View,
    /// What came from the terminal. Reading may block, so another thread does.
    events: Option<Receiver<Event>>,
    /// When it is looked at next.
    due: Instant,
    /// What is seen is not what there is.
    is_stale: bool,
    /// What was said last: nobody can read it after the screen has gone.
    said: VecDeque<String>,
}

/// What is seen, and what the keys have changed of it.
struct View {
    gadget: &'static str,
    columns: Vec<String>,
    /// The widest cell of each so far: nothing jumps from one interval to the next.
    widths: Vec<usize>,
    order: Order,
    is_paused: bool,
    /// Rows that are scrolled away.
    top: usize,
    sample: Option<Sample>,
    nodes: usize,
    lost: u64,
    gaps: u64,
    notices: VecDeque<String>,
    time: TimeFormat,
}

/// What a key asks for beyond the view.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Quit,
    Interrupt,
}

impl Screen {
    pub(super) fn new(gadget: &'static str, columns: Columns, quit: Arc<Notify>, order: Order) -> Self {
        // The time is the same for all, and said above them.
        let columns = columns.0.into_iter().filter(|name| name != "time").collect();
        let view = View::new(gadget, columns, order);
        Self { quit, terminal: None, view, events: None, due: Instant::now(), is_stale: true, said: VecDeque::new() }
    }

    /// Gives the terminal back, and repeats what was said on it.
    pub(super) fn close(&mut self) {
        self.terminal = None;
        leave();
        self.said.drain(..).for_each(|text| notice(&text));
    }

    fn draw(&mut self) -> io::Result<()> {
        let Self { terminal, view, .. } = self;
        terminal.as_mut().map_or(Ok(()), |terminal| terminal.draw(|frame| view.draw(frame)).map(drop))
    }
}

impl Form for Screen {
    fn ready(&mut self, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        IS_TAKEN.store(true, Ordering::Relaxed);
        self.terminal = Some(ratatui::try_init()?);
        let (sender, events) = channel();
        self.events = Some(events);
        // It ends with the process, or when nobody listens any more.
        std::thread::spawn(move || while event::read().is_ok_and(|event| sender.send(event).is_ok()) {});
        self.draw()
    }

    fn sample(&mut self, sample: Sample, _: &mut dyn Write) -> io::Result<()> {
        self.view.take(sample);
        self.is_stale = true;
        Ok(())
    }

    fn end(&mut self, totals: &Totals, _: &mut dyn Write) -> io::Result<()> {
        self.close();
        summary(totals).iter().for_each(|line| notice(line));
        Ok(())
    }

    fn notice(&mut self, text: &str, _: &mut dyn Write) -> io::Result<()> {
        if self.terminal.is_none() {
            notice(text);
            return Ok(());
        }
        keep_last(&mut self.said, SAID, text.to_owned());
        self.view.say(text);
        self.is_stale = true;
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        self.terminal.is_some().then_some(self.due)
    }

    fn wake(&mut self, totals: &Totals) -> io::Result<()> {
        self.due = Instant::now() + KEYS;
        (self.view.nodes, self.view.lost, self.view.gaps) = (totals.nodes.len(), totals.lost, totals.gaps);
        while let Some(event) = self.events.as_ref().and_then(|events| events.try_recv().ok()) {
            self.is_stale = true;
            if let Event::Key(key) = event {
                match self.view.press(key) {
                    Wish::Nothing => {}
                    Wish::Quit => self.quit.notify_one(),
                    Wish::Interrupt => raise(Signal::SIGINT)?,
                }
            }
        }
        if std::mem::take(&mut self.is_stale) { self.draw() } else { Ok(()) }
    }
}

/// Gives the terminal back, if it was taken; also while the thread that has taken it cannot.
pub(crate) fn leave() {
    if !IS_TAKEN.swap(false, Ordering::Relaxed) {
        return;
    }
    // There is nobody to tell that it does not work.
    let _ = disable_raw_mode();
    if let Ok(mut terminal) = OpenOptions::new().write(true).open("/dev/tty") {
        let _ = execute!(terminal, LeaveAlternateScreen, ratatui::crossterm::cursor::Show);
    }
}

impl View {
    fn new(gadget: &'static str, columns: Vec<String>, order: Order) -> Self {
        Self {
            gadget,
            widths: vec![0; columns.len()],
            columns,
            order,
            is_paused: false,
            top: 0,
            sample: None,
            nodes: 0,
            lost: 0,
            gaps: 0,
            notices: VecDeque::new(),
            time: TimeFormat::time_of_day(TimeZone::system()),
        }
    }

    fn take(&mut self, mut sample: Sample) {
        if !self.is_paused {
            sample.sort(&self.order);
            self.top = self.top.min(sample.rows.len().saturating_sub(1));
            self.sample = Some(sample);
        }
    }

    fn say(&mut self, text: &str) {
        keep_last(&mut self.notices, NOTICES, escaped(text));
    }

    fn press(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let last = self.sample.as_ref().map_or(0, |sample| sample.rows.len().saturating_sub(1));
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::Interrupt,
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char(' ' | 'p') => self.is_paused = !self.is_paused,
            KeyCode::Char('r') => self.sort(Order { reversed: !self.order.reversed, ..self.order.clone() }),
            KeyCode::Left | KeyCode::Char('<') => self.sort_by_neighbour(-1),
            KeyCode::Right | KeyCode::Char('>') => self.sort_by_neighbour(1),
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.top = (self.top + 1).min(last),
            KeyCode::PageUp => self.top = self.top.saturating_sub(PAGE),
            KeyCode::PageDown => self.top = (self.top + PAGE).min(last),
            KeyCode::Home => self.top = 0,
            KeyCode::End => self.top = last,
            _ => {}
        }
        Wish::Nothing
    }

    /// By the next column, or the one before; left of the first there is the usual order.
    fn sort_by_neighbour(&mut self, step: isize) {
        let now = self.order.column.as_ref().and_then(|name| self.columns.iter().position(|column| column == name));
        let places = self.columns.len() + 1;
        let place = now.map_or(0, |at| at + 1).saturating_add_signed(step).min(places - 1);
        let column = place.checked_sub(1).map(|at| self.columns[at].clone());
        self.sort(Order { column, reversed: false });
    }

    fn sort(&mut self, order: Order) {
        self.order = order;
        if let Some(sample) = &mut self.sample {
            sample.sort(&self.order);
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let notices = u16::try_from(self.notices.len()).unwrap_or(0);
        let parts = [Constraint::Length(2), Constraint::Min(2), Constraint::Length(notices), Constraint::Length(1)];
        let [head, body, said, keys] = Layout::vertical(parts).areas(frame.area());
        let shown = usize::from(body.height.saturating_sub(1));
        frame.render_widget(ratatui::text::Text::from(self.head(shown)), head);
        frame.render_widget(self.table(shown, body.width.into()), body);
        let lines: Vec<Line<'_>> = self.notices.iter().map(|text| Line::from(text.as_str()).yellow()).collect();
        frame.render_widget(ratatui::text::Text::from(lines), said);
        frame.render_widget(self.keys(), keys);
    }

    fn head(&mut self, shown: usize) -> Vec<Line<'static>> {
        let Some(sample) = &self.sample else {
            return vec![Line::from(format!("{}: waiting for the end of the first interval", self.gadget)).bold()];
        };
        let mut first = vec![Span::from(self.gadget).bold()];
        let nodes = if self.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", self.nodes) };
        let when = match &sample.whole {
            Some(_) => "since the start".to_owned(),
            None => format!("every {}", humantime::format_duration(sample.plan.interval)),
        };
        let rows = sample.rows.len();
        let visible = rows.saturating_sub(self.top).min(shown);
        let range = if visible < rows {
            format!("{} to {} of {rows} rows", self.top + 1, self.top + visible)
        } else {
            format!("{rows} rows")
        };
        first.push(Span::from(format!("  {}  {when}  {nodes}  {range}", self.time.of(sample.time))));
        if self.is_paused {
            first.push(Span::from("  PAUSED").bold().yellow());
        }
        let mut second: Vec<Span<'_>> = sample.whole.iter().map(|whole| format!("{}   ", whole.said).into()).collect();
        for (measure, total) in sample.plan.measures.iter().zip(&sample.totals) {
            second.push(Span::from(format!("{} ", measure.name)).dim());
            second.push(Span::from(format!("{}   ", quantity(*total, measure.kind))));
        }
        if self.lost > 0 || self.gaps > 0 {
            second.push(Span::from(format!("{} lost, {} gaps", self.lost, self.gaps)).bold().red());
        }
        vec![Line::from(first), Line::from(second)]
    }

    fn table(&mut self, shown: usize, width: usize) -> Table<'static> {
        let Self { columns, widths, order, sample, top, time, .. } = self;
        let rows =
            sample.iter().flat_map(|sample| sample.rows.iter().skip(*top).take(shown).map(move |row| (sample, row)));
        let rows: Vec<_> = rows.collect();
        let mut shown = Vec::new();
        for (name, width) in columns.iter().zip(widths) {
            let is_sum =
                sample.as_ref().is_some_and(|sample| sample.plan.measures.iter().any(|field| field.name == *name));
            let cells: Vec<String> = rows.iter().map(|(sample, row)| cell(sample, row, name, time)).collect();
            let title = title(name, order);
            *width = cells.iter().chain([&title]).map(|text| text.chars().count()).fold(*width, usize::max);
            shown.push(Column { title, width: *width, is_number: is_sum || name == "pid", cells });
        }
        // Where there is too little room, what says nothing goes first.
        if shown.iter().map(|column| column.width + 1).sum::<usize>() > width + 1 {
            shown.retain(|column| column.cells.is_empty() || column.cells.iter().any(|cell| cell != NOTHING));
        }
        let widths = shown.iter().map(|column| Constraint::Length(u16::try_from(column.width).unwrap_or(u16::MAX)));
        let aligned = |column: &Column, text: &str| {
            let line = Line::from(text.to_owned());
            if column.is_number { line.right_aligned() } else { line }
        };
        let lines =
            (0..rows.len()).map(|at| TableRow::new(shown.iter().map(|column| aligned(column, &column.cells[at]))));
        let header = TableRow::new(shown.iter().map(|column| aligned(column, &column.title)));
        Table::new(lines.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
            .header(header.style(Style::new().add_modifier(Modifier::REVERSED)))
            .column_spacing(1)
    }

    fn keys(&self) -> Line<'static> {
        let key =
            |name: &'static str, does: &'static str| [Span::from(name).bold(), Span::from(does).fg(Color::DarkGray)];
        let pause = if self.is_paused { " go on   " } else { " pause   " };
        let keys = [
            key("←→", " sort   "),
            key("r", " reverse   "),
            key("space", pause),
            key("↑↓", " scroll   "),
            key("q", " quit"),
        ];
        Line::from(keys.into_iter().flatten().collect::<Vec<_>>())
    }
}

/// What is shown of a column.
struct Column {
    title: String,
    width: usize,
    is_number: bool,
    cells: Vec<String>,
}

fn keep_last(lines: &mut VecDeque<String>, most: usize, line: String) {
    lines.push_back(line);
    if lines.len() > most {
        lines.pop_front();
    }
}

/// A column's title, with a sign if it is the one that says the order.
fn title(name: &str, order: &Order) -> String {
    let sign = match (order.column.as_deref() == Some(name), order.reversed) {
        (false, _) => "",
        (true, false) => "▼",
        (true, true) => "▲",
    };
    name.to_uppercase() + sign
}

fn cell(sample: &Sample, row: &Row, name: &str, time: &mut TimeFormat) -> String {
    match sample.sum(row, name) {
        Some((sum, field)) => match &sample.whole {
            Some(whole) => format!("{:.1}%", share(sum, whole.sum)),
            None => quantity(sum, field.kind),
        },
        None => {
            let mut line = String::new();
            sample.add_cell(row, name, time, &mut line);
            line
        }
    }
}

/// In percent.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// A sum as people read it at a glance.
fn quantity(sum: u64, kind: Kind) -> String {
    if kind == Kind::Bytes { ByteSize(sum).to_string() } else { sum.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sums::tests::sample;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn view(columns: &[&str]) -> View {
        View::new("tcptop", columns.iter().map(|name| (*name).to_owned()).collect(), Order::default())
    }

    fn drawn(view: &mut View, width: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 7)).expect("a terminal");
        terminal.draw(|frame| view.draw(frame)).expect("it draws");
        let buffer = terminal.backend().buffer().clone();
        let lines = buffer.content().chunks(width.into());
        let text = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
        lines.map(|cells| text(cells).trim_end().to_owned()).collect()
    }

    fn press(view: &mut View, code: KeyCode) -> Wish {
        view.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_change_what_is_seen() {
        let mut view = view(&["pid", "comm", "sent"]);
        view.take(sample(&[("10", "web", 3000), ("9", "db", 20)]));
        let lines = drawn(&mut view, 60);
        assert!(lines[0].starts_with("tcptop") && lines[0].ends_with("2 rows"), "{lines:?}");
        assert_eq!(lines[2..5], ["PID COMM    SENT", " 10 web  2.9 KiB", "  9 db      20 B"]);
        press(&mut view, KeyCode::Right);
        assert_eq!(drawn(&mut view, 60)[2..5], ["PID▼ COMM    SENT", "   9 db      20 B", "  10 web  2.9 KiB"]);
        press(&mut view, KeyCode::Char('r'));
        assert_eq!(drawn(&mut view, 60)[3], "  10 web  2.9 KiB");
        press(&mut view, KeyCode::Down);
        assert_eq!(drawn(&mut view, 60)[3], "   9 db      20 B");
        assert_eq!(press(&mut view, KeyCode::Char('q')), Wish::Quit);
        assert_eq!(view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Interrupt);
    }

    #[test]
    fn a_pause_keeps_what_is_there() {
        let mut view = view(&["pid", "sent"]);
        view.take(sample(&[("1", "a", 1)]));
        press(&mut view, KeyCode::Char(' '));
        view.take(sample(&[("2", "b", 2)]));
        assert_eq!(drawn(&mut view, 60)[3], "  1  1 B");
        press(&mut view, KeyCode::Char(' '));
        view.take(sample(&[("2", "b", 2)]));
        assert_eq!(drawn(&mut view, 60)[3], "  2  2 B");
    }

    #[test]
    fn what_says_nothing_goes_first_where_there_is_little_room() {
        let mut view = view(&["pid", "comm", "sent"]);
        view.take(sample(&[("1", NOTHING, 1)]));
        assert_eq!(drawn(&mut view, 30)[2], "PID COMM SENT");
        assert_eq!(drawn(&mut view, 10)[2], "PID SENT");
    }

    #[test]
    fn whatever_is_said_stays_on_its_line() {
        let mut view = view(&["pid"]);
        view.say("lost \u{1b}[2J\nmany");
        assert!(drawn(&mut view, 60).iter().any(|line| line == "lost \\e[2J\\nmany"));
    }
}
