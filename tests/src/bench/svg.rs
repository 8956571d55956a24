//! The results as a plot: one panel of bars for each of the main figures.
//!
//! Written by hand, since it is some rectangles and words. It has no background of its own and
//! changes the colour of its words with the reader's scheme.

use std::fmt::Write as _;

use crate::bench::report::Report;
use crate::bench::stats::{Summary, short};

const WIDTH: f64 = 860.0;
const COLUMNS: usize = 2;
const BAR: f64 = 14.0;
const LINE: f64 = 20.0;
const NAMES: f64 = 96.0;
const FIGURES: f64 = 64.0;

/// Names of the figures that are drawn, when they were measured, and whether more is better. The
/// first that begins so, where a name ends with a dot.
const PANELS: [(&str, bool); 12] = [
    ("tcp.1.out", true),
    ("tcp.8.out", true),
    ("udp.1200", true),
    ("udp.120", true),
    ("rtt.idle.p50", false),
    ("path.bottleneck.rtt.load.p99", false),
    ("cpu.daemons", false),
    ("mem.peak", false),
    ("relay.tcp", true),
    ("path.30ms.0%.tcp.", true),
    ("path.30ms.1%.tcp.", true),
    ("connect", false),
];

/// Without a scheme (not every viewer has one) the words are readable on either background.
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#6e7781}.head{font-weight:600}\
.bar{fill:#8c959f}.own{fill:#2f81f7}.spread{stroke:#57606a;stroke-width:1.5}\
@media(prefers-color-scheme:light){text{fill:#24292f}}\
@media(prefers-color-scheme:dark){text{fill:#d0d7de}.bar{fill:#6e7681}.spread{stroke:#c9d1d9}}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One panel: a title, and a bar for each who has the figure.
struct Panel {
    title: String,
    bars: Vec<(String, Summary)>,
}

impl Panel {
    /// The bare path is told in words where it would dwarf all others.
    fn of(report: &Report<'_>, id: &str, more: bool) -> Option<Self> {
        let fits = |name: &str| name == id || (id.ends_with('.') && name.starts_with(id));
        let measure = report.measures.iter().find(|m| fits(&m.id))?;
        let summary = |name: &str| report.results.summary(name, &measure.id);
        let all = report.contenders.iter();
        let mut bars: Vec<_> =
            all.filter_map(|who| Some((who.name.clone(), summary(&who.name)?))).collect();
        let mut title = format!("{}, {}", measure.label, measure.unit);
        title += if more { " \u{2191}" } else { " \u{2193}" };
        let greatest = |bars: &[(String, Summary)]| {
            bars.iter().map(|(_, summary)| summary.median).fold(0.0, f64::max)
        };
        if let Some((name, bare)) = bars.first().cloned().filter(|(name, _)| name == "bare path") {
            let others = greatest(bars.get(1..).unwrap_or_default());
            if others > 0.0 && bare.median > 3.0 * others {
                bars.remove(0);
                let _ = write!(title, "; {name} {}", short(bare.median));
            }
        }
        (!bars.is_empty()).then_some(Self { title, bars })
    }

    fn height(&self) -> f64 {
        LINE * (self.bars.len() as f64 + 1.7)
    }

    fn draw(&self, out: &mut String, left: f64, top: f64, width: f64) {
        let title = escaped(&self.title);
        let _ = writeln!(out, r#"<text class="head" x="{left}" y="{}">{title}</text>"#, top + 13.0);
        let most = self.bars.iter().map(|(_, summary)| summary.max).fold(0.0, f64::max);
        let room = width - NAMES - FIGURES;
        let at = |value: f64| if most > 0.0 { room * value.max(0.0) / most } else { 0.0 };
        let begin = left + NAMES;
        for ((name, summary), n) in self.bars.iter().zip(1_u32..) {
            let y = top + LINE * f64::from(n);
            let class = if name == "qanah" { "own" } else { "bar" };
            let (name, base, mid) = (escaped(name), y + 12.0, y + 8.0);
            let length = at(summary.median);
            let _ = writeln!(
                out,
                r#"<text x="{x}" y="{base}" text-anchor="end">{name}</text>
<rect class="{class}" x="{begin}" y="{top}" width="{length:.1}" height="{BAR}" rx="2"/>"#,
                x = begin - 6.0,
                top = y + 1.0,
            );
            let (from, to) = (begin + at(summary.min), begin + at(summary.max));
            if summary.count > 1 {
                let _ = writeln!(
                    out,
                    r#"<line class="spread" x1="{from:.1}" x2="{to:.1}" y1="{mid}" y2="{mid}"/>"#
                );
            }
            let figure = short(summary.median);
            let x = to.max(begin + length) + 6.0;
            let _ = writeln!(out, r#"<text x="{x:.1}" y="{base}">{figure}</text>"#);
        }
    }
}

/// The plot.
pub fn svg(report: &Report<'_>) -> String {
    let of = |(id, more): &(&str, bool)| Panel::of(report, id, *more);
    let panels: Vec<_> = PANELS.iter().filter_map(of).collect();
    let gap = 24.0;
    let width = (WIDTH - gap) / COLUMNS as f64;
    let mut body = String::new();
    let mut top = 8.0;
    for row in panels.chunks(COLUMNS) {
        let mut left = 0.0;
        for panel in row {
            panel.draw(&mut body, left, top, width);
            left += width + gap;
        }
        top += row.iter().map(Panel::height).fold(0.0, f64::max);
    }
    let mut foot = |line: &str| {
        let _ = writeln!(body, r#"<text x="0" y="{}">{}</text>"#, top + 10.0, escaped(line));
        top += LINE;
    };
    foot(&report.machine.line());
    foot(&report.how);
    foot(
        "\u{2191} more is better, \u{2193} less is better; bars are medians, lines the spread of the rounds",
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" \
         viewBox=\"0 0 {WIDTH} {top}\" role=\"img\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::sample;

    #[test]
    fn a_plot_has_a_bar_for_everybody_and_is_well_formed() {
        sample(|report| {
            let svg = svg(report);
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            // The bare path is ten times as fast and is told in the title.
            assert!(svg.contains("; bare path 16,500</text>"), "{svg}");
            assert_eq!(svg.matches("class=\"own\"").count(), 2, "TCP and UDP");
            assert!(svg.contains("Some &amp; CPU") && !svg.contains("NaN"));
            for tag in ["text", "style", "svg"] {
                let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
                assert_eq!(svg.matches(&open).count(), svg.matches(&close).count(), "{tag}");
            }
        });
    }
}
