//! Where boxes and arrows of a picture are.
//!
//! Frames lie below one another, columns beside one another: who begins is left of who listens. What goes further than to
//! the next column has a row of its own through each column on its way, as has what goes back to the left, so that no
//! arrow crosses a box. Arrows that say the same of the same box are one.

use std::collections::{BTreeMap, BTreeSet};

use super::picture::{Frame, Picture};

const MARGIN: f32 = 20.0;
/// How wide a character is at most, on average, in the size of titles.
const CHARACTER: f32 = 7.6;
/// The same of what stands at arrows.
pub(super) const SMALL_CHARACTER: f32 = 6.2;
const BOX_HEIGHT: f32 = 44.0;
/// Between arrows that come in.
const ENTRY: f32 = 18.0;
/// Between rows.
const GAP: f32 = 16.0;
/// Where arrows bend.
const BEND: f32 = 64.0;
const TITLE: f32 = 26.0;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rectangle {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) width: f32,
    pub(super) height: f32,
}

/// A place, and whether an arrow goes to the right there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) is_rightward: bool,
}

/// The way of all arrows that say the same of the same box.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) to: usize,
    pub(super) ports: String,
    /// Its parts, each between two points.
    pub(super) lines: Vec<[Point; 2]>,
    /// The last part, above which the ports stand.
    pub(super) head: [Point; 2],
}

#[derive(Debug)]
pub(super) struct Layout {
    pub(super) width: f32,
    pub(super) height: f32,
    pub(super) frames: Vec<Rectangle>,
    pub(super) boxes: Vec<Rectangle>,
    pub(super) arrows: Vec<Route>,
}

/// What comes into a box, from all for whom the same stands at the arrow.
struct Entry<'a> {
    to: usize,
    ports: &'a str,
    from: BTreeSet<usize>,
}

/// What has a row in a column of a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Box(usize),
    /// An entry on its way there.
    Pass {
        entry: usize,
        is_rightward: bool,
    },
}

/// Where a column begins, where its boxes begin, and where they end.
#[derive(Clone, Copy)]
struct Column {
    left: f32,
    boxes: f32,
    right: f32,
}

struct Plan<'a> {
    picture: &'a Picture,
    /// Frames from above to below.
    order: Vec<usize>,
    column_of: Vec<usize>,
    entries: Vec<Entry<'a>>,
    /// By frame and column.
    rows: BTreeMap<(usize, usize), Vec<Slot>>,
    /// Middles of rows, by column.
    middles: BTreeMap<(usize, Slot), f32>,
}

impl Layout {
    pub(super) fn of(picture: &Picture) -> Self {
        let mut plan = Plan::of(picture);
        let mut frames = plan.place();
        for _ in 0..4 {
            plan.sort();
            frames = plan.place();
        }
        let columns = plan.columns();
        let width = columns.last().map_or(0.0, |column| column.right) + BEND;
        for frame in &mut frames {
            frame.width = width - 2.0 * MARGIN;
        }
        let boxes = (0..picture.boxes.len()).map(|index| plan.rectangle(index, &columns)).collect();
        let height = frames.iter().map(|frame| frame.y + frame.height).fold(0.0, f32::max) + MARGIN;
        let arrows = (0..plan.entries.len()).map(|entry| plan.route(entry, &columns)).collect();
        Self { width, height, frames, boxes, arrows }
    }
}

impl<'a> Plan<'a> {
    fn of(picture: &'a Picture) -> Self {
        let column_of = columns_of(picture);
        let mut by_target: BTreeMap<(usize, &str), BTreeSet<usize>> = BTreeMap::new();
        for arrow in &picture.arrows {
            by_target.entry((arrow.to, &arrow.ports)).or_default().insert(arrow.from);
        }
        let entries: Vec<Entry<'_>> =
            by_target.into_iter().map(|((to, ports), from)| Entry { to, ports, from }).collect();
        let mut rows: BTreeMap<(usize, usize), Vec<Slot>> = BTreeMap::new();
        for (index, it) in picture.boxes.iter().enumerate() {
            rows.entry((it.frame, column_of[index])).or_default().push(Slot::Box(index));
        }
        let mut plan =
            Self { picture, order: order_of(picture, &column_of), column_of, entries, rows, middles: BTreeMap::new() };
        for (index, entry) in plan.entries.iter().enumerate() {
            let frame = picture.boxes[entry.to].frame;
            for is_rightward in [true, false] {
                for column in plan.passes(entry, is_rightward) {
                    plan.rows.entry((frame, column)).or_default().push(Slot::Pass { entry: index, is_rightward });
                }
            }
        }
        plan
    }

    /// Columns through which an entry passes on its way to the right, or back to the left.
    fn passes(&self, entry: &Entry<'_>, is_rightward: bool) -> std::ops::Range<usize> {
        let to = self.column_of[entry.to];
        let from = entry.from.iter().map(|from| self.column_of[*from]);
        if is_rightward {
            from.filter(|from| *from < to).min().map_or(0..0, |first| first + 1..to)
        } else {
            from.filter(|from| *from >= to).max().map_or(0..0, |last| to..last + 1)
        }
    }

    fn height(&self, slot: Slot) -> f32 {
        match slot {
            Slot::Pass { .. } => 0.0,
            Slot::Box(index) => BOX_HEIGHT.max((self.entries_of(index).count() as f32 + 0.5) * ENTRY),
        }
    }

    fn entries_of(&self, to: usize) -> impl Iterator<Item = usize> {
        self.entries.iter().enumerate().filter(move |(_, entry)| entry.to == to).map(|(index, _)| index)
    }

    /// Gives each row its place, in the middle of its frame, and returns the frames.
    fn place(&mut self) -> Vec<Rectangle> {
        let mut frames = vec![Rectangle::default(); self.picture.frames.len()];
        let mut top = MARGIN;
        let height_of = |plan: &Self, rows: &[Slot]| rows.iter().map(|slot| plan.height(*slot) + GAP).sum::<f32>();
        for frame in self.order.clone() {
            let columns = self.rows.range((frame, 0)..(frame + 1, 0));
            let columns: Vec<(usize, Vec<Slot>)> = columns.map(|((_, column), rows)| (*column, rows.clone())).collect();
            let inner = columns.iter().map(|(_, rows)| height_of(self, rows)).fold(0.0, f32::max);
            for (column, rows) in columns {
                let mut y = top + TITLE + (inner - height_of(self, &rows)) / 2.0;
                for slot in rows {
                    let height = self.height(slot) + GAP;
                    self.middles.insert((column, slot), y + height / 2.0);
                    y += height;
                }
            }
            let height = TITLE + inner + GAP / 2.0;
            frames[frame] = Rectangle { x: MARGIN, y: top, width: 0.0, height };
            top += height + GAP;
        }
        frames
    }

    /// Puts rows beside those from which arrows come to them.
    fn sort(&mut self) {
        let mut rows = std::mem::take(&mut self.rows);
        for ((_, column), slots) in &mut rows {
            let wish = |slot: &Slot| {
                let from: Vec<f32> = match slot {
                    Slot::Box(index) => {
                        self.entries_of(*index).flat_map(|entry| self.sources(entry, *column)).collect()
                    }
                    Slot::Pass { entry, is_rightward: true } => self.sources(*entry, *column).collect(),
                    Slot::Pass { entry, .. } => self.middle(self.entries[*entry].to).into_iter().collect(),
                };
                mean(&from).or_else(|| self.middles.get(&(*column, *slot)).copied()).unwrap_or_default()
            };
            slots.sort_by(|one, other| wish(one).total_cmp(&wish(other)).then(one.cmp(other)));
        }
        self.rows = rows;
    }

    /// From where an entry comes into a column.
    fn sources(&self, entry: usize, column: usize) -> impl Iterator<Item = f32> {
        let pass = Slot::Pass { entry, is_rightward: true };
        let passed = column.checked_sub(1).and_then(|before| self.middles.get(&(before, pass)).copied());
        let near = move |from: &&usize| self.column_of[**from] + 1 == column;
        let direct = self.entries[entry].from.iter().filter(near).filter_map(|from| self.middle(*from));
        direct.chain(passed)
    }

    fn middle(&self, index: usize) -> Option<f32> {
        self.middles.get(&(self.column_of[index], Slot::Box(index))).copied()
    }

    fn columns(&self) -> Vec<Column> {
        let count = self.column_of.iter().max().map_or(0, |last| last + 1);
        let mut columns = Vec::new();
        let mut x = MARGIN;
        for column in 0..count {
            let boxes = self.picture.boxes.iter().zip(&self.column_of).filter(|(_, of)| **of == column);
            let text = boxes.map(|(it, _)| (length(&it.title) * CHARACTER).max(length(&it.detail) * SMALL_CHARACTER));
            let width = text.fold(0.0, f32::max) + 28.0;
            let entries = self.entries.iter().filter(|entry| self.column_of[entry.to] == column);
            let label = entries.map(|entry| length(entry.ports) * SMALL_CHARACTER + 18.0).fold(0.0, f32::max);
            let left = x + if column == 0 && label == 0.0 { MARGIN } else { BEND };
            columns.push(Column { left, boxes: left + label, right: left + label + width });
            x = left + label + width;
        }
        columns
    }

    fn rectangle(&self, index: usize, columns: &[Column]) -> Rectangle {
        let column = columns[self.column_of[index]];
        let height = self.height(Slot::Box(index));
        let y = self.middle(index).unwrap_or_default() - height / 2.0;
        Rectangle { x: column.boxes, y, width: column.right - column.boxes, height }
    }

    fn route(&self, index: usize, columns: &[Column]) -> Route {
        let entry = &self.entries[index];
        let to = self.column_of[entry.to];
        // Those that come from above are above.
        let mut beside: Vec<usize> = self.entries_of(entry.to).collect();
        let height = |entry: &usize| mean(&self.sources(*entry, to).collect::<Vec<_>>()).unwrap_or(f32::MAX);
        beside.sort_by(|one, other| height(one).total_cmp(&height(other)));
        let place = beside.iter().position(|other| *other == index).unwrap_or_default() as f32;
        let offset = place - (beside.len() as f32 - 1.0) / 2.0;
        let y = self.middle(entry.to).unwrap_or_default() + offset * ENTRY;
        let at = |x, y, is_rightward| Point { x, y, is_rightward };
        let entrance = at(columns[to].left, y, true);
        let pass = |column: usize, x: f32, is_rightward| {
            let slot = Slot::Pass { entry: index, is_rightward };
            at(x, self.middles.get(&(column, slot)).copied().unwrap_or(y), is_rightward)
        };
        let into = |column: usize| if column == to { entrance } else { pass(column, columns[column].left, true) };
        let mut lines = Vec::new();
        for column in self.passes(entry, true) {
            let end = pass(column, columns[column].right, true);
            lines.extend([[into(column), end], [end, into(column + 1)]]);
        }
        for column in self.passes(entry, false) {
            let end = pass(column, columns[column].left, false);
            let next = column.checked_sub(1).filter(|_| column > to);
            let next = next.map_or(entrance, |next| pass(next, columns[next].right, false));
            lines.extend([[pass(column, columns[column].right, false), end], [end, next]]);
        }
        for from in &entry.from {
            let column = self.column_of[*from];
            let start = at(columns[column].right, self.middle(*from).unwrap_or_default(), true);
            lines.push([start, if column < to { into(column + 1) } else { pass(column, start.x, false) }]);
        }
        let head = [entrance, at(columns[to].boxes, y, true)];
        Route { to: entry.to, ports: entry.ports.to_owned(), lines, head }
    }
}

/// The world above, nodes below, and between them namespaces from those who begin to those who listen.
fn order_of(picture: &Picture, column_of: &[usize]) -> Vec<usize> {
    let column = |frame: usize| {
        let columns = picture.boxes.iter().zip(column_of).filter(|(it, _)| it.frame == frame);
        mean(&columns.map(|(_, column)| *column as f32).collect::<Vec<_>>()).unwrap_or_default()
    };
    let rank = |frame: &Frame| match frame {
        Frame::World => 0,
        Frame::Namespace(_) => 1,
        Frame::Nodes => 2,
    };
    let mut order: Vec<(usize, f32, usize)> =
        picture.frames.iter().enumerate().map(|(index, frame)| (rank(frame), column(index), index)).collect();
    order.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)).then(one.2.cmp(&other.2)));
    order.into_iter().map(|(.., index)| index).collect()
}

/// Columns in which arrows go to the right, except those that have to close a circle.
fn columns_of(picture: &Picture) -> Vec<usize> {
    let mut column_of = vec![0; picture.boxes.len()];
    let mut open: BTreeSet<usize> = (0..picture.boxes.len()).collect();
    let ends: BTreeSet<(usize, usize)> = picture.arrows.iter().map(|arrow| (arrow.from, arrow.to)).collect();
    let mut degrees = vec![(0_usize, 0_usize); picture.boxes.len()];
    for (from, to) in ends.iter().filter(|(from, to)| from != to) {
        degrees[*from].1 += 1;
        degrees[*to].0 += 1;
    }
    // The next is one to whom nobody comes who is not placed; in a circle the one who begins most.
    while let Some(next) = open.iter().copied().min_by_key(|index| {
        let (incoming, outgoing) = degrees[*index];
        (incoming > 0, incoming.saturating_sub(outgoing), usize::MAX - outgoing)
    }) {
        open.remove(&next);
        for (_, to) in ends.range((next, 0)..(next + 1, 0)).filter(|(_, to)| open.contains(to)) {
            degrees[*to].0 -= 1;
            column_of[*to] = column_of[*to].max(column_of[next] + 1);
        }
        for (from, _) in ends.iter().filter(|(from, to)| *to == next && open.contains(from)) {
            degrees[*from].1 -= 1;
        }
    }
    column_of
}

fn mean(values: &[f32]) -> Option<f32> {
    (!values.is_empty()).then(|| values.iter().sum::<f32>() / values.len() as f32)
}

fn length(text: &str) -> f32 {
    text.chars().count() as f32
}
