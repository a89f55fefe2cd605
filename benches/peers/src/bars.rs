//! Bars on a logarithmic scale, as SVG and in characters. The benches of the library and of the server draw with it.

use std::fmt::Write as _;

/// Colours of a row's bars: its first, its second.
pub(crate) type Colours = (&'static str, &'static str);

/// Of what is logsink.
pub(crate) const OURS: Colours = ("#0a7f5a", "#7fd1b4");
/// Of what it is held against.
pub(crate) const PEER: Colours = ("#4b6a9b", "#b3c3dd");
/// Of what nothing can go below.
pub(crate) const LIMIT: Colours = ("#8c959f", "#c9d1d9");

/// What all rows have in common.
pub(crate) struct Chart {
    /// In large letters.
    pub(crate) title: &'static str,
    /// What the bars are.
    pub(crate) subtitle: &'static str,
    /// Where bars begin and end.
    pub(crate) scale: (f64, f64),
    /// Where the lines are drawn.
    pub(crate) decades: &'static [f64],
    /// Behind the numbers of the lines.
    pub(crate) unit: &'static str,
    /// The number behind a bar.
    pub(crate) show: fn(f64) -> String,
}

/// A row.
pub(crate) struct Bar {
    /// Before it; may have Markdown in it.
    pub(crate) label: String,
    /// Of its bars.
    pub(crate) colours: Colours,
    /// Above and below; a row of which the second is missing has one bar.
    pub(crate) values: [Option<f64>; 2],
}

const WIDTH: f64 = 900.0;
const LABEL_WIDTH: f64 = 330.0;
/// Room for the number behind the longest bar.
const NUMBER_WIDTH: f64 = 60.0;
const BAR_HEIGHT: f64 = 12.0;
/// Between two rows.
const GAP: f64 = 12.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 50.0;

/// Bars in characters are this long at most.
const COLUMNS: f64 = 50.0;

impl Chart {
    /// The place of a value between 0 and 1.
    fn position(&self, value: f64) -> f64 {
        let (first, last) = self.scale;
        ((value / first).ln() / (last / first).ln()).clamp(0.0, 1.0)
    }
}

impl Bar {
    fn is_single(&self) -> bool {
        self.values[1].is_none()
    }

    fn height(&self) -> f64 {
        GAP + if self.is_single() { BAR_HEIGHT } else { 2.0 * BAR_HEIGHT }
    }
}

/// A label without its Markdown.
fn plain(label: &str) -> String {
    label.replace(['*', '`'], "")
}

/// Bars for a terminal.
pub(crate) fn characters(chart: &Chart, rows: &[Bar]) -> String {
    let mut text = format!("{}\n\n", chart.subtitle);
    for row in rows {
        let bar = |value: Option<f64>, character: &str| {
            value.map_or(String::new(), |value| {
                let length = (chart.position(value) * COLUMNS).round() as usize;
                format!("{} {}", character.repeat(length), (chart.show)(value))
            })
        };
        let label: String = plain(&row.label).chars().take(44).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{label:<44} {}", bar(row.values[0], "█"));
        if !row.is_single() {
            let _ = writeln!(text, "{:<44} {}", "", bar(row.values[1], "▒"));
        }
    }
    text
}

/// The same as a picture that stands alone.
pub(crate) fn svg(chart: &Chart, rows: &[Bar]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_svg(&mut text, chart, rows);
    text
}

fn write_svg(svg: &mut String, chart: &Chart, rows: &[Bar]) -> std::fmt::Result {
    let height = TOP + rows.iter().map(Bar::height).sum::<f64>() + BOTTOM;
    let bars_width = WIDTH - LABEL_WIDTH - NUMBER_WIDTH;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="12">"#
    )?;
    writeln!(svg, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##)?;
    let (title, subtitle) = (escaped(chart.title), escaped(chart.subtitle));
    writeln!(svg, r##"<text x="16" y="26" font-size="16" font-weight="600" fill="#1b1f24">{title}</text>"##)?;
    writeln!(svg, r##"<text x="16" y="46" fill="#57606a">{subtitle}</text>"##)?;
    for decade in chart.decades {
        let x = LABEL_WIDTH + chart.position(*decade) * bars_width;
        let (top, bottom) = (TOP - 8.0, height - BOTTOM + 6.0);
        writeln!(svg, r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="#d8dee4"/>"##)?;
        writeln!(
            svg,
            r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#57606a">{} {}</text>"##,
            bottom + 16.0,
            decade,
            chart.unit
        )?;
    }
    let mut top = TOP;
    for row in rows {
        let (dark, light) = row.colours;
        let weight = if row.colours == OURS { "600" } else { "400" };
        let label = escaped(&shortened(&plain(&row.label)));
        let middle = if row.is_single() { top + BAR_HEIGHT - 2.0 } else { top + BAR_HEIGHT + 4.0 };
        writeln!(
            svg,
            r##"<text x="{:.1}" y="{middle:.1}" text-anchor="end" font-weight="{weight}" fill="#1b1f24">{label}</text>"##,
            LABEL_WIDTH - 10.0
        )?;
        for (value, y, colour) in [(row.values[0], top, dark), (row.values[1], top + BAR_HEIGHT, light)] {
            let Some(value) = value else { continue };
            let width = (chart.position(value) * bars_width).max(1.0);
            writeln!(
                svg,
                r#"<rect x="{LABEL_WIDTH}" y="{y:.1}" width="{width:.1}" height="{BAR_HEIGHT}" fill="{colour}"/>"#
            )?;
            writeln!(
                svg,
                r##"<text x="{:.1}" y="{:.1}" font-size="11" fill="#1b1f24">{}</text>"##,
                LABEL_WIDTH + width + 5.0,
                y + BAR_HEIGHT - 2.0,
                (chart.show)(value)
            )?;
        }
        top += row.height();
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
