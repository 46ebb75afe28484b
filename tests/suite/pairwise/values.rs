//! Values and gradients against the oracle and against the dense evaluation.

use super::*;

on_every_backend! {
    every_family_matches_the_oracle,
    a_single_pair_row_or_column_matches_the_oracle,
    half_precision_is_computed_in_f32,
    extreme_inputs_are_as_accurate_as_the_dense_evaluation,
}

on_cpu_backends! {
    every_family_matches_the_oracle_in_f64,
    block_size_and_kept_blocks_do_not_change_results,
    shapes_around_the_tile_size_match_the_oracle,
}

fn every_family_matches_the_oracle(backend: &Backend) {
    for (case, inputs) in cases(7, 5, 4, 100) {
        println!("{}", case.name);
        let expected = expected(&case, &inputs, usize::MAX);
        let how = How::new(backend, DType::F32);
        assert_matches(case.name, &evaluate(&case, &inputs, &how), &expected, 2e-5);
    }
}

fn every_family_matches_the_oracle_in_f64(backend: &Backend) {
    assert!(backend.dtypes.contains(&DType::F64));
    let how = How::new(backend, DType::F64);
    for (n, m) in [(7, 5), (4, 9)] {
        for (case, inputs) in cases(n, m, 4, 110) {
            let expected = expected(&case, &inputs, usize::MAX);
            for evaluation in [Evaluation::Auto, Evaluation::Streaming, Evaluation::Dense] {
                println!("{}, {evaluation:?}", case.name);
                let actual = evaluate(&case, &inputs, &how.with(evaluation, 1 << 20));
                assert_matches(case.name, &actual, &expected, f64_tolerance(&case));
            }
        }
    }
}

/// The tolerance of finite differences, whose rounding errors a small step amplifies.
fn f64_tolerance(case: &Case) -> f64 {
    if case.step == KINKED { 1e-9 } else { 1e-10 }
}

/// Budgets in bytes: for less than a tile, for one block, for three blocks, and for all pairs.
fn budgets(dtype: DType) -> [usize; 4] {
    [1, 128 * 128, 3 * 128 * 128, 1 << 20].map(|count| count * dtype.size())
}

fn block_size_and_kept_blocks_do_not_change_results(backend: &Backend) {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        let reference = How::new(backend, DType::F64).with(Evaluation::Dense, 0);
        for (case, inputs) in cases(140, 130, 3, 120) {
            println!("{} in {dtype:?}", case.name);
            let dense = evaluate(&case, &inputs, &reference);
            // Check the reference itself: all values, and one derivative of each leaf.
            if dtype == DType::F64 && case.step == SMOOTH && !inputs.within {
                assert_matches(case.name, &dense, &expected(&case, &inputs, 1), 1e-8);
            }
            let how = How::new(backend, dtype);
            let mut runs = vec![how.with(Evaluation::Streaming, 1 << 20)];
            runs.extend(budgets(dtype).map(|budget| how.with(Evaluation::Auto, budget)));
            for how in runs {
                assert_same(
                    case.name,
                    &evaluate(&case, &inputs, &how),
                    &dense,
                    tolerance,
                );
            }
        }
    }
}

fn shapes_around_the_tile_size_match_the_oracle(backend: &Backend) {
    let case = edge_case();
    for (n, m) in [
        (1, 1),
        (2, 1),
        (1, 2),
        (1, 129),
        (65, 1),
        (63, 64),
        (129, 65),
        (127, 128),
    ] {
        let inputs = inputs(n, m, 3, 130 + n as u64);
        let name = format!("{n} × {m}");
        println!("{name}");
        let how = How::new(backend, DType::F64);
        let actual = evaluate(&case, &inputs, &how.with(Evaluation::Streaming, 1));
        // Of few sampled derivatives the largest may be small: the tolerance is relative to that.
        assert_matches(&name, &actual, &expected(&case, &inputs, 1), 1e-7);
        let dense = evaluate(&case, &inputs, &how.with(Evaluation::Dense, 1));
        assert_same(&name, &actual, &dense, 1e-12);
        let kept = evaluate(&case, &inputs, &how.with(Evaluation::Auto, 1 << 20));
        assert_same(&name, &kept, &dense, 1e-12);
    }
}

fn a_single_pair_row_or_column_matches_the_oracle(backend: &Backend) {
    let case = edge_case();
    for (n, m) in [(1, 1), (1, 3), (3, 1), (2, 2)] {
        let inputs = inputs(n, m, 4, 140);
        let how = How::new(backend, DType::F32);
        let actual = evaluate(&case, &inputs, &how);
        assert_matches(
            &format!("{n} × {m}"),
            &actual,
            &expected(&case, &inputs, usize::MAX),
            2e-5,
        );
    }
}

/// Values are as exact as those of f32 for the rounded inputs; gradients are rounded at the end.
fn half_precision_is_computed_in_f32(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        let how = How::new(backend, dtype);
        let rounded = |m: &Matrix| backend.rounded(m, dtype);
        let vectors = |v: &[Vec<f64>]| v.iter().map(|v| elements(how.vector(v))).collect();
        let case = edge_case();
        let inputs = inputs(9, 6, 16, 150);
        let inputs = Inputs {
            a: rounded(&inputs.a),
            b: rounded(&inputs.b),
            rows: vectors(&inputs.rows),
            columns: vectors(&inputs.columns),
            scalars: elements(how.vector(&inputs.scalars)),
            ..inputs
        };
        let actual = evaluate(&case, &inputs, &how);
        let expected = expected(&case, &inputs, usize::MAX);
        let values = |values: &[Vec<f64>]| Evaluated {
            values: values.to_vec(),
            gradients: Vec::new(),
        };
        assert_same(
            "values",
            &values(&actual.values),
            &values(&expected.values),
            1e-5,
        );
        let ulp = ulp(dtype);
        // The weights of the loss are rounded as well.
        assert_matches("gradients", &actual, &expected, 3.0 * ulp);
    }
}

/// Where f32 must lose digits, it loses no more than the dense evaluation in f32 does.
fn extreme_inputs_are_as_accurate_as_the_dense_evaluation(backend: &Backend) {
    let case = Case {
        name: "softmax",
        step: SMOOTH,
        actual: |x| log_sum_exps(x.pairs, &(&x.c * &x.scalars[0]), &Expr::diagonal()),
        expected: |x, _| {
            both(oracle::softmax(
                x,
                |p| x.scalars[0] * x.similarity(p),
                on_diagonal,
            ))
        },
    };
    let plain = inputs(9, 7, 8, 160);
    let normalized = |m: &Matrix| {
        let rows = (0..m.rows).flat_map(|i| crate::oracle::normalize(m.row(i)));
        Matrix::new(m.rows, m.width, rows.collect())
    };
    let repeated = |m: &Matrix| {
        let mut m = m.clone();
        m.values.copy_within(0..3 * m.width, 3 * m.width);
        m
    };
    let with_zeros = |m: &Matrix| {
        let mut m = m.clone();
        m.values[..2 * m.width].fill(0.0);
        m
    };
    let changed = |name, change: &dyn Fn(&Matrix) -> Matrix, scale| {
        let (a, b) = (change(&plain.a), change(&plain.b));
        let inputs = Inputs {
            a,
            b,
            scalars: vec![scale],
            ..plain.clone()
        };
        (name, inputs)
    };
    for (name, inputs) in [
        changed("logits of ten thousand", &Matrix::clone, 1e4),
        changed("temperature of a thousandth", &normalized, 1e3),
        changed("duplicates", &repeated, 20.0),
        changed("zero rows", &with_zeros, 20.0),
        changed(
            "all zero",
            &|m| Matrix::new(m.rows, m.width, vec![0.0; m.values.len()]),
            20.0,
        ),
    ] {
        // Rounding of the inputs to f32 is no error of the engine.
        let rounded = |m: &Matrix| {
            Matrix::new(
                m.rows,
                m.width,
                m.values.iter().map(|&v| f64::from(v as f32)).collect(),
            )
        };
        let inputs = Inputs {
            a: rounded(&inputs.a),
            b: rounded(&inputs.b),
            ..inputs
        };
        let how = How::new(backend, DType::F32);
        let actual = evaluate(&case, &inputs, &how);
        let dense = evaluate(&case, &inputs, &how.with(Evaluation::Dense, 0));
        let exact = if backend.dtypes.contains(&DType::F64) {
            evaluate(&case, &inputs, &How::new(backend, DType::F64))
        } else {
            let step = 2e-3 / inputs.scalars[0].max(1.0);
            let expected = expected(&Case { step, ..case }, &inputs, usize::MAX);
            let gradients = expected.gradients.iter();
            Evaluated {
                values: expected.values,
                gradients: gradients.map(|g| g.iter().map(|g| g.1).collect()).collect(),
            }
        };
        let oracle = Evaluated {
            values: (case.expected)(&inputs, &inputs),
            gradients: exact.gradients.clone(),
        };
        assert_same(name, &exact, &oracle, 1e-12);
        let error = |one: &Evaluated| {
            let distances = |x: &[Vec<f64>], y: &[Vec<f64>]| -> Vec<(f64, f64)> {
                let pair = |(x, y): (&Vec<f64>, &Vec<f64>)| {
                    let far = |(x, y): (&f64, &f64)| if x == y { 0.0 } else { (x - y).abs() };
                    let largest = y.iter().fold(0.0, |m: f64, y| m.max(y.abs()));
                    (x.iter().zip(y).map(far).fold(0.0, f64::max), largest)
                };
                x.iter().zip(y).map(pair).collect()
            };
            [
                distances(&one.values, &exact.values),
                distances(&one.gradients, &exact.gradients),
            ]
            .concat()
        };
        for (k, ((own, largest), (theirs, _))) in
            error(&actual).into_iter().zip(error(&dense)).enumerate()
        {
            assert!(
                own <= 2.0 * theirs + 1e-6 * largest + 1e-7,
                "{name}, {k}: an error of {own:e}, of the dense evaluation {theirs:e} \
                 (largest {largest:e})"
            );
        }
    }
}
