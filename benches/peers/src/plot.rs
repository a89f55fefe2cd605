//! The picture: a bar for every case outside and inside a span, on a logarithmic scale; as SVG and in characters.

use std::fmt::Write as _;

use crate::{cases::Case, figures::Row, report::nanoseconds};

/// Where bars begin and end, nanoseconds: a decade below a nanosecond to more than the slowest peer.
const SCALE: (f64, f64) = (0.3, 10_000.0);

const WIDTH: f64 = 900.0;
const LABEL_WIDTH: f64 = 330.0;
/// Room for the number behind the longest bar.
const NUMBER_WIDTH: f64 = 60.0;
const BAR_HEIGHT: f64 = 12.0;
const ROW_HEIGHT: f64 = 36.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 50.0;

/// Bars in characters are this long at most.
const COLUMNS: f64 = 50.0;

/// The place of a value between 0 and 1.
fn position(ns: f64) -> f64 {
    ((ns / SCALE.0).ln() / (SCALE.1 / SCALE.0).ln()).clamp(0.0, 1.0)
}

/// A label without its Markdown.
fn plain(label: &str) -> String {
    label.replace(['*', '`'], "")
}

/// Bars for a terminal: best round outside and inside a span.
pub fn bars(results: &[(&Case, Row)]) -> String {
    let mut text = String::from("ns per event on the caller, best, logarithmic: █ outside, ▒ inside a span\n\n");
    for (case, row) in results {
        let bar = |ns: Option<f64>, character: &str| {
            ns.map_or(String::new(), |ns| {
                format!("{} {}", character.repeat((position(ns) * COLUMNS).round() as usize), nanoseconds(ns))
            })
        };
        let label: String = plain(case.label).chars().take(44).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{label:<44} {}", bar(row.outside.best(), "█"));
        let _ = writeln!(text, "{:<44} {}", "", bar(row.inside.best(), "▒"));
    }
    text
}

/// The same as a picture that stands alone.
pub fn svg(results: &[(&Case, Row)]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_svg(&mut text, results);
    text
}

fn write_svg(svg: &mut String, results: &[(&Case, Row)]) -> std::fmt::Result {
    let height = TOP + ROW_HEIGHT * results.len() as f64 + BOTTOM;
    let bars_width = WIDTH - LABEL_WIDTH - NUMBER_WIDTH;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="12">"#
    )?;
    writeln!(svg, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##)?;
    writeln!(
        svg,
        r##"<text x="16" y="26" font-size="16" font-weight="600" fill="#1b1f24">What one event costs its caller</text>"##
    )?;
    writeln!(
        svg,
        r##"<text x="16" y="46" fill="#57606a">nanoseconds, best of all rounds, logarithmic scale; above: outside of any span, below: inside a span with two fields</text>"##
    )?;
    for decade in [1.0, 10.0, 100.0, 1000.0, 10_000.0] {
        let x = LABEL_WIDTH + position(decade) * bars_width;
        let (top, bottom) = (TOP - 8.0, height - BOTTOM + 6.0);
        writeln!(svg, r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="#d8dee4"/>"##)?;
        writeln!(
            svg,
            r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#57606a">{} ns</text>"##,
            bottom + 16.0,
            decade
        )?;
    }
    for (index, (case, row)) in results.iter().enumerate() {
        let top = TOP + ROW_HEIGHT * index as f64;
        let ours = case.name.starts_with("logsink");
        let (dark, light) = if ours { ("#0a7f5a", "#7fd1b4") } else { ("#4b6a9b", "#b3c3dd") };
        let weight = if ours { "600" } else { "400" };
        let label = escaped(&shortened(&plain(case.label)));
        writeln!(
            svg,
            r##"<text x="{:.1}" y="{:.1}" text-anchor="end" font-weight="{weight}" fill="#1b1f24">{label}</text>"##,
            LABEL_WIDTH - 10.0,
            top + BAR_HEIGHT + 4.0
        )?;
        for (ns, y, colour) in [(row.outside.best(), top, dark), (row.inside.best(), top + BAR_HEIGHT, light)] {
            let Some(ns) = ns else { continue };
            let width = (position(ns) * bars_width).max(1.0);
            writeln!(
                svg,
                r#"<rect x="{LABEL_WIDTH}" y="{y:.1}" width="{width:.1}" height="{BAR_HEIGHT}" fill="{colour}"/>"#
            )?;
            writeln!(
                svg,
                r##"<text x="{:.1}" y="{:.1}" font-size="11" fill="#1b1f24">{}</text>"##,
                LABEL_WIDTH + width + 5.0,
                y + BAR_HEIGHT - 2.0,
                nanoseconds(ns)
            )?;
        }
    }
    writeln!(svg, "</svg>")
}

/// What fits beside the bars.
fn shortened(label: &str) -> String {
    const CHARACTERS_MAX: usize = 52;
    if label.chars().count() <= CHARACTERS_MAX {
        return label.to_owned();
    }
    label.chars().take(CHARACTERS_MAX - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
