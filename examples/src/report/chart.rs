//! Charts as SVG, for inlining into the page. Text is left to the browser: no font is needed to
//! draw.

use std::ops::Range;

use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::palette::Role;
use crate::number;

/// The backend counts in whole units: drawing larger, and letting the page shrink it, gives smooth
/// lines.
const UNIT: u32 = 4;
const WIDTH: u32 = 480 * UNIT;
const HEIGHT: u32 = 270 * UNIT;
/// Ticks of an axis at most.
const TICKS: usize = 6;
/// Values beyond are left out: differences of such would not be finite.
const LARGEST: f64 = 1e100;

/// One line of a chart.
#[derive(Clone)]
pub(crate) struct Line {
    pub role: Role,
    pub stroke: Stroke,
    /// By increasing x; a y that is not finite is a gap.
    pub points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stroke {
    Strong,
    /// Thin and pale: the background of a stronger one.
    Faint,
    /// Strong, with a dot at each point: for few points.
    Dotted,
    /// Only dots: for points in no order.
    Dots,
    /// What others are compared with.
    Dashed,
}

/// What an axis shows.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    /// From zero, or lower if a value is.
    FromZero,
    /// From the smallest to the largest value.
    Fit,
}

impl Extent {
    fn of(self, values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
        let range = range(values)?;
        Some(widened(match self {
            Self::FromZero => range.start.min(0.0)..range.end.max(0.0),
            Self::Fit => range,
        }))
    }
}

/// Whether a value can be drawn.
pub(crate) fn is_drawable(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// Draws lines over the optimisation steps, from none; `None` if there is nothing to draw.
pub(crate) fn lines(lines: &[Line], extent: Extent) -> Option<String> {
    let points = || drawable(lines);
    let x = Extent::FromZero.of(points().map(|point| point.0))?;
    let y = aired(extent.of(points().map(|point| point.1))?);
    Some(drawn("step", x, y, lines))
}

/// Draws lines over any quantity, as large as fits; `None` if there is nothing to draw.
pub(crate) fn lines_over(quantity: &str, lines: &[Line]) -> Option<String> {
    let points = || drawable(lines);
    let x = aired(Extent::Fit.of(points().map(|point| point.0))?);
    let y = aired(Extent::Fit.of(points().map(|point| point.1))?);
    Some(drawn(quantity, x, y, lines))
}

/// Draws lines over things with names, of which the first is at 0, the next at 1; `None` if there
/// is nothing to draw. Names that are too long for their place are cut.
pub(crate) fn over_names(quantity: &str, names: &[&str], lines: &[Line]) -> Option<String> {
    let y = aired(Extent::Fit.of(drawable(lines).map(|point| point.1))?);
    let x = -0.5..names.len() as f64 - 0.5;
    let room = (WIDTH / UNIT - 60) as usize / names.len().max(1);
    let label = |&at: &f64| {
        let is_name = (at - at.round()).abs() < 1e-6 && at > -0.5;
        let name = names.get(at.round() as usize).filter(|_| is_name);
        name.map_or(String::new(), |name| fitting(name, room))
    };
    let mut svg = String::new();
    let x_axis = XAxis {
        range: x,
        name: quantity,
        label: &label,
        ticks: Some(2 * names.len()),
    };
    draw(&mut svg, x_axis, y, |chart| series(chart, lines));
    Some(svg)
}

/// As much of a name as is that wide at most.
fn fitting(name: &str, room: usize) -> String {
    let most = (room / 8).max(1);
    if name.chars().count() <= most {
        return name.to_string();
    }
    let cut: String = name.chars().take(most - 1).collect();
    cut + "…"
}

fn is_drawable_point(&(x, y): &(f64, f64)) -> bool {
    is_drawable(x) && is_drawable(y)
}

fn drawable(lines: &[Line]) -> impl Iterator<Item = &(f64, f64)> {
    lines
        .iter()
        .flat_map(|line| line.points.iter().filter(|point| is_drawable_point(point)))
}

fn drawn(x_name: &str, x: Range<f64>, y: Range<f64>, lines: &[Line]) -> String {
    let mut svg = String::new();
    let label = |value: &f64| number::tick(*value, x.start, x.end);
    let x_axis = XAxis::of(x.clone(), x_name, &label);
    draw(&mut svg, x_axis, y, |chart| series(chart, lines));
    svg
}

fn series<'a>(chart: &mut Drawing<'a>, lines: &[Line]) -> Drawn<'a> {
    for line in lines {
        let faint = line.stroke == Stroke::Faint;
        let (opacity, width) = if faint { (0.45, 1) } else { (1.0, 2) };
        let style = ShapeStyle {
            color: line.role.colour().mix(opacity),
            filled: true,
            stroke_width: width * UNIT,
        };
        let dot = |&point: &(f64, f64)| Circle::new(point, (width + 1) * UNIT, style);
        for piece in line.points.split(|point| !is_drawable_point(point)) {
            if matches!(line.stroke, Stroke::Dotted | Stroke::Dots) || piece.len() == 1 {
                chart.draw_series(piece.iter().map(dot))?;
            }
            if piece.len() < 2 || line.stroke == Stroke::Dots {
                continue;
            }
            if line.stroke == Stroke::Dashed {
                let (dash, gap) = (7 * UNIT, 5 * UNIT);
                let dashes = DashedPathElement::new(piece.to_vec(), dash, gap, style);
                chart.draw_series([dashes])?;
            } else {
                chart.draw_series([PathElement::new(piece, style)])?;
            }
        }
    }
    Ok(())
}

/// With some room above and, unless it begins at zero, below.
fn aired(range: Range<f64>) -> Range<f64> {
    let air = 0.05 * (range.end - range.start);
    let below = if range.start == 0.0 { 0.0 } else { air };
    (range.start - below)..(range.end + air)
}

/// One distribution of a chart of [`densities`].
pub(crate) struct Density {
    pub role: Role,
    /// Height of each bin.
    pub heights: Vec<f64>,
    /// Marked by an upright line where finite.
    pub mean: f64,
}

/// Draws distributions of a quantity over `bounds` in equal bins, of which the page shows `window`.
pub(crate) fn densities(
    quantity: &str,
    densities: &[Density],
    bounds: Range<f64>,
    window: Range<f64>,
    highest: f64,
) -> String {
    let mut svg = String::new();
    let top = widened(0.0..highest * 1.05);
    let label = |value: &f64| number::tick(*value, window.start, window.end);
    let x_axis = XAxis::of(window.clone(), quantity, &label);
    draw(&mut svg, x_axis, top.clone(), |chart| {
        for density in densities {
            let colour = density.role.colour();
            let outline = outline(&density.heights, &bounds, &window);
            chart.draw_series([Polygon::new(outline.clone(), colour.mix(0.22).filled())])?;
            let stroke = colour.stroke_width(UNIT * 3 / 2);
            chart.draw_series([PathElement::new(outline, stroke)])?;
            if window.contains(&density.mean) {
                let mark = [(density.mean, top.start), (density.mean, top.end)];
                chart.draw_series([PathElement::new(mark, colour.stroke_width(UNIT))])?;
            }
        }
        Ok(())
    });
    svg
}

/// The upper edge of the bins, from the base line and back to it, without the bins outside the
/// window.
fn outline(heights: &[f64], bounds: &Range<f64>, window: &Range<f64>) -> Vec<(f64, f64)> {
    let width = (bounds.end - bounds.start) / heights.len().max(1) as f64;
    let mut points = vec![(window.start, 0.0)];
    for (bin, &height) in heights.iter().enumerate() {
        let left = bounds.start + bin as f64 * width;
        let (left, right) = (left.max(window.start), (left + width).min(window.end));
        if left < right {
            points.extend([(left, height), (right, height)]);
        }
    }
    points.push((window.end, 0.0));
    points
}

type Drawing<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// The axis along the bottom.
struct XAxis<'a> {
    range: Range<f64>,
    name: &'a str,
    label: &'a dyn Fn(&f64) -> String,
    /// Ticks at most; `None` for as many as have room.
    ticks: Option<usize>,
}

impl<'a> XAxis<'a> {
    fn of(range: Range<f64>, name: &'a str, label: &'a dyn Fn(&f64) -> String) -> Self {
        Self {
            range,
            name,
            label,
            ticks: None,
        }
    }
}

/// Draws axes and grid, then `content`.
fn draw<'a>(
    svg: &'a mut String,
    x: XAxis,
    y: Range<f64>,
    content: impl FnOnce(&mut Drawing<'a>) -> Drawn<'a>,
) {
    let left = (widest(&y, TICKS) + 10).max(50);
    let (fitting, right) = (2..=TICKS)
        .rev()
        .map(|most| (most, widest(&x.range, most)))
        .find(|(most, width)| (width + 6) * *most as u32 <= WIDTH / UNIT - left)
        .map_or((2, 0), |(most, width)| (most, width / 2 + 2));
    let drawn = (|| {
        let area = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin_top(10 * UNIT)
            .margin_right(right.max(16) * UNIT)
            .x_label_area_size(42 * UNIT)
            .y_label_area_size(left * UNIT)
            .build_cartesian_2d(x.range.clone(), y.clone())?;
        // The backend writes the size divided by 1.24.
        let text = ("sans-serif", f64::from(13 * UNIT) * 1.24)
            .into_font()
            .color(&Role::Text.colour());
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Role::Grid.colour().stroke_width(UNIT))
            .axis_style(Role::Axis.colour().stroke_width(UNIT))
            .set_all_tick_mark_size(4 * UNIT)
            .x_labels(x.ticks.unwrap_or(fitting))
            .y_labels(TICKS)
            .x_label_formatter(&x.label)
            .y_label_formatter(&|&value| number::tick(value, y.start, y.end))
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_desc(x.name)
            .draw()?;
        content(&mut chart)?;
        area.present()
    })();
    drawn.expect("drawing into a string does not fail");
}

/// Width of the widest label of an axis with at most so many ticks, in units. The page decides on
/// the font and enlarges it on narrow screens, so that this is an estimate for a wide font.
fn widest(range: &Range<f64>, most: usize) -> u32 {
    let ticks = RangedCoordf64::from(range.clone()).key_points(most);
    let width = |&value: &f64| width(&number::tick(value, range.start, range.end));
    ticks.iter().map(width).max().unwrap_or(0)
}

fn width(label: &str) -> u32 {
    let width = |letter| {
        if matches!(letter, '.' | ',' | '-') {
            6
        } else {
            10
        }
    };
    label.chars().map(width).sum()
}

/// The smallest and the largest value; `None` without any.
fn range(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    values
        .map(|value| value..value)
        .reduce(|all, one| all.start.min(one.start)..all.end.max(one.end))
}

/// A range that an axis can divide: wide enough for its magnitude.
fn widened(range: Range<f64>) -> Range<f64> {
    let middle = 0.5 * range.start + 0.5 * range.end;
    let least = (1e-6 * middle.abs()).max(1e-12);
    if range.end - range.start >= least {
        return range;
    }
    let half = if middle == 0.0 {
        0.5
    } else {
        0.05 * middle.abs().max(1e-9)
    };
    (middle - half)..(middle + half)
}

#[cfg(test)]
mod tests;
