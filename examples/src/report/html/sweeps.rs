//! Results by the value of a parameter: charts over it, and a table.

use maud::{Markup, html};

use super::figures::figure;
use super::plain;
use crate::number::{fixed, significant};
use crate::report::chart::{self, Line, Stroke, is_drawable};
use crate::report::palette::Role;
use crate::report::{Sweep, SweepRow};

/// The colours of the columns of one chart: as many as can be told apart.
const ROLES: [Role; 4] = [Role::First, Role::Second, Role::Positive, Role::Negative];

/// All sweeps that have results.
pub(super) fn sweeps(sweeps: &[Sweep]) -> Markup {
    let sweeps: Vec<&Sweep> = sweeps
        .iter()
        .filter(|sweep| !sweep.columns.is_empty() && !sweep.rows.is_empty())
        .collect();
    html! {
        @if !sweeps.is_empty() {
            section aria-labelledby="sweeps" {
                h2 #sweeps { "Sweeps" }
                p.lead { "Results of runs that differ in a parameter." }
                @for (place, sweep) in (1..).zip(sweeps) { (one(place, sweep)) }
            }
        }
    }
}

fn one(place: usize, sweep: &Sweep) -> Markup {
    let id = format!("sweep-{place}");
    let charts = of_one_scale(sweep);
    let charts = charts.iter().filter_map(|columns| chart(sweep, columns));
    let charts: Vec<Markup> = charts.collect();
    let has_several = sweep.rows.iter().any(|row| !row.runs.is_empty());
    html! {
        h3 id=(id) { (sweep.title) }
        @if has_several {
            p.lead {
                "Means of runs that differ in their seeds, ± the standard deviation of the runs "
                "(of a sample), and in brackets s.e., the standard error of the mean. The median "
                "is by " (sweep.columns.last().map_or("", String::as_str)) "."
            }
        }
        div.figures {
            @for chart in charts { (chart) }
            @if !has_several { (table(&id, sweep)) }
        }
        @if has_several { (table(&id, sweep)) }
    }
}

/// Neighbouring columns that one axis can show: recalls, but not their sum beside them.
fn of_one_scale(sweep: &Sweep) -> Vec<Vec<usize>> {
    let rows = || sweep.rows.iter().chain(&sweep.baseline);
    let largest = |column| {
        let numbers = rows().map(|row| number(row, column).abs());
        numbers
            .filter(|&number| is_drawable(number))
            .fold(0.0, f64::max)
    };
    let mut groups: Vec<(f64, Vec<usize>)> = Vec::new();
    for column in 0..sweep.columns.len() {
        let scale = largest(column);
        match groups.last_mut() {
            Some((first, group))
                if group.len() < ROLES.len() && scale <= 4.0 * *first && *first <= 4.0 * scale =>
            {
                group.push(column);
            }
            _ => groups.push((scale, vec![column])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Where the rows of a sweep stand in its chart: at their numbers, or one after the other under
/// their names.
struct Places<'a> {
    rows: Vec<(f64, &'a SweepRow)>,
    names: Option<Vec<&'a str>>,
}

impl<'a> Places<'a> {
    /// `None` without at least two places.
    fn of(sweep: &'a Sweep) -> Option<Self> {
        let numeric = |row: &'a SweepRow| Some((row.numeric.filter(|&at| is_drawable(at))?, row));
        let mut rows: Vec<(f64, &SweepRow)> = sweep.rows.iter().filter_map(numeric).collect();
        rows.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut names = None;
        if rows.is_empty() {
            rows = (0..).map(f64::from).zip(&sweep.rows).collect();
            names = Some(sweep.rows.iter().map(|row| row.value.as_str()).collect());
        }
        (rows.first()?.0 < rows.last()?.0).then_some(Self { rows, names })
    }

    /// From the first to the last.
    fn ends(&self) -> [(f64, &SweepRow); 2] {
        [self.rows[0], self.rows[self.rows.len() - 1]]
    }

    fn drawn(&self, parameter: &str, lines: &[Line]) -> Option<String> {
        match &self.names {
            Some(names) => chart::over_names(parameter, names, lines),
            None => chart::lines_over(parameter, lines),
        }
    }
}

/// These columns over the parameter; `None` without at least two places of it.
fn chart(sweep: &Sweep, columns: &[usize]) -> Option<Markup> {
    let places = Places::of(sweep)?;
    let [first, last] = places.ends();
    let mut lines = Vec::new();
    let mut legend = Vec::new();
    let mut description = format!(
        "Over {} from {} to {}.",
        sweep.parameter, first.1.value, last.1.value
    );
    for (&column, role) in columns.iter().zip(ROLES) {
        let name = &sweep.columns[column];
        let of_baseline = sweep.baseline.as_ref().map(|row| number(row, column));
        if let Some(value) = of_baseline {
            lines.push(Line {
                role,
                stroke: Stroke::Dashed,
                points: vec![(first.0, value), (last.0, value)],
            });
        }
        legend.push((role, name.as_str()));
        description += &described(name, &places, column, of_baseline);
        let points = places
            .rows
            .iter()
            .map(|(at, row)| (*at, number(row, column)));
        lines.push(Line {
            role,
            stroke: match places.names {
                Some(_) => Stroke::Dots,
                None => Stroke::Dotted,
            },
            points: points.collect(),
        });
        lines.extend(places.rows.iter().filter_map(|(at, row)| {
            let (mean, deviation) = (number(row, column), row.deviation(column)?);
            Some(Line {
                role,
                stroke: Stroke::Faint,
                points: vec![(*at, mean - deviation), (*at, mean + deviation)],
            })
        }));
    }
    let svg = places.drawn(&sweep.parameter, &lines)?;
    let caption = html! {
        @if let Some(baseline) = &sweep.baseline { "Dashed: " (baseline.value) "." }
    };
    let title = format!("By {}", sweep.parameter);
    Some(figure(&title, &legend, &svg, &description, caption))
}

/// In words: where a column starts and ends, and what it is compared with.
fn described(name: &str, places: &Places, column: usize, of_baseline: Option<f64>) -> String {
    let [first, last] = places
        .ends()
        .map(|(_, row)| significant(number(row, column)));
    let beside = of_baseline.map(|value| format!(", dashed {}", significant(value)));
    format!(
        " {name}: from {first} to {last}{}.",
        beside.unwrap_or_default()
    )
}

fn number(row: &SweepRow, column: usize) -> f64 {
    row.numbers.get(column).copied().unwrap_or(f64::NAN)
}

fn table(id: &str, sweep: &Sweep) -> Markup {
    let rows = || sweep.rows.iter().chain(&sweep.baseline);
    let formats: Vec<Format> = (0..sweep.columns.len())
        .map(|column| {
            let spread = rows().flat_map(move |row| {
                let both = [row.deviation(column), row.standard_error(column)];
                both.into_iter().flatten()
            });
            Format::of(rows().map(|row| number(row, column)).chain(spread))
        })
        .collect();
    let has_median = rows().any(|row| row.median().is_some());
    let cells = |row: &SweepRow| {
        html! {
            th scope="row" { (row.value) }
            @for (column, format) in formats.iter().enumerate() {
                td {
                    (format.show(number(row, column)))
                    @if let Some(deviation) = row.deviation(column) {
                        " ± " (format.show(deviation))
                    }
                    @if let Some(error) = row.standard_error(column) {
                        " (s.e. " (format.show(error)) ")"
                    }
                }
            }
            @if has_median { td { (row.median().map_or("–", |run| run.name.as_str())) } }
        }
    };
    html! {
        div.scroll tabindex="0" role="region" aria-labelledby=(id) {
            table.dense.sweep {
                thead { tr {
                    th scope="col" { (sweep.parameter) }
                    @for column in &sweep.columns { th scope="col" { (column) } }
                    @if has_median { th scope="col" { "median run" } }
                } }
                tbody {
                    @for row in &sweep.rows { tr { (cells(row)) } }
                    @if let Some(baseline) = &sweep.baseline { tr.total { (cells(baseline)) } }
                }
            }
        }
    }
}

/// How the numbers of a column are written, so that they compare.
struct Format {
    decimals: usize,
}

impl Format {
    /// Whole numbers as such, others with four digits of the largest.
    fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let (mut largest, mut all_whole) = (0.0_f64, true);
        for number in numbers.filter(|number| number.is_finite()) {
            largest = largest.max(number.abs());
            all_whole &= number.fract() == 0.0;
        }
        let decimals = if all_whole || largest == 0.0 {
            0.0
        } else {
            (3.0 - largest.log10().floor()).clamp(0.0, 6.0)
        };
        Self {
            decimals: decimals as usize,
        }
    }

    fn show(&self, number: f64) -> String {
        let lost = number != 0.0 && number.abs() < 0.5 * 10_f64.powi(-(self.decimals as i32));
        if lost {
            plain(number)
        } else {
            fixed(number, self.decimals)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(numbers: &[f64]) -> Vec<String> {
        let format = Format::of(numbers.iter().copied());
        numbers.iter().map(|&number| format.show(number)).collect()
    }

    #[test]
    fn numbers_of_a_column_have_the_same_decimals() {
        assert_eq!(shown(&[70.0, 3.25, f64::NAN]), ["70.00", "3.25", "–"]);
        assert_eq!(shown(&[0.25, 0.0]), ["0.2500", "0.0000"]);
        assert_eq!(shown(&[12_000.0, 3.0]), ["12,000", "3"]);
        assert_eq!(shown(&[12_000.7, 3.0]), ["12,001", "3"]);
    }

    #[test]
    fn a_small_number_is_not_shown_as_nothing() {
        assert_eq!(shown(&[55.5, 0.00012]), ["55.50", "0.0001200"]);
    }
}
