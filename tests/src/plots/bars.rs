//! Horizontal bars: what is compared stands one below the other, with its number at the end.

use super::svg::{Anchor, COLOURS, OTHERS, Svg, WIDTH, text_width};
use std::collections::{BTreeMap, BTreeSet};

/// One engine.
pub struct Bar {
    /// Its name.
    pub label: String,
    /// Ours, or another's.
    pub ours: bool,
    /// A bar for each member of the series.
    pub values: BTreeMap<usize, f64>,
}

/// A picture of bars.
pub struct Bars<'a> {
    /// What is measured, and its unit.
    pub title: &'a str,
    /// On what.
    pub on: &'a str,
    /// What the series counts, where there is more than one bar each.
    pub series: Option<&'a str>,
    /// The engines from the top.
    pub bars: &'a [Bar],
    /// Digits after the point.
    pub digits: usize,
}

const HEIGHT: f64 = 15.0;
const BETWEEN: f64 = 11.0;

impl Bars<'_> {
    /// The file.
    pub fn svg(&self) -> String {
        let mut svg = Svg::new();
        let mut y = svg.heading(self.title, self.on);
        let series: BTreeSet<usize> = self.bars.iter().flat_map(|bar| bar.values.keys().copied()).collect();
        // The more of what is counted, the stronger.
        let rank = |member: usize| series.range(..member).count();
        let opacity =
            |member: usize| 1.0 - 0.55 * (series.len() - 1 - rank(member)) as f64 / series.len() as f64;
        let label = |bar: &Bar| text_width(&bar.label);
        let left = 26.0 + self.bars.iter().map(label).fold(0.0, f64::max).min(WIDTH / 2.0);
        let most = self.bars.iter().flat_map(|bar| bar.values.values()).copied().fold(0.0, f64::max);
        let room = WIDTH - left - 190.0;
        for bar in self.bars {
            let colour = if bar.ours { COLOURS[0] } else { OTHERS };
            let middle = y + bar.values.len() as f64 * HEIGHT / 2.0 + 4.5;
            svg.text(left - 10.0, middle, Anchor::End, bar.ours, &bar.label);
            for (&member, &value) in &bar.values {
                let length = (value / most * room).max(1.0);
                svg.rect([left, y, length, HEIGHT - 2.0], colour, opacity(member));
                let mut text = format!("{value:.*}", self.digits);
                if let Some(what) = self.series {
                    let plural = if member == 1 { "" } else { "s" };
                    text += &format!(", {member} {what}{plural}");
                }
                svg.text(left + length + 6.0, y + 11.5, Anchor::Start, bar.ours, &text);
                y += HEIGHT;
            }
            y += BETWEEN;
        }
        svg.finish(&format!("{}: {}", self.title, self.on), y + 6.0)
    }
}
