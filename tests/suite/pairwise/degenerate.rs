//! Empty reductions, NaN, and misuse.

use super::*;

on_every_backend! {
    an_empty_reduction_is_minus_infinity_with_zero_gradient,
    nan_in_an_embedding_reaches_exactly_the_results_that_depend_on_it,
    nan_in_a_bound_vector_reaches_exactly_the_results_that_depend_on_it,
    log_add_exp_combines_groups_with_its_gradient,
    misuse_panics_name_the_argument,
}

on_cpu_device! {
    nan_in_a_bound_vector_reaches_exactly_the_results_that_depend_on_it,
}

fn an_empty_reduction_is_minus_infinity_with_zero_gradient(backend: &Backend) {
    let (n, m, width) = (5, 4, 3);
    let device = backend.autodiff();
    let tensor = |rows, seed| on(&device, &random(rows, width, seed), DType::F32).require_grad();
    // Nothing is left of row 2 and of column 1.
    let mask = |device: &Device| {
        let left_out = (0..n * m).map(|k| k / m == 2 || k % m == 1 || k == 7);
        let data = TensorData::new(left_out.collect::<Vec<_>>(), [n, m]);
        Tensor::<2, Bool>::from_data(data, device)
    };
    type Run = fn(Pairs, Expr, &Expr) -> [Tensor<1>; 2];
    let runs: [(&str, Run); 3] = [
        ("softmax", |pairs, c, left_out| {
            let found = log_sum_exps(pairs, &(c * 2.0), left_out);
            found.try_into().expect("two results")
        }),
        ("softmax of a mean", |pairs, c, left_out| {
            let logit = (&c * 2.0).except(left_out);
            let reductions = [
                rows().softmax_mean(&logit, &c),
                columns().softmax_mean(&logit, &c),
            ];
            let [by_row, mean, by_column, other] =
                pairs.reduce(&reductions).try_into().expect("four results");
            // Means over nothing are 0, and change no log-sum-exp.
            let log_of = |sum: Tensor<1>, mean: Tensor<1>| sum + mean * 1e-3;
            [log_of(by_row, mean), log_of(by_column, other)]
        }),
        ("hardest", |pairs, _, left_out| {
            hardest(pairs, left_out).map(|h| h.similarity)
        }),
    ];
    for (name, run) in runs {
        for evaluation in [Evaluation::Auto, Evaluation::Dense] {
            let (a, b) = (tensor(n, 220), tensor(m, 221));
            let mut pairs = Pairs::new(a.clone(), b.clone()).with_evaluation(evaluation);
            let (c, left_out) = (pairs.similarity(), pairs.mask(mask(&device)));
            let [by_row, by_column] = run(pairs, c, &left_out);
            let (found_rows, found_columns) =
                (elements(by_row.clone()), elements(by_column.clone()));
            for (k, x) in found_rows.iter().enumerate() {
                assert_eq!(
                    *x == f64::NEG_INFINITY,
                    k == 2,
                    "{name}, {evaluation:?}: {found_rows:?}"
                );
                assert!(k == 2 || x.is_finite());
            }
            for (k, x) in found_columns.iter().enumerate() {
                assert_eq!(
                    *x == f64::NEG_INFINITY,
                    k == 1,
                    "{name}, {evaluation:?}: {found_columns:?}"
                );
                assert!(k == 1 || x.is_finite());
            }
            let gradients = (by_row.sum() + by_column.sum()).backward();
            let [by_a, by_b] = [&a, &b].map(|t| gradient(t, &gradients));
            assert!(
                by_a.iter().chain(&by_b).all(|g| g.is_finite()),
                "{name}, {evaluation:?}: {by_a:?} {by_b:?}"
            );
            assert!(
                by_a[2 * width..3 * width].iter().all(|&g| g == 0.0),
                "{name}: {by_a:?}"
            );
            assert!(
                by_b[width..2 * width].iter().all(|&g| g == 0.0),
                "{name}: {by_b:?}"
            );
            assert!(by_a[..2 * width].iter().all(|&g| g != 0.0) || name == "hardest");
        }
    }
}

fn nan_in_an_embedding_reaches_exactly_the_results_that_depend_on_it(backend: &Backend) {
    let (n, m, width) = (6, 5, 3);
    let device = backend.autodiff();
    let good = random(m, width, 222);
    let mut bad = random(n, width, 223);
    bad.values[2 * width + 1] = f64::NAN;
    let b = || on(&device, &good, DType::F32).require_grad();
    let a = || on(&device, &bad, DType::F32).require_grad();
    let is_nan = |values: Vec<f64>| values.into_iter().map(f64::is_nan).collect::<Vec<_>>();
    let only_row_2: Vec<_> = (0..n).map(|i| i == 2).collect();
    let by_rows: Vec<_> = (0..n * width).map(|k| k / width == 2).collect();
    type Reduce = fn(&Expr) -> [Reduction; 2];
    let reductions: [(&str, Reduce); 4] = [
        ("sum", |x| [rows().sum(x), columns().sum(x)]),
        ("log-sum-exp", |x| {
            [rows().log_sum_exp(x), columns().log_sum_exp(x)]
        }),
        ("relu", |x| {
            [rows().sum(&x.relu()), columns().sum(&x.softplus())]
        }),
        ("mean", |x| {
            [rows().softmax_mean(x, x), columns().softmax_mean(x, x)]
        }),
    ];
    for (name, reduce) in reductions {
        for evaluation in [Evaluation::Auto, Evaluation::Dense] {
            let run = |a: &Tensor<2>, b: &Tensor<2>, axis: usize| {
                let pairs = Pairs::new(a.clone(), b.clone()).with_evaluation(evaluation);
                let reductions = reduce(&(pairs.similarity() * 2.0));
                pairs
                    .reduce(&reductions[axis..axis + 1])
                    .pop()
                    .expect("a result")
            };
            println!("{name}, {evaluation:?}");
            let (a, b) = (a(), b());
            let result = run(&a, &b, 0);
            assert_eq!(is_nan(elements(result.clone())), only_row_2);
            if name == "relu" && evaluation == Evaluation::Dense {
                continue; // In Burn's autodiff the slope of relu at NaN is 1.
            }
            let [by_a, by_b] = gradients_of(&a, &b, result.sum());
            // The gradient of a sum by one side reads only the other side: column k of it alone.
            let linear = name == "sum";
            let only_middle: Vec<_> = (0..m * width).map(|k| !linear || k % width == 1).collect();
            assert_eq!(
                is_nan(by_a),
                by_rows.iter().map(|x| *x && !linear).collect::<Vec<_>>()
            );
            assert_eq!(is_nan(by_b), only_middle);
            // Every column reads row 2.
            let result = run(&a, &b, 1);
            assert!(elements(result.clone()).iter().all(|x| x.is_nan()));
            let [by_a, by_b] = gradients_of(&a, &b, result.sum());
            assert_eq!(is_nan(by_b), only_middle);
            assert!(
                is_nan(by_a)[2 * width..3 * width]
                    .iter()
                    .all(|&x| x != linear)
            );
        }
    }
    let (a, b) = (a(), b());
    let [by_row, by_column] = hardest(Pairs::new(a.clone(), b.clone()), &Expr::constant(0.0));
    assert_eq!(is_nan(elements(by_row.similarity)), only_row_2);
    assert_eq!(elements(by_column.index.float()), vec![2.0; m]);
    assert!(
        elements(by_column.similarity.clone())
            .iter()
            .all(|x| x.is_nan())
    );
    let [_, by_b] = gradients_of(&a, &b, by_column.similarity.sum());
    assert!(by_b.iter().any(|g| g.is_nan()));
    // Left out, the NaN does not reach the other results.
    let mut pairs = Pairs::new(a, b);
    let mask: Vec<_> = (0..n * m).map(|k| k / m == 2).collect();
    let left_out = pairs.mask(Tensor::from_data(TensorData::new(mask, [n, m]), &device));
    let found = log_sum_exps(pairs.clone(), &pairs.similarity(), &left_out);
    assert!(elements(found[1].clone()).iter().all(|x| x.is_finite()));
}

fn nan_in_a_bound_vector_reaches_exactly_the_results_that_depend_on_it(backend: &Backend) {
    let device = &backend.device;
    let tensor = |rows, seed| backend.tensor(&random(rows, 3, seed), DType::F32);
    let vector = |len: usize, bad: usize| {
        let values: Vec<f32> = (0..len)
            .map(|k| if k == bad { f32::NAN } else { 0.5 })
            .collect();
        Tensor::<1>::from_data(TensorData::new(values, [len]), device)
    };
    let is_nan = |t: &Tensor<1>| {
        elements(t.clone())
            .into_iter()
            .map(f64::is_nan)
            .collect::<Vec<_>>()
    };
    let mut pairs = Pairs::new(tensor(4, 224), tensor(5, 225));
    let x = pairs.similarity() * &pairs.row(vector(4, 1));
    let found = pairs.reduce(&[rows().log_sum_exp(&x), columns().sum(&x)]);
    assert_eq!(is_nan(&found[0]), [false, true, false, false]);
    assert_eq!(is_nan(&found[1]), [true; 5]);
    let mut pairs = Pairs::new(tensor(4, 224), tensor(5, 225));
    let x = (pairs.similarity() - &pairs.column(vector(5, 3))).relu();
    let found = pairs.reduce(&[rows().sum(&x), columns().log_sum_exp(&x)]);
    assert_eq!(is_nan(&found[0]), [true; 4]);
    assert_eq!(is_nan(&found[1]), [false, false, false, true, false]);
}

fn log_add_exp_combines_groups_with_its_gradient(backend: &Backend) {
    let device = backend.autodiff();
    let groups = [
        [1.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 1e4, -1e4],
        [2.0, 3.0, f32::NEG_INFINITY, -1e4, -1e4],
        [
            0.5,
            f32::NEG_INFINITY,
            f32::NEG_INFINITY,
            1e4,
            f32::NEG_INFINITY,
        ],
    ];
    let leaves = groups.map(|g| Tensor::<1>::from_data(g, &device).require_grad());
    let joined = log_add_exp(&leaves);
    let column = |k: usize| groups.map(|g| f64::from(g[k]));
    let expected: Vec<_> = (0..5).map(|k| log_sum_exp(&column(k))).collect();
    for (actual, expected) in elements(joined.clone()).iter().zip(&expected) {
        assert!(actual == expected || (actual - expected).abs() < 1e-6 * expected.abs());
    }
    let gradients = joined.sum().backward();
    for (leaf, group) in leaves.iter().zip(groups) {
        let softmax = group.iter().zip(&expected).map(|(&x, total)| {
            if total.is_finite() {
                (f64::from(x) - total).exp()
            } else {
                0.0
            }
        });
        assert_close(
            &gradient(leaf, &gradients),
            &softmax.collect::<Vec<_>>(),
            1e-5,
        );
    }
    let bad = Tensor::<1>::from_data([f32::NAN, 1.0], &device);
    let found = elements(log_add_exp(&[bad, Tensor::from_data([0.0, 0.0], &device)]));
    assert!(found[0].is_nan() && found[1].is_finite());
}

fn misuse_panics_name_the_argument(backend: &Backend) {
    let device = &backend.device;
    let matrix = |n, width| Tensor::<2>::ones([n, width], device);
    let vector = |n| Tensor::<1>::ones([n], device);
    let mask = |n, m| Tensor::<2>::ones([n, m], device).greater_elem(0.0);
    let pairs = || Pairs::new(matrix(4, 3), matrix(5, 3));
    assert_panics("a vector of rows has 5 elements, it needs 4", || {
        pairs().row(vector(5));
    });
    assert_panics("a vector of rows has 1 elements, it needs 4", || {
        pairs().row(vector(1));
    });
    assert_panics("a vector of columns has 4 elements, it needs 5", || {
        pairs().column(vector(4));
    });
    assert_panics("a scalar has shape [2], it must be [1]", || {
        pairs().scalar(vector(2));
    });
    assert_panics(
        "a mask has shape [5, 4], there can be one of [4, 5]",
        || {
            pairs().mask(mask(5, 4));
        },
    );
    assert_panics("there can be one of [4, 5]", || {
        let mut pairs = pairs();
        pairs.mask(mask(4, 5));
        pairs.mask(mask(4, 5));
    });
    assert_panics("they need 4 and 5 rows, and the same width", || {
        pairs().teacher(matrix(5, 2), matrix(4, 2));
    });
    assert_panics("they need 4 and 5 rows, and the same width", || {
        pairs().teacher(matrix(4, 2), matrix(5, 3));
    });
    assert_panics("a vector of columns has 4 elements, it needs 5", || {
        let ids = Tensor::<1, Int>::zeros([4], device);
        pairs().same_label(ids.clone(), ids);
    });
    assert_panics("pairs within one set are reduced along rows", || {
        let pairs = Pairs::within(matrix(4, 3));
        let c = pairs.similarity();
        pairs.reduce(&[rows().sum(&c), columns().sum(&c)]);
    });
    assert_panics("`a` has width 3, `b` has width 2", || {
        Pairs::new(matrix(4, 3), matrix(4, 2));
    });
    assert_panics("`b` is empty, shape [0, 3]", || {
        Pairs::new(matrix(4, 3), matrix(4, 3).slice([0..0, 0..3]));
    });
    assert_panics("is on an autodiff device, the other is not", || {
        Pairs::new(
            matrix(4, 3),
            Tensor::ones([4, 3], &device.clone().autodiff()),
        );
    });
    assert_panics("there is nothing to add", || {
        log_add_exp(&[]);
    });
}
