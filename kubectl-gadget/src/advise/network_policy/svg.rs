//! A picture as SVG that needs nothing else.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::layout::{Layout, Point, Rectangle, Route};
use super::picture::Picture;

const STYLE: &str = "\
text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; fill: #1f2933 }
.frame { fill: #f5f7fa; stroke: #cbd2d9 }
.name { font-size: 12px; font-weight: 600; fill: #52606d }
.box { fill: #ffffff; stroke: #3e6fa8; stroke-width: 1.4 }
.title { font-size: 13px; font-weight: 600; text-anchor: middle }
.detail { font-size: 10.5px; fill: #616e7c; text-anchor: middle }
.line { fill: none; stroke-width: 1.5 }
.port { font-size: 11px; fill: #243b53 }
";

/// Of arrows, by where they go: far enough apart to follow them where they cross.
const COLOURS: [&str; 7] = ["#2f6db5", "#b5572f", "#3b8a4e", "#8a4fa3", "#a3852b", "#2b8f96", "#b03a6b"];

/// Draws it.
pub(super) fn draw(picture: &Picture) -> String {
    let layout = Layout::of(picture);
    let (width, height) = (layout.width, layout.height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>\n{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<defs>\n"
    );
    for (index, colour) in COLOURS.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<marker id=\"head{index}\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"{colour}\"/></marker>"
        );
    }
    svg.push_str("</defs>\n");
    for (frame, place) in picture.frames.iter().zip(&layout.frames) {
        rectangle(&mut svg, "frame", *place);
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            place.x + 12.0,
            place.y + 18.0,
            text(&frame.title())
        );
    }
    let targets: BTreeSet<usize> = layout.arrows.iter().map(|arrow| arrow.to).collect();
    for Route { to, ports, lines, head: [start, end] } in &layout.arrows {
        let index = targets.range(..to).count() % COLOURS.len();
        let way: String = lines.iter().map(|[from, to]| curve(*from, *to)).collect();
        let _ = writeln!(
            svg,
            "<g stroke=\"{}\"><path class=\"line\" d=\"{way}\"/>\
             <path class=\"line\" marker-end=\"url(#head{index})\" d=\"{}\"/></g>\n\
             <text class=\"port\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            COLOURS[index],
            curve(*start, *end),
            start.x + 4.0,
            start.y - 4.0,
            text(ports)
        );
    }
    for (it, place) in picture.boxes.iter().zip(&layout.boxes) {
        rectangle(&mut svg, "box", *place);
        let (x, y) = (place.x + place.width / 2.0, place.y + place.height / 2.0);
        let _ = writeln!(
            svg,
            "<text class=\"title\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n\
             <text class=\"detail\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            y - 2.0,
            text(&it.title),
            y + 13.0,
            text(&it.detail)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn rectangle(svg: &mut String, class: &str, Rectangle { x, y, width, height }: Rectangle) {
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"7\"/>"
    );
}

/// Leaves and arrives level.
fn curve(from: Point, to: Point) -> String {
    /// How far it swings out where it turns round.
    const SWING: f32 = 44.0;
    let turns = from.is_rightward != to.is_rightward;
    let reach = if turns { SWING } else { (to.x - from.x).abs() / 2.0 };
    let way = |point: Point| if point.is_rightward { reach } else { -reach };
    let (first, second) = (from.x + way(from), to.x - way(to));
    format!("M{:.1} {:.1}C{first:.1} {:.1} {second:.1} {:.1} {:.1} {:.1}", from.x, from.y, from.y, to.y, to.x, to.y)
}

fn text(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // No characters of XML, however they are written.
            '\u{fffe}' | '\u{ffff}' => safe.push(char::REPLACEMENT_CHARACTER),
            plain => safe.push(plain),
        }
    }
    safe
}
