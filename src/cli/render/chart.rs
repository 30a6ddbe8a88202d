//! Line charts as SVG, without scripts: what is drawn, not what it means. Colours are classes of the page around it.

use super::page::escape;
use super::span;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 96.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 26.0;
/// Names of limits stand beside each other, above and below in turn: the limits may be close.
const LIMIT_NAME: f64 = 150.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// Between these, both above 0.
    Log(f64, f64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: String,
    pub class: &'static str,
    /// A value that is not known breaks the line.
    pub points: Vec<(u64, Option<f64>)>,
    /// Stays until the next point.
    pub is_step: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    pub name: String,
    pub class: &'static str,
    pub at: f64,
}

/// A stretch of time with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Band {
    pub from: u64,
    pub until: u64,
    pub name: String,
}

/// A moment with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub at: u64,
    pub name: String,
    pub class: &'static str,
}

/// Times are milliseconds.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    pub from: u64,
    pub until: u64,
    pub scale: Scale,
    /// Text of a value on the axis.
    pub value: fn(f64) -> String,
    pub lines: Vec<Line>,
    pub limits: Vec<Limit>,
    pub bands: Vec<Band>,
    pub marks: Vec<Mark>,
}

impl Chart {
    pub fn svg(&self) -> String {
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\n",
            title = escape(&self.title)
        );
        for (nth, band) in self.bands.iter().enumerate() {
            let (from, until) = (self.x(band.from), self.x(band.until));
            let (width, shade) = (until - from, nth % 2);
            out.push_str(&format!(
                "<rect class=\"band{shade}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
                HEIGHT - TOP - BOTTOM
            ));
            // A name that does not fit would cover its neighbour's.
            if width > 8.0 + 6.5 * band.name.chars().count() as f64 {
                out.push_str(&text((from + until) / 2.0, TOP - 9.0, "middle", "bandname", &band.name));
            }
        }
        self.grid(&mut out);
        for mark in &self.marks {
            let x = self.x(mark.at);
            out.push_str(&format!(
                "<line class=\"mark {class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"><title>{name}</title></line>\
                 <circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{TOP}\" r=\"4\"><title>{name}</title></circle>\n",
                HEIGHT - BOTTOM,
                class = mark.class,
                name = escape(&mark.name)
            ));
        }
        for (nth, limit) in self.limits.iter().filter(|limit| self.holds(limit.at)).enumerate() {
            let y = self.y(limit.at);
            out.push_str(&format!(
                "<line class=\"limit {}\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                limit.class,
                WIDTH - RIGHT
            ));
            let (x, beside) = (LEFT + 6.0 + LIMIT_NAME * nth as f64, if nth % 2 == 1 { 12.0 } else { -4.0 });
            out.push_str(&text(x, y + beside, "start", &format!("limitname {}", limit.class), &limit.name));
        }
        for line in &self.lines {
            out.push_str(&format!("<path class=\"line {}\" d=\"{}\"/>\n", line.class, self.path(line)));
        }
        self.names(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn grid(&self, out: &mut String) {
        for (value, name) in self.ticks() {
            let y = self.y(value);
            out.push_str(&format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                WIDTH - RIGHT
            ));
            out.push_str(&text(LEFT - 8.0, y + 4.0, "end", "axis", &name));
        }
        const PARTS: u64 = 4;
        let all = self.until.saturating_sub(self.from);
        for part in 0..=PARTS {
            let after = all * part / PARTS;
            let name = if after == 0 { "start".into() } else { format!("+{}", span(after)) };
            let anchor = match part {
                0 => "start",
                PARTS => "end",
                _ => "middle",
            };
            out.push_str(&text(self.x(self.from + after), HEIGHT - 8.0, anchor, "axis", &name));
        }
        out.push('\n');
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let values: Vec<f64> = match self.scale {
            Scale::Linear(most) => {
                let step = nice(most / 4.0);
                (0..=(most / step + 1e-9) as u32).map(|nth| f64::from(nth) * step).collect()
            }
            Scale::Log(least, most) => {
                let (low, high) = (least.log10().ceil() as i32, most.log10().floor() as i32);
                let apart = ((high - low) / 5).max(1);
                (low..=high).filter(|power| (power - low) % apart == 0).map(|power| 10_f64.powi(power)).collect()
            }
        };
        values.into_iter().map(|value| (value, (self.value)(value))).collect()
    }

    /// At the right end of each line, moved apart where they would overlap.
    fn names(&self, out: &mut String) {
        let last = |line: &Line| line.points.iter().rev().find_map(|(_, value)| *value);
        let mut ends: Vec<(f64, &Line)> =
            self.lines.iter().filter_map(|line| Some((self.y(last(line)?), line))).collect();
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut free = TOP;
        for (y, line) in ends {
            let y = y.max(free);
            free = y + 14.0;
            let class = format!("name {}", line.class);
            out.push_str(&text(WIDTH - RIGHT + 8.0, y + 4.0, "start", &class, &line.name));
        }
    }

    fn path(&self, line: &Line) -> String {
        let mut path = String::new();
        let mut before: Option<f64> = None;
        for (at, value) in &line.points {
            let Some(value) = value.filter(|value| value.is_finite()) else {
                before = None;
                continue;
            };
            let (x, y) = (self.x(*at), self.y(value));
            match before {
                None => path.push_str(&format!("M{x:.1} {y:.1}")),
                Some(_) if line.is_step => path.push_str(&format!("H{x:.1}V{y:.1}")),
                Some(_) => path.push_str(&format!("L{x:.1} {y:.1}")),
            }
            before = Some(y);
        }
        if let (true, Some(_)) = (line.is_step, before) {
            path.push_str(&format!("H{:.1}", self.x(self.until)));
        }
        path
    }

    fn x(&self, at: u64) -> f64 {
        let all = self.until.saturating_sub(self.from).max(1);
        let part = at.clamp(self.from, self.until.max(self.from)) - self.from;
        LEFT + (WIDTH - LEFT - RIGHT) * part as f64 / all as f64
    }

    fn y(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear(most) => value / most,
            Scale::Log(least, most) => (value.max(least) / least).ln() / (most / least).ln(),
        };
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part.clamp(0.0, 1.0)
    }

    fn holds(&self, value: f64) -> bool {
        match self.scale {
            Scale::Linear(most) => value <= most,
            Scale::Log(least, most) => (least..=most).contains(&value),
        }
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
pub fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    power * steps.into_iter().find(|step| value <= step * power * (1.0 + 1e-9)).unwrap_or(10.0)
}

fn text(x: f64, y: f64, anchor: &str, class: &str, text: &str) -> String {
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, points: Vec<(u64, Option<f64>)>) -> Chart {
        Chart {
            title: "failures <of> both".into(),
            from: 1_000,
            until: 5_000,
            scale,
            value: |value| format!("{value}"),
            lines: vec![Line { name: "v2".into(), class: "canary", points, is_step: false }],
            limits: Vec::new(),
            bands: Vec::new(),
            marks: Vec::new(),
        }
    }

    fn path(svg: &str) -> &str {
        svg.split(" d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a path")
    }

    #[test]
    fn the_line_goes_from_corner_to_corner_and_breaks_where_nothing_is_known() {
        let svg = chart(
            Scale::Linear(10.0),
            vec![(1_000, Some(0.0)), (2_000, None), (3_000, Some(5.0)), (5_000, Some(10.0))],
        )
        .svg();
        assert_eq!(path(&svg), "M64.0 204.0M414.0 115.0L764.0 26.0");
    }

    #[test]
    fn on_a_log_axis_each_power_is_as_far_as_the_next() {
        let svg =
            chart(Scale::Log(1.0, 100.0), vec![(1_000, Some(0.0)), (3_000, Some(10.0)), (5_000, Some(1e9))]).svg();
        assert_eq!(path(&svg), "M64.0 204.0L414.0 115.0L764.0 26.0");
    }

    #[test]
    fn a_story_of_one_moment_is_drawn_too() {
        let mut chart = chart(Scale::Linear(1.0), vec![(1_000, Some(f64::NAN)), (1_000, Some(1.0))]);
        chart.until = 1_000;
        assert_eq!(path(&chart.svg()), "M64.0 26.0");
    }

    #[test]
    fn steps_are_round() {
        for (value, step) in [(0.0, 1.0), (0.9, 1.0), (1.1, 2.0), (2.1, 2.5), (0.003, 0.005), (70.0, 100.0)] {
            assert!((nice(value) - step).abs() < 1e-12, "{value}: {}", nice(value));
        }
    }

    #[test]
    fn names_from_outside_are_text() {
        let mut chart = chart(Scale::Linear(1.0), vec![(1_000, Some(1.0))]);
        chart.marks.push(Mark { at: 2_000, name: "</title><script>".into(), class: "bad" });
        let svg = chart.svg();
        assert!(svg.contains("failures &lt;of&gt; both") && !svg.contains("<script"), "{svg}");
    }
}
