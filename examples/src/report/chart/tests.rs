use super::*;

fn line(points: &[(f64, f64)]) -> Line {
    Line {
        role: Role::First,
        stroke: Stroke::Strong,
        points: points.to_vec(),
    }
}

fn shapes(svg: &str, tag: &str) -> usize {
    svg.matches(&format!("<{tag} ")).count()
}

#[test]
fn nothing_to_draw_is_no_chart() {
    let gap = [(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 1e300)];
    assert!(lines(&[], Extent::FromZero).is_none());
    assert!(lines(&[line(&[])], Extent::Fit).is_none());
    assert!(lines(&[line(&gap)], Extent::Fit).is_none());
}

#[test]
fn a_single_point_is_a_dot() {
    for value in [0.0, 14.3, -3.0, 1e-30, 3e38, 1e100] {
        for extent in [Extent::Fit, Extent::FromZero] {
            let svg = lines(&[line(&[(7.0, value)])], extent).unwrap();
            assert_eq!(shapes(&svg, "circle"), 1, "{value}");
        }
    }
}

#[test]
fn a_value_that_is_not_finite_interrupts_the_line() {
    let whole = [(0.0, 1.0), (1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (4.0, 3.0)];
    let mut broken = whole;
    broken[2].1 = f64::NAN;
    let pieces = |points| {
        let svg = lines(&[line(points)], Extent::FromZero).unwrap();
        assert!(!svg.contains("NaN"));
        shapes(&svg, "polyline")
    };
    assert_eq!(pieces(&broken), pieces(&whole) + 1);
}

#[test]
fn dots_are_on_every_point_and_dashes_have_gaps() {
    let points = [(0.1, 1.0), (0.2, 2.0), (0.4, f64::NAN), (0.6, 1.5)];
    let drawn = |stroke| {
        let line = Line {
            stroke,
            ..line(&points)
        };
        let svg = lines_over("threshold", &[line]).unwrap();
        (shapes(&svg, "circle"), shapes(&svg, "polyline"))
    };
    let (_, pieces) = drawn(Stroke::Strong);
    assert_eq!(drawn(Stroke::Strong), (1, pieces));
    assert_eq!(drawn(Stroke::Dotted), (3, pieces));
    let (circles, dashes) = drawn(Stroke::Dashed);
    assert_eq!(circles, 1);
    assert!(dashes > pieces + 10);
}

#[test]
fn any_magnitude_and_any_span_can_be_drawn() {
    let spans = [
        (0.0, 1e-40),
        (1.0, 1.0 + 1e-15),
        (1e17, 1e17 + 32.0),
        (-1e100, 1e100),
        (-1e-7, 1e-7),
        (1e-6, 5e-4),
    ];
    for (low, high) in spans {
        for extent in [Extent::Fit, Extent::FromZero] {
            let steps = line(&[(0.0, low), (u64::MAX as f64, high)]);
            assert!(lines(&[steps], extent).unwrap().ends_with("</svg>\n"));
        }
        let over = lines_over("size", &[line(&[(low, high), (high, low)])]);
        assert!(over.unwrap().ends_with("</svg>\n"));
    }
}

/// Each label with its anchor and the horizontal place of it, in units.
fn labels(svg: &str) -> Vec<(String, String, f64)> {
    let attribute = |tag: &str, name: &str| {
        let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next();
        value.map(str::to_string)
    };
    let label = |text: &str| {
        let (tag, rest) = text.split_once('>').unwrap();
        let label = rest.split('<').next().unwrap().trim().to_string();
        let x: f64 = attribute(tag, "x").unwrap().parse().unwrap();
        let anchor = attribute(tag, "text-anchor").unwrap_or_default();
        (label, anchor, x / f64::from(UNIT))
    };
    svg.split("<text").skip(1).map(label).collect()
}

#[test]
fn every_label_is_within_the_chart_and_none_on_another() {
    for (low, high, steps) in [
        (0.0, 1.13e-3, 120_000.0),
        (0.0, 4.9e-4, 1_200.0),
        (-9_876_543.0, 0.0, 999_999.0),
        (14.28, 14.29, 9_999_999.0),
        (0.0, 1.0, 1.0),
    ] {
        let svg = lines(&[line(&[(0.0, low), (steps, high)])], Extent::Fit).unwrap();
        let labels = labels(&svg);
        assert!(labels.len() > 4, "{svg}");
        let mut end = 0.0;
        for (label, anchor, x) in labels {
            let width = f64::from(width(&label));
            if anchor == "end" {
                assert!(x >= width, "{label} begins at {}", x - width);
            } else if label != "step" {
                assert_eq!(anchor, "middle");
                assert!(x - 0.5 * width > end, "{label} is on its neighbour");
                end = x + 0.5 * width;
                assert!(end <= f64::from(WIDTH / UNIT), "{label} ends at {end}");
            }
        }
    }
}

#[test]
fn distributions_of_few_or_no_bins_can_be_drawn() {
    for heights in [vec![], vec![2.0], vec![0.0; 4], vec![1e30, 1.0]] {
        let density = Density {
            role: Role::Positive,
            heights,
            mean: f64::NAN,
        };
        let svg = densities("size", &[density], -1.0..1.0, -0.5..1.0, 0.0);
        assert!(svg.ends_with("</svg>\n"));
    }
}
