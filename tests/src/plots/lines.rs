//! Lines over a few places of the horizontal axis, as far apart from one another.

use super::svg::{Anchor, COLOURS, INK, Svg, WIDTH, steps};
use std::collections::{BTreeMap, BTreeSet};

/// One line.
pub struct Line {
    /// What it is.
    pub label: String,
    /// A limit, no measurement of an engine.
    pub limit: bool,
    /// By place on the horizontal axis.
    pub values: BTreeMap<usize, f64>,
}

/// A picture of lines.
pub struct Lines<'a> {
    /// What is measured, and its unit.
    pub title: &'a str,
    /// On what.
    pub on: &'a str,
    /// What the horizontal axis counts.
    pub axis: &'a str,
    /// The lines.
    pub lines: &'a [Line],
}

const LEFT: f64 = 64.0;
const RIGHT: f64 = 40.0;
const HEIGHT: f64 = 320.0;
/// What a number takes beside its point.
const ROOM: f64 = 26.0;
/// Baselines of numbers one below the other.
const APART: f64 = 14.0;

/// Where the numbers of points at these heights, from the top, stand: above their points, or below where another is
/// right above, and apart from one another.
fn baselines(heights: &[f64]) -> Vec<f64> {
    let crowded = |a: Option<&f64>, b: f64| a.is_some_and(|a| (a - b).abs() < ROOM);
    let mut baselines: Vec<f64> = Vec::new();
    for (i, &y) in heights.iter().enumerate() {
        let above = i.checked_sub(1).and_then(|i| heights.get(i));
        let below = crowded(above, y) && !crowded(heights.get(i + 1), y);
        baselines.push(if below { y + 18.0 } else { y - 9.0 });
    }
    for i in (1..baselines.len()).rev() {
        baselines[i - 1] = baselines[i - 1].min(baselines[i] - APART);
    }
    baselines
}

impl Lines<'_> {
    /// The file.
    pub fn svg(&self) -> String {
        let mut svg = Svg::new();
        let mut top = svg.heading(self.title, self.on);
        top += 10.0;
        let mut solid = 0;
        let colours: Vec<&'static str> = self
            .lines
            .iter()
            .map(|line| match line.limit {
                true => INK,
                false => {
                    solid += 1;
                    COLOURS[(solid - 1) % COLOURS.len()]
                }
            })
            .collect();
        for (line, colour) in self.lines.iter().zip(&colours) {
            svg.line(&[(LEFT, top - 4.5), (LEFT + 28.0, top - 4.5)], colour, 2.5, line.limit);
            svg.text(LEFT + 36.0, top, Anchor::Start, false, &line.label);
            top += 20.0;
        }
        top += 10.0;
        let bottom = top + HEIGHT;
        let most = self.lines.iter().flat_map(|line| line.values.values()).copied().fold(0.0, f64::max);
        let (step, count) = steps(most);
        let y = |value: f64| bottom - value / (step * count as f64) * HEIGHT;
        for i in 0..=count {
            let value = step * i as f64;
            svg.line(
                &[(LEFT, y(value)), (WIDTH - RIGHT, y(value))],
                INK,
                if i == 0 { 1.0 } else { 0.3 },
                false,
            );
            let digits = if step < 1.0 { 2 } else { 0 };
            svg.text(LEFT - 8.0, y(value) + 4.5, Anchor::End, false, &format!("{value:.digits$}"));
        }
        let places: BTreeSet<usize> =
            self.lines.iter().flat_map(|line| line.values.keys().copied()).collect();
        let inset = 30.0;
        let apart = (WIDTH - LEFT - RIGHT - 2.0 * inset) / (places.len().max(2) - 1) as f64;
        let x = |place: usize| LEFT + inset + apart * places.range(..place).count() as f64;
        for &place in &places {
            svg.text(x(place), bottom + 20.0, Anchor::Middle, false, &place.to_string());
        }
        svg.text((LEFT + WIDTH - RIGHT) / 2.0, bottom + 42.0, Anchor::Middle, false, self.axis);
        for (line, colour) in self.lines.iter().zip(&colours) {
            let points: Vec<(f64, f64)> = line.values.iter().map(|(&p, &v)| (x(p), y(v))).collect();
            svg.line(&points, colour, 2.5, line.limit);
            if !line.limit {
                points.iter().for_each(|(x, y)| svg.dot(*x, *y, colour));
            }
        }
        for &place in &places {
            let at = |(line, colour): (&Line, &&'static str)| {
                Some((y(*line.values.get(&place)?), *colour, line.values[&place]))
            };
            let mut points: Vec<_> = self.lines.iter().zip(&colours).filter_map(at).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let heights: Vec<f64> = points.iter().map(|point| point.0).collect();
            for (baseline, (_, colour, value)) in baselines(&heights).into_iter().zip(points) {
                svg.coloured_text(x(place), baseline, colour, &format!("{value:.1}"));
            }
        }
        svg.finish(&format!("{}: {}", self.title, self.on), bottom + 56.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_cover_one_another() {
        for heights in
            [&[100.0, 101.0][..], &[100.0, 110.0, 120.0, 130.0], &[50.0, 50.0, 50.0], &[10.0, 200.0], &[]]
        {
            let baselines = baselines(heights);
            assert_eq!(baselines.len(), heights.len());
            assert!(baselines.windows(2).all(|w| w[1] - w[0] >= APART), "{heights:?}: {baselines:?}");
        }
        assert_eq!(baselines(&[100.0, 200.0]), [91.0, 191.0]);
        assert_eq!(baselines(&[100.0, 110.0]), [91.0, 128.0]);
    }
}
