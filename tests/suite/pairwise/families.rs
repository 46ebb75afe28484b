//! Every family of reductions, and the same by loops.

use super::*;

pub fn on_diagonal((i, j): (usize, usize)) -> bool {
    i == j
}

pub fn both(results: [Vec<f64>; 2]) -> Vec<Vec<f64>> {
    results.into()
}

/// The step of finite differences of smooth functions.
pub const SMOOTH: f64 = 7e-4;
/// The step of finite differences of functions with kinks, small enough not to cross one.
pub const KINKED: f64 = 1e-5;

/// Every family, every operator and every kind of leaf.
pub fn families() -> Vec<Case> {
    vec![
        Case {
            name: "softmax with margins, labels left out",
            step: SMOOTH,
            actual: |mut x| {
                let logit = &x.c * &x.scalars[0] * 3.0 + &x.rows[0] - &x.columns[1];
                let left_out = x.labels().of(&mut x.pairs);
                log_sum_exps(x.pairs, &logit, &left_out)
            },
            expected: |x, _| {
                let logit = |p| 3.0 * x.scalars[0] * x.similarity(p) + x.row(0, p) - x.column(1, p);
                both(oracle::softmax(x, logit, |p| x.same_label(p)))
            },
        },
        Case {
            name: "softmax of everything",
            step: SMOOTH,
            actual: |mut x| {
                let left_out = Positives::None.of(&mut x.pairs);
                log_sum_exps(x.pairs, &(&x.c * 4.0), &left_out)
            },
            expected: |x, _| both(oracle::softmax(x, |p| 4.0 * x.similarity(p), |_| false)),
        },
        Case {
            name: "log-sum-exps with weights and of the weights",
            step: SMOOTH,
            actual: |mut x| {
                let left_out = Positives::Diagonal.of(&mut x.pairs);
                let logit = &x.c * &x.scalars[0];
                let log_weight = &x.c * &x.scalars[1] + &x.rows[1];
                let weighted = log_sum_exps(x.pairs.clone(), &(logit + &log_weight), &left_out);
                [weighted, log_sum_exps(x.pairs, &log_weight, &left_out)].concat()
            },
            expected: |x, _| {
                let logit = |p| x.scalars[0] * x.similarity(p);
                let log_weight = |p| x.scalars[1] * x.similarity(p) + x.row(1, p);
                let weighted = oracle::softmax(x, |p| logit(p) + log_weight(p), on_diagonal);
                [weighted, oracle::softmax(x, log_weight, on_diagonal)].concat()
            },
        },
        Case {
            name: "log-sum-exps with constant weights, a mask left out",
            step: SMOOTH,
            actual: |mut x| {
                let mask = x.mask();
                let left_out = Positives::Mask(mask).of(&mut x.pairs);
                let log_weight = (&x.c * 2.0 - &x.columns[0]).detach();
                log_sum_exps(x.pairs, &(&x.c * 3.0 + log_weight), &left_out)
            },
            expected: |x, held| {
                let log_weight = |p| 2.0 * held.similarity(p) - held.column(0, p);
                let logit = |p| 3.0 * x.similarity(p) + log_weight(p);
                both(oracle::softmax(x, logit, |p| x.masked(p)))
            },
        },
        Case {
            name: "pairs below a threshold of the row or of the column left out",
            step: SMOOTH,
            actual: |x| {
                let logit = &x.c * &x.scalars[0] + &x.columns[0];
                let kept =
                    |threshold: &Expr| logit.except(&(threshold * 0.3 - 0.5 - x.c.detach()).step());
                x.pairs.reduce(&[
                    rows().log_sum_exp(&kept(&x.rows[1])),
                    columns().log_sum_exp(&kept(&x.columns[1])),
                ])
            },
            expected: |x, held| {
                let logit = |p| x.scalars[0] * x.similarity(p) + x.column(0, p);
                let below = |p, threshold: f64| held.similarity(p) < threshold * 0.3 - 0.5;
                let [by_row, _] = oracle::softmax(x, logit, |p| below(p, held.row(1, p)));
                let [_, by_column] = oracle::softmax(x, logit, |p| below(p, held.column(1, p)));
                vec![by_row, by_column]
            },
        },
        Case {
            name: "soft targets of a teacher",
            step: SMOOTH,
            actual: |mut x| {
                let target = x.teacher() * 3.0;
                let logit = &x.c * &x.scalars[0] + &x.rows[0];
                soft_target_results(x.pairs, &logit, &target)
            },
            expected: |x, _| expected_soft_targets(x, |x, p| 3.0 * x.teacher(p)),
        },
        Case {
            name: "soft targets of its own",
            step: SMOOTH,
            actual: |x| {
                let target = &x.c * 2.0 + &x.columns[1];
                let logit = &x.c * &x.scalars[0] + &x.rows[0];
                soft_target_results(x.pairs, &logit, &target)
            },
            expected: |x, _| {
                expected_soft_targets(x, |x, p| 2.0 * x.similarity(p) + x.column(1, p))
            },
        },
        Case {
            name: "sum of hinges",
            step: KINKED,
            actual: |x| {
                let hinge = |own: &Expr| {
                    let cost = (&(&x.c - own) + 0.2).relu();
                    Expr::select(&Expr::diagonal(), &Expr::constant(0.0), &cost)
                };
                vec![x.pairs.total(&(hinge(&x.rows[0]) + hinge(&x.columns[1])))]
            },
            expected: |x, _| {
                let hinge = |c: f64, own: f64| (0.2 + c - own).max(0.0);
                let cost = |p| {
                    let c = x.similarity(p);
                    hinge(c, x.row(0, p)) + hinge(c, x.column(1, p))
                };
                vec![vec![x.pairs().filter(|&p| !on_diagonal(p)).map(cost).sum()]]
            },
        },
        Case {
            name: "SigLIP's sum",
            step: SMOOTH,
            actual: |mut x| {
                let positive = x.labels().of(&mut x.pairs);
                let logit = &x.c * &x.scalars[0] * 5.0 + &x.scalars[1];
                let cost = Expr::select(&positive, &(-&logit), &logit).softplus();
                vec![x.pairs.total(&cost)]
            },
            expected: |x, _| {
                let cost = |p| {
                    let logit = 5.0 * x.scalars[0] * x.similarity(p) + x.scalars[1];
                    oracle::softplus(if x.same_label(p) { -logit } else { logit })
                };
                vec![vec![x.pairs().map(cost).sum()]]
            },
        },
        Case {
            name: "ReCo's sums, positives to one and negatives below zero",
            step: KINKED,
            actual: |x| {
                let positive = (&x.c - &Expr::constant(1.0)).square();
                let negative = x.c.relu().square() * 0.1;
                let cost = Expr::select(&Expr::diagonal(), &positive, &negative);
                x.pairs.reduce(&[rows().sum(&cost), columns().sum(&cost)])
            },
            expected: |x, _| {
                both(oracle::sums(x, |p| {
                    let c = x.similarity(p);
                    if on_diagonal(p) {
                        (c - 1.0).powi(2)
                    } else {
                        0.1 * c.max(0.0).powi(2)
                    }
                }))
            },
        },
        Case {
            name: "hardest, a mask left out",
            step: KINKED,
            actual: |mut x| {
                let mask = x.mask();
                let left_out = x.pairs.mask(mask);
                hardest(x.pairs, &left_out).map(|h| h.similarity).into()
            },
            expected: |x, _| {
                let similarities =
                    |found: Vec<(f64, usize)>| found.into_iter().map(|f| f.0).collect();
                oracle::hardest(x, |p| x.masked(p)).map(similarities).into()
            },
        },
        Case {
            name: "every operator and every leaf",
            step: SMOOTH,
            actual: |mut x| {
                let teacher = x.teacher();
                let mask = x.mask();
                let mask = x.pairs.mask(mask);
                let [u, v] = [&x.rows[0], &x.rows[1]];
                let [y, z] = [&x.columns[0], &x.columns[1]];
                let smooth = (x.c.square() + 1.0).sqrt().log() / (u + 3.0);
                let gate = (&x.c * &x.scalars[0]).sigmoid() * y - (-&x.c).exp() * &mask;
                let held = x.c.detach() * &x.c * v + teacher.exp() * (&x.c - &teacher).softplus();
                let value = smooth + gate + held * &x.scalars[1];
                let weight = &x.c * &x.scalars[0] + z;
                x.pairs.reduce(&[
                    rows().sum(&value),
                    columns().softmax_mean(&weight, &value),
                    columns().sum(&(&value * &weight)),
                    rows().log_sum_exp(&(&value + &weight)),
                ])
            },
            expected: |x, held| {
                let mask = |p| f64::from(u8::from(x.masked(p)));
                let value = |p| {
                    let (c, t) = (x.similarity(p), x.teacher(p));
                    (c * c + 1.0).sqrt().ln() / (x.row(0, p) + 3.0)
                        + (oracle::sigmoid(c * x.scalars[0]) * x.column(0, p)
                            - (-c).exp() * mask(p))
                        + (held.similarity(p) * c * x.row(1, p) + t.exp() * oracle::softplus(c - t))
                            * x.scalars[1]
                };
                let weight = |p| x.similarity(p) * x.scalars[0] + x.column(1, p);
                let [by_row, _] = oracle::sums(x, value);
                let [_, [sum, mean]] = oracle::softmax_mean(x, weight, value);
                let [_, product] = oracle::sums(x, |p| value(p) * weight(p));
                let [log_sum_exp, _] = oracle::softmax(x, |p| value(p) + weight(p), |_| false);
                vec![by_row, sum, mean, product, log_sum_exp]
            },
        },
    ]
}

/// `log Σ e^logit` along the rows and along the columns, over what is not left out.
pub fn log_sum_exps(pairs: Pairs, logit: &Expr, left_out: &Expr) -> Vec<Tensor<1>> {
    let logit = logit.except(left_out);
    pairs.reduce(&[rows().log_sum_exp(&logit), columns().log_sum_exp(&logit)])
}

/// What a cross-entropy against the softmax of other logits consists of, along rows and columns.
fn soft_target_results(pairs: Pairs, logit: &Expr, target: &Expr) -> Vec<Tensor<1>> {
    pairs.reduce(&[
        rows().log_sum_exp(logit),
        rows().softmax_mean(target, logit),
        columns().log_sum_exp(logit),
        columns().softmax_mean(target, logit),
    ])
}

fn expected_soft_targets(
    x: &Inputs,
    target: impl Fn(&Inputs, (usize, usize)) -> f64,
) -> Vec<Vec<f64>> {
    let logit = |p| x.scalars[0] * x.similarity(p) + x.row(0, p);
    let sums = oracle::softmax(x, logit, |_| false);
    let means = oracle::softmax_mean(x, |p| target(x, p), logit);
    let of = |(sum, [target, mean]): (Vec<f64>, [Vec<f64>; 2])| [sum, target, mean];
    sums.into_iter().zip(means).flat_map(of).collect()
}

/// Uses of pairs within one set.
fn families_within() -> Vec<Case> {
    vec![
        Case {
            name: "softmax within one set",
            step: SMOOTH,
            actual: |mut x| {
                let logit = &x.c * &x.scalars[0] * 3.0 + &x.rows[0] + &x.columns[0];
                let same = x.labels().of(&mut x.pairs);
                let logit = logit.except(&same);
                x.pairs.reduce(&[rows().log_sum_exp(&logit)])
            },
            expected: |x, _| {
                let logit = |p| 3.0 * x.scalars[0] * x.similarity(p) + x.row(0, p) + x.column(0, p);
                let [by_row, _] = oracle::softmax(x, logit, |p| x.same_label(p));
                vec![by_row]
            },
        },
        Case {
            name: "means and sums within one set",
            step: SMOOTH,
            actual: |mut x| {
                let teacher = x.teacher();
                let mask = x.mask();
                let mask = x.pairs.mask(mask);
                let value = (&x.rows[1] * &x.columns[1]).sigmoid() * &x.c + &mask * &x.c.square();
                let weight = &teacher + &(&x.c * &x.scalars[1]);
                let off = Expr::select(&Expr::diagonal(), &x.scalars[0], &value);
                x.pairs.reduce(&[
                    rows().softmax_mean(&weight, &value),
                    rows().sum(&off),
                    rows().sum(&value.softplus()),
                ])
            },
            expected: |x, _| {
                let value = |p| {
                    let c = x.similarity(p);
                    oracle::sigmoid(x.row(1, p) * x.column(1, p)) * c
                        + if x.masked(p) { c * c } else { 0.0 }
                };
                let weight = |p| x.teacher(p) + x.similarity(p) * x.scalars[1];
                let [[sum, mean], _] = oracle::softmax_mean(x, weight, value);
                let off = |p| {
                    if on_diagonal(p) {
                        x.scalars[0]
                    } else {
                        value(p)
                    }
                };
                let [by_row, _] = oracle::sums(x, off);
                let [softplus, _] = oracle::sums(x, |p| oracle::softplus(value(p)));
                vec![sum, mean, by_row, softplus]
            },
        },
        Case {
            name: "total within one set",
            step: SMOOTH,
            actual: |x| {
                let cost = (&x.c * &x.scalars[0] + &x.rows[0] + &x.columns[0]).exp();
                vec![x.pairs.total(&cost.except(&Expr::constant(0.0)))]
            },
            expected: |x, _| {
                let cost =
                    |p| (x.similarity(p) * x.scalars[0] + x.row(0, p) + x.column(0, p)).exp();
                vec![vec![x.pairs().map(cost).sum()]]
            },
        },
    ]
}

/// All cases, with inputs of about these sizes.
pub fn cases(n: usize, m: usize, width: usize, seed: u64) -> Vec<(Case, Inputs)> {
    let between = families()
        .into_iter()
        .map(|case| (case, inputs(n, m, width, seed)));
    let within = families_within()
        .into_iter()
        .map(|case| (case, inputs_within(n.max(m), width, seed)));
    between.chain(within).collect()
}

/// A case for tiles at an edge: rows, columns, the diagonal, a mask, maxima and both gradients.
pub fn edge_case() -> Case {
    Case {
        name: "edges",
        step: SMOOTH,
        actual: |mut x| {
            let mask = x.mask();
            let mask = x.pairs.mask(mask);
            let logit =
                (&x.c * &x.scalars[0] + &x.rows[0] - &x.columns[0]).except(&Expr::diagonal());
            let value = &x.c.square() * &mask + &x.columns[1];
            let max = hardest(x.pairs.clone(), &Expr::constant(0.0)).map(|h| h.similarity);
            let results = x.pairs.reduce(&[
                rows().log_sum_exp(&logit),
                columns().log_sum_exp(&logit),
                rows().sum(&value),
                columns().sum(&value),
            ]);
            [results, max.into()].concat()
        },
        expected: |x, _| {
            let logit = |p| x.scalars[0] * x.similarity(p) + x.row(0, p) - x.column(0, p);
            let value = |p| {
                let c = x.similarity(p);
                c * c * f64::from(u8::from(x.masked(p))) + x.column(1, p)
            };
            let max = oracle::hardest(x, |_| false);
            let max = max.map(|found| found.into_iter().map(|f| f.0).collect());
            [
                oracle::softmax(x, logit, on_diagonal),
                oracle::sums(x, value),
                max,
            ]
            .concat()
        },
    }
}
