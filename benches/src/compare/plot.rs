//! Draws the plot of the report, an SVG image with up to two panels.
//!
//! The upper panel shows, for every case of [`Kind::Cpu`], the ratio of each server's CPU time to
//! that of the bare loop, as a bar that begins at 1. The lower panel shows, for every case of
//! [`Kind::Free`], the latencies with each server on a logarithmic axis, as a line from the median
//! to the 99.9th percentile with a dot at the 99th percentile. A panel without cases is left out.

use super::cases::{Case, Kind};
use super::measure::{Figure, Findings};
use super::report::Results;
use std::fmt::Write;

/// The colours of the servers, in the order of the legend.
const COLOURS: [&str; 10] =
    ["#555555", "#d62728", "#1f77b4", "#6baed6", "#2ca02c", "#98df8a", "#9467bd", "#17becf", "#ff7f0e", "#8c564b"];
/// The position of the left end of the panels. This and all other lengths are in units of the
/// image.
const LEFT: f64 = 60.0;
/// The height of a panel.
const PANEL: f64 = 260.0;
/// The distance between two servers of a case.
const STEP: f64 = 9.0;
/// The additional distance between two cases.
const GAP: f64 = 18.0;

/// The vertical axis of a panel.
struct Axis {
    top: f64,
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    /// Returns the position of `value`, or of the nearest value on the axis.
    fn y(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.log10() } else { value };
        let value = value.clamp(self.low, self.high);
        self.top + PANEL * (scale(self.high) - scale(value)) / (scale(self.high) - scale(self.low))
    }

    /// Draws a horizontal line at `value`, with a label.
    fn tick(&self, text: &mut String, width: f64, value: f64, label: &str) {
        let y = self.y(value);
        let _ = writeln!(
            text,
            r##"<line x1="{LEFT}" x2="{width}" y1="{y:.1}" y2="{y:.1}" stroke="#ddd"/><text x="{:.0}" y="{:.1}" text-anchor="end">{label}</text>"##,
            LEFT - 6.0,
            y + 4.0
        );
    }
}

/// Returns the plot, or `None` if `results` has no figures for it.
#[must_use]
pub fn svg(results: &Results) -> Option<String> {
    let of = |kind| results.iter().filter(|(case, _)| case.kind == kind).collect::<Vec<_>>();
    let (bars, tails) = (of(Kind::Cpu), of(Kind::Free));
    let mut names: Vec<&str> = Vec::new();
    for (_, findings) in bars.iter().chain(&tails) {
        for (name, _) in &findings.figures {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    let group = names.len() as f64 * STEP + GAP;
    let width = LEFT + group * bars.len().max(tails.len()).max(6) as f64;
    let mut text = String::new();
    legend(&mut text, &names);
    let mut top = 80.0;
    if !bars.is_empty() {
        panel_of_bars(&mut text, &bars, &names, top, group, width);
        top += PANEL + 90.0;
    }
    if !tails.is_empty() {
        panel_of_tails(&mut text, &tails, &names, top, group, width);
        top += PANEL + 60.0;
    }
    let height = top;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{text}</svg>\n",
        width + 10.0
    ))
}

/// Returns the colour of the server `name`.
fn colour(names: &[&str], name: &str) -> &'static str {
    COLOURS[names.iter().position(|known| *known == name).unwrap_or(0) % COLOURS.len()]
}

/// Draws the names of the servers in their colours.
fn legend(text: &mut String, names: &[&str]) {
    let mut x = LEFT;
    for name in names {
        let _ = writeln!(
            text,
            r#"<rect x="{x:.0}" y="12" width="10" height="10" fill="{}"/><text x="{:.0}" y="21">{name}</text>"#,
            colour(names, name),
            x + 14.0
        );
        x += 30.0 + 7.0 * name.len() as f64;
    }
}

/// Draws the title of the panel that begins at `top`.
fn title(text: &mut String, top: f64, title: &str) {
    let _ =
        writeln!(text, r#"<text x="{LEFT}" y="{:.0}" font-size="13" font-weight="bold">{title}</text>"#, top - 18.0);
}

/// Returns the columns of a panel. A column has a position, a case, the name of a server and its
/// figures.
fn columns<'a>(
    cases: &[&'a (Case, Findings)],
    names: &[&str],
    group: f64,
) -> Vec<(f64, &'a Case, &'a str, &'a [Figure])> {
    let mut columns = Vec::new();
    for (index, (case, findings)) in cases.iter().enumerate() {
        for (name, figures) in &findings.figures {
            let place = names.iter().position(|known| known == name).unwrap_or(0);
            let x = LEFT + GAP / 2.0 + index as f64 * group + place as f64 * STEP;
            columns.push((x, case, name.as_str(), figures.as_slice()));
        }
    }
    columns
}

/// Draws the names of the cases below the panel that begins at `top`.
fn case_names(text: &mut String, cases: &[&(Case, Findings)], top: f64, group: f64) {
    for (index, (case, _)) in cases.iter().enumerate() {
        let x = LEFT + (index as f64 + 0.5) * group;
        let y = top + PANEL + 18.0;
        let _ = writeln!(text, r#"<text x="{x:.0}" y="{y:.0}" text-anchor="middle">{}</text>"#, case.name);
    }
}

/// Draws the upper panel.
fn panel_of_bars(text: &mut String, cases: &[&(Case, Findings)], names: &[&str], top: f64, group: f64, width: f64) {
    let axis = Axis { top, low: 0.9, high: 2.0, logarithmic: false };
    title(text, top, "Server CPU per request, as a ratio to the bare epoll loop (less is better; cut at 2)");
    for tenths in [9, 10, 11, 12, 14, 16, 18, 20] {
        axis.tick(text, width, f64::from(tenths) / 10.0, &format!("{:.1}", f64::from(tenths) / 10.0));
    }
    for (x, _, name, figures) in columns(cases, names, group) {
        let Some(ratio) = figures.first().and_then(|figure| figure.ratio) else { continue };
        let (high, low) = (axis.y(ratio.max(1.0)), axis.y(ratio.min(1.0)));
        let _ = writeln!(
            text,
            r#"<rect x="{x:.1}" y="{high:.1}" width="{:.1}" height="{:.1}" fill="{}"><title>{name} {ratio:.3}</title></rect>"#,
            STEP - 1.5,
            (low - high).max(1.0),
            colour(names, name)
        );
    }
    case_names(text, cases, top, group);
}

/// Draws the lower panel.
fn panel_of_tails(text: &mut String, cases: &[&(Case, Findings)], names: &[&str], top: f64, group: f64, width: f64) {
    let axis = Axis { top, low: 10.0, high: 1e6, logarithmic: true };
    title(
        text,
        top,
        "Time of an echo, with the generator on the same CPUs: median to 99.9 %, dot at 99 % (less is better)",
    );
    for (value, label) in
        [(10.0, "10 µs"), (1e2, "100 µs"), (1e3, "1 ms"), (1e4, "10 ms"), (1e5, "100 ms"), (1e6, "1 s")]
    {
        axis.tick(text, width, value, label);
    }
    for (x, _, name, figures) in columns(cases, names, group) {
        let value = |wanted: &str| figures.iter().find(|figure| figure.name == wanted)?.value;
        let (Some(median), Some(p99), Some(p999)) = (value("p50 µs"), value("p99 µs"), value("p99.9 µs")) else {
            continue;
        };
        let (x, colour) = (x + STEP / 2.0, colour(names, name));
        let _ = writeln!(
            text,
            r#"<line x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}" stroke="{colour}" stroke-width="3"><title>{name} {median:.0} / {p99:.0} / {p999:.0} µs</title></line><circle cx="{x:.1}" cy="{:.1}" r="3.4" fill="{colour}"/>"#,
            axis.y(median),
            axis.y(p999),
            axis.y(p99)
        );
    }
    case_names(text, cases, top, group);
}

#[cfg(test)]
mod tests {
    use super::super::cases::CASES;
    use super::{Figure, Findings, svg};

    #[test]
    fn plot_has_a_bar_for_a_ratio() {
        assert_eq!(svg(&Vec::new()), None);
        let figure = Figure { name: "µs CPU", value: Some(4.0), ratio: Some(1.25) };
        let findings = Findings { figures: vec![("netpoll".to_owned(), vec![figure])], notes: Vec::new() };
        let text = svg(&vec![(CASES[0], findings)]).unwrap();
        assert!(text.contains("<title>netpoll 1.250</title>") && text.contains(">echo-1</text>"));
        assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
    }
}
