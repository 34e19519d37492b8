//! One plot a row: a bar is the median, its whisker the least and the greatest.

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::rows::Row;
use crate::table::{Samples, Table, number};

const WIDTH: i32 = 800;
/// Where bars begin, and how far they can reach.
const BARS: (i32, i32) = (310, 700);
const HEAD: i32 = 40;
const BAR: i32 = 16;
const STEP: i32 = 26;

const OURS: RGBColor = RGBColor(0x2a, 0x5d, 0x8f);
const OTHERS: RGBColor = RGBColor(0xa9, 0xb4, 0xbf);
/// Sizes of fonts as plotters counts them: a quarter more than they become.
const TITLE: i32 = 19;
const LABEL: i32 = 16;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);

/// The column of a row's table that it names.
pub(super) fn svg(row: &Row, table: &Table) -> Result<String> {
    let place = table.columns.iter().position(|column| column.name == row.plot).context("no such column")?;
    let cells = table.lines.iter().map(|line| (line.name.as_str(), &line.cells[place]));
    let bars: Vec<(&str, &Samples)> = cells.filter(|(_, samples)| samples.median().is_some()).collect();
    let mut svg = String::new();
    draw(&mut svg, row, &table.columns[place].unit, &bars).map_err(|error| anyhow!("plot {}: {error}", row.name))?;
    Ok(svg)
}

fn draw(svg: &mut String, row: &Row, unit: &str, bars: &[(&str, &Samples)]) -> Result<(), Box<dyn std::error::Error>> {
    let height = HEAD + STEP * i32::try_from(bars.len())? + 10;
    let size = (u32::try_from(WIDTH)?, u32::try_from(height)?);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32, horizontal| {
        let style = TextStyle::from(("sans-serif", size).into_font()).color(&INK);
        style.pos(Pos::new(horizontal, VPos::Center))
    };
    let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
    area.draw(&Text::new(format!("{}: {}{unit}", row.title, row.plot), (12, HEAD / 2), text(TITLE, HPos::Left)))?;

    let greatest = bars.iter().filter_map(|(_, samples)| Some(samples.range()?.1)).fold(0.0, f64::max);
    let reach = f64::from(BARS.1 - BARS.0);
    let at = |value: f64| BARS.0 + (value.max(0.0) / greatest.max(f64::MIN_POSITIVE) * reach).round() as i32;
    let has_others = bars.iter().any(|(name, _)| !is_ours(name)) && bars.iter().any(|(name, _)| is_ours(name));
    for (index, (name, samples)) in bars.iter().enumerate() {
        let (Some(median), Some((least, most))) = (samples.median(), samples.range()) else { continue };
        let middle = HEAD + STEP * i32::try_from(index)? + STEP / 2;
        let color = if has_others && !is_ours(name) { OTHERS } else { OURS };
        let corners = [(BARS.0, middle - BAR / 2), (at(median), middle + BAR / 2)];
        area.draw(&Text::new((*name).to_owned(), (BARS.0 - 8, middle), text(LABEL, HPos::Right)))?;
        area.draw(&Rectangle::new(corners, color.filled()))?;
        if least < most {
            area.draw(&PathElement::new([(at(least), middle), (at(most), middle)], INK))?;
            for end in [at(least), at(most)] {
                area.draw(&PathElement::new([(end, middle - 4), (end, middle + 4)], INK))?;
            }
        }
        area.draw(&Text::new(number(median), (at(median.max(most)) + 8, middle), text(LABEL, HPos::Left)))?;
    }
    area.draw(&PathElement::new([(BARS.0, HEAD), (BARS.0, height - 10)], INK))?;
    area.present()?;
    Ok(())
}

/// Whether a line is of the product, beside others.
fn is_ours(name: &str) -> bool {
    name.starts_with("kubectl gadget")
}
