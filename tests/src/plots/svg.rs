//! The few elements of SVG that the pictures consist of.
//!
//! No background, no fonts of its own, and colours of middling lightness, so that a picture reads on white and on black.

use std::fmt::Write;

/// Text, axes and grid.
pub const INK: &str = "#7a7a7a";
/// Series, the first for what there is only one of.
pub const COLOURS: [&str; 6] = ["#2f81f7", "#c2571a", "#1f9d6b", "#a05cd6", "#c23b6e", "#8a7a12"];
/// Other engines.
pub const OTHERS: &str = "#909090";
/// Width of a picture in pixels.
pub const WIDTH: f64 = 760.0;

/// Where a text stands beside its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// To the right of it.
    Start,
    /// Around it.
    Middle,
    /// To the left of it.
    End,
}

/// A picture in the making.
pub struct Svg {
    body: String,
}

impl Svg {
    /// An empty picture.
    pub fn new() -> Svg {
        Svg { body: String::new() }
    }

    /// A filled rectangle.
    pub fn rect(&mut self, [x, y, width, height]: [f64; 4], colour: &str, opacity: f64) {
        let (x, y, width, height) = (number(x), number(y), number(width), number(height));
        let _ = writeln!(
            self.body,
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="2" fill="{colour}" fill-opacity="{}"/>"#,
            number(opacity)
        );
    }

    /// A line through points; `dashed` for what is no measurement.
    pub fn line(&mut self, points: &[(f64, f64)], colour: &str, width: f64, dashed: bool) {
        let points: Vec<String> =
            points.iter().map(|(x, y)| format!("{},{}", number(*x), number(*y))).collect();
        let dash = if dashed { r#" stroke-dasharray="6 4""# } else { "" };
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{}"{dash}/>"#,
            points.join(" "),
            number(width)
        );
    }

    /// A dot.
    pub fn dot(&mut self, x: f64, y: f64, colour: &str) {
        let _ =
            writeln!(self.body, r#"<circle cx="{}" cy="{}" r="3.5" fill="{colour}"/>"#, number(x), number(y));
    }

    /// Text on one line, its baseline at `y`.
    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, bold: bool, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if bold { r#" font-weight="bold""# } else { "" };
        let _ = writeln!(
            self.body,
            r#"<text x="{}" y="{}" text-anchor="{anchor}"{weight}>{}</text>"#,
            number(x),
            number(y),
            escape(text)
        );
    }

    /// A number beside its point, of the same colour.
    pub fn coloured_text(&mut self, x: f64, y: f64, colour: &str, text: &str) {
        let (x, y, text) = (number(x), number(y), escape(text));
        let _ = writeln!(
            self.body,
            r#"<text x="{x}" y="{y}" text-anchor="middle" fill="{colour}">{text}</text>"#
        );
    }

    /// Title and a line on what was measured, from the top; gives the height they take.
    pub fn heading(&mut self, title: &str, on: &str) -> f64 {
        self.text(16.0, 26.0, Anchor::Start, true, title);
        self.text(16.0, 46.0, Anchor::Start, false, on);
        64.0
    }

    /// The file.
    pub fn finish(self, title: &str, height: f64) -> String {
        let (width, height, title) = (number(WIDTH), number(height), escape(title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" font-family=\"sans-serif\" font-size=\"13\" fill=\"{INK}\">\n\
             <title>{title}</title>\n{}</svg>\n",
            self.body
        )
    }
}

/// Pixels that a text of this size takes at most, whatever the font.
pub fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * 7.4
}

/// With at most two digits after the point.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A round step and how many of them reach `most`: at most six.
pub fn steps(most: f64) -> (f64, usize) {
    let power = 10f64.powf((most / 6.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| most / step <= 6.0);
    let step = step.unwrap_or(power * 10.0);
    (step, (most / step).ceil().max(1.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_reach_the_most() {
        for most in [0.3, 1.0, 5.9, 6.0, 6.1, 42.0, 99.9, 100.0, 1735.0] {
            let (step, count) = steps(most);
            assert!(
                (1..=6).contains(&count) && step * count as f64 >= most * 0.999_999,
                "{most}: {step} {count}"
            );
        }
        assert_eq!(steps(42.0), (10.0, 5));
    }

    #[test]
    fn names_cannot_break_out_of_the_text() {
        let mut svg = Svg::new();
        svg.text(0.0, 0.0, Anchor::Start, false, "<script>\"&");
        let svg = svg.finish("a<b", 10.0);
        assert!(svg.contains("&lt;script&gt;&quot;&amp;") && svg.contains("<title>a&lt;b</title>"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([1.0, 0.5, 10.0, 2.6789].map(number), ["1", "0.5", "10", "2.68"]);
    }
}
