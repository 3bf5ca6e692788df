//! The frame of a plot over time: axes, grid, and the faults as shaded windows with their names.

use std::fmt::Write;

use super::{escape, seconds};
use crate::fault::{HEAL, Window};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 88.0;
const BOTTOM: f64 = 44.0;
/// Rows for the names of faults, above the plot.
const NAME_ROWS: usize = 3;
const NAME_ROW_HEIGHT: f64 = 14.0;

/// Colours by class, so that the same picture serves in light and dark. Outcomes differ in shape,
/// too; the colours keep apart for those who see no red or green.
const STYLE: &str = "\
.plot{font:12px system-ui,sans-serif;max-width:100%;height:auto}
.plot .paper{fill:#fff}.plot text{fill:#24292f}.plot .title{font-size:14px;font-weight:600}
.plot .grid{stroke:#d0d7de;stroke-width:1}.plot .axis{stroke:#57606a;stroke-width:1}
.plot .fault{fill:#8250df;fill-opacity:.13}.plot .moment{stroke:#8250df;stroke-width:1}
.plot .heal{stroke:#116329;stroke-width:1.5;stroke-dasharray:4 3}
.plot .ok{fill:#0969da}.plot .info{fill:#bc4c00}.plot .fail{fill:#82071e}
.plot .line{fill:none;stroke-width:1.6}.plot .line.ok{stroke:#0969da}
.plot .line.info{stroke:#bc4c00;stroke-dasharray:6 3}.plot .line.fail{stroke:#82071e;stroke-dasharray:2 2}
@media (prefers-color-scheme:dark){
.plot .paper{fill:#0d1117}.plot text{fill:#e6edf3}.plot .grid{stroke:#30363d}.plot .axis{stroke:#8d96a0}
.plot .fault{fill:#a371f7;fill-opacity:.22}.plot .moment{stroke:#a371f7}.plot .heal{stroke:#3fb950}
.plot .ok{fill:#58a6ff}.plot .info{fill:#f0883e}.plot .fail{fill:#ff7b72}
.plot .line{fill:none}.plot .line.ok{stroke:#58a6ff}.plot .line.info{stroke:#f0883e}
.plot .line.fail{stroke:#ff7b72}}";

/// A mark of an axis: where, from 0 to 1, and what stands there.
pub(super) type Tick = (f64, String);

/// A plot that is being drawn.
pub(super) struct Frame {
    svg: String,
    /// Length of the run in seconds.
    length: f64,
}

impl Frame {
    /// An empty plot over `length` seconds with marks on its upright axis. `name` tells its parts
    /// from those of other plots on the same page.
    pub(super) fn new(
        name: &str,
        title: &str,
        description: &str,
        length: f64,
        ticks: &[Tick],
    ) -> Self {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" role=\"img\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" aria-labelledby=\"{name}-title {name}-desc\">\n\
             <title id=\"{name}-title\">{title}</title>\n\
             <desc id=\"{name}-desc\">{description}</desc>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"20\">{title}</text>\n"
        );
        for (at, text) in ticks {
            let y = y(*at);
            let (right, beside, below) = (WIDTH - RIGHT, LEFT - 8.0, y + 4.0);
            svg += &format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{beside}\" y=\"{below:.1}\" text-anchor=\"end\">{text}</text>\n"
            );
        }
        let mut frame = Self { svg, length: length.max(0.001) };
        frame.time_axis();
        frame
    }

    fn time_axis(&mut self) {
        let bottom = y(0.0);
        let (right, below) = (WIDTH - RIGHT, bottom + 17.0);
        let line = format!(
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\n"
        );
        self.svg += &line;
        for (at, text) in linear_ticks(self.length) {
            let x = self.x(at * self.length);
            self.push(format_args!(
                "<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{text}</text>\n"
            ));
        }
        let (middle, lowest) = ((LEFT + right) / 2.0, bottom + 35.0);
        self.push(format_args!(
            "<text x=\"{middle}\" y=\"{lowest}\" text-anchor=\"middle\">seconds</text>\n"
        ));
    }

    /// Shades what the nemesis did, if it acted. Names take turns in a few rows, so that they stay readable.
    pub(super) fn faults(&mut self, windows: &[Window]) {
        let (top, bottom) = (y(1.0), y(0.0));
        let mut rows_end = [f64::NEG_INFINITY; NAME_ROWS];
        for window in windows.iter().filter(|one| one.has_acted() || one.fault == HEAL) {
            let (from, until) = (self.x(seconds(window.from)), self.x(seconds(window.until)));
            let height = bottom - top;
            let name = escape(&window.fault);
            let hint = format!(
                "{name}, {:.1} to {:.1} s, acted {} times",
                seconds(window.from),
                seconds(window.until),
                window.acted
            );
            if window.until > window.from {
                let width = (until - from).max(1.0);
                self.push(format_args!(
                    "<rect class=\"fault\" x=\"{from:.1}\" y=\"{top}\" width=\"{width:.1}\" \
                     height=\"{height}\"><title>{hint}</title></rect>\n"
                ));
            } else {
                let class = if window.fault == HEAL { "heal" } else { "moment" };
                self.push(format_args!(
                    "<line class=\"{class}\" x1=\"{from:.1}\" x2=\"{from:.1}\" y1=\"{top}\" \
                     y2=\"{bottom}\"><title>{hint}</title></line>\n"
                ));
            }
            // A name that finds no room is still in the hint, and in the table of faults.
            let Some(row) = rows_end.iter().position(|end| *end < from) else { continue };
            rows_end[row] = from + 7.0 * window.fault.chars().count() as f64 + 6.0;
            let baseline = top - 6.0 - NAME_ROW_HEIGHT * row as f64;
            self.push(format_args!("<text x=\"{from:.1}\" y=\"{baseline}\">{name}</text>\n"));
        }
    }

    /// Names the outcomes, each with its mark, at the upper right.
    pub(super) fn legend(&mut self, mark: fn(f64, f64, &str) -> String) {
        for (place, class) in ["ok", "info", "fail"].into_iter().enumerate() {
            let x = WIDTH - RIGHT - 250.0 + 85.0 * place as f64;
            let text = match class {
                "info" => "unknown",
                "fail" => "failed",
                _ => "ok",
            };
            let mark = mark(x, 16.0, class);
            let beside = x + 14.0;
            self.push(format_args!("{mark}<text x=\"{beside}\" y=\"20\">{text}</text>\n"));
        }
    }

    /// Adds a part.
    pub(super) fn push(&mut self, part: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.svg.write_fmt(part);
    }

    /// Where a moment stands.
    pub(super) fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.length).clamp(0.0, 1.0)
    }

    /// The picture.
    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

/// Where a share of the upright axis stands.
pub(super) fn y(share: f64) -> f64 {
    TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - share.clamp(0.0, 1.0))
}

/// Four to ten round numbers from 0 to `largest`.
pub(super) fn linear_ticks(largest: f64) -> Vec<Tick> {
    let magnitude = 10_f64.powf((largest / 10.0).log10().ceil());
    let step = [0.1, 0.2, 0.5, 1.0]
        .map(|part| part * magnitude)
        .into_iter()
        .find(|step| largest / step <= 10.0)
        .unwrap_or(magnitude);
    let count = (largest / step).floor() as u32;
    let digits = if step < 1.0 { (-step.log10()).ceil() as usize } else { 0 };
    let tick =
        |n: u32| (f64::from(n) * step / largest, format!("{:.digits$}", f64::from(n) * step));
    (0..=count).map(tick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_and_round() {
        let texts = |largest: f64| -> Vec<String> {
            linear_ticks(largest).into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(texts(40.0), ["0", "5", "10", "15", "20", "25", "30", "35", "40"]);
        assert_eq!(texts(1_700.0).last().map(String::as_str), Some("1600"));
        assert_eq!(texts(0.9).first().map(String::as_str), Some("0.0"));
        for largest in [0.03, 1.0, 7.0, 99.0, 123_456.0] {
            assert!((4..=11).contains(&linear_ticks(largest).len()), "{largest}");
        }
    }
}
