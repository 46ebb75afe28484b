//! The kernels against the same passes in plain tensor operations.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, TensorData, read_sync};

use super::*;
use crate::pairwise::backward::append_results;
use crate::pairwise::chunked;
use crate::pairwise::cpu::backend;
use crate::pairwise::ops;

fn tensor(values: &[f64], shape: [usize; 2], dtype: DType) -> FloatTensor<Flex> {
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
    Flex::float_from_data(data, &Default::default())
}

fn vector(values: &[f64], dtype: DType) -> FloatTensor<Flex> {
    let data = TensorData::new(values.to_vec(), [values.len()]).convert_dtype(dtype);
    Flex::float_from_data(data, &Default::default())
}

fn elements(tensor: FloatTensor<Flex>) -> Vec<f64> {
    let data = read_sync(Flex::float_into_data(tensor)).expect("a CPU tensor can be read");
    data.convert_dtype(DType::F64)
        .try_to_vec()
        .expect("converted")
}

fn inputs(problem: &Problem, symmetric: bool, dtype: DType) -> ops::Inputs<Flex> {
    let &Problem { n, m, .. } = problem;
    let a = tensor(&problem.a, [n, D], dtype);
    ops::Inputs {
        b: tensor(&problem.b, [m, D], dtype),
        teacher_a: tensor(&problem.teacher[0], [n, TEACHER], dtype),
        teacher_b: tensor(&problem.teacher[1], [m, TEACHER], dtype),
        rows: tensor(&problem.rows, [BOUND, n], dtype),
        columns: if symmetric {
            tensor(&problem.rows, [BOUND, n], dtype)
        } else {
            tensor(&problem.columns, [BOUND, m], dtype)
        },
        scalars: vector(&problem.scalars, dtype),
        mask: Flex::bool_from_data(
            TensorData::new(problem.mask.clone(), [n, m]),
            &Default::default(),
        ),
        kept: a.clone(),
        a,
    }
}

type RunPass = fn(ops::Inputs<Flex>, &Pass) -> ops::Outputs<Flex>;

fn evaluate(form: &Form, problem: &Problem, dtype: DType, pass: RunPass) -> [Vec<f64>; 4] {
    let mut inputs = inputs(problem, form.symmetric, dtype);
    let results = pass(inputs.clone(), &form.forward(false)).results;
    let upstream = vector(&upstream(results.shape().num_elements()), dtype);
    append_results(&mut inputs, results.clone(), upstream, form);
    let backward = form.backward(wanted(form));
    let outputs = pass(inputs, &backward);
    let right = if backward.right {
        elements(outputs.right)
    } else {
        Vec::new()
    };
    [
        elements(results),
        elements(outputs.results),
        elements(outputs.left),
        right,
    ]
}

#[test]
fn kernels_match_plain_operations() {
    for (n, m) in [(1, 1), (5, 1), (63, 65), (64, 127), (130, 64)] {
        for symmetric in [false, true] {
            let problem = Problem::of(symmetric, n, m, 2);
            // Blocks of 64, of 128, and one of all pairs.
            for side in [1, 128, 192] {
                for form in forms(symmetric) {
                    let limits = Limits {
                        block: 8 * 8 * side * side,
                        ..form.limits
                    };
                    let form = Form { limits, ..form };
                    let own = evaluate(&form, &problem, DType::F64, backend::pass::<Flex>);
                    let plain = evaluate(&form, &problem, DType::F64, chunked::pass::<Flex>);
                    let found = distance(&plain, &own);
                    assert!(
                        found <= 1e-12,
                        "{n} × {m}, blocks of {side}: {found:e} in {form:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn kernels_match_plain_operations_in_f32() {
    let problem = Problem::new(70, 66, 3);
    for form in &forms(false)[..3] {
        let form = Form {
            // An index of a maximum is exact or wrong, not near.
            reductions: form
                .reductions
                .iter()
                .filter(|r| r.kind != Kind::Max)
                .cloned()
                .collect(),
            ..form.clone()
        };
        let own = evaluate(&form, &problem, DType::F32, backend::pass::<Flex>);
        let plain = evaluate(&form, &problem, DType::F32, chunked::pass::<Flex>);
        assert!(distance(&plain, &own) <= 1e-5, "{form:?}");
    }
}

/// A form without bound vectors and scalars.
#[test]
fn kernels_match_plain_operations_without_bound_vectors() {
    let problem = Problem::new(7, 5, 5);
    let logit = Expr::leaf(Leaf::Similarity) * 2.0;
    let form = Form {
        reductions: vec![rows().log_sum_exp(&logit)],
        rows: 0,
        columns: 0,
        scalars: 0,
        ..forms(false)[0].clone()
    };
    let wanted = Wanted {
        rows: false,
        columns: false,
        scalars: false,
        ..wanted(&form)
    };
    let found = [backend::pass::<Flex>, chunked::pass::<Flex>].map(|pass: RunPass| {
        let mut inputs = inputs(&problem, false, DType::F64);
        let results = pass(inputs.clone(), &form.forward(false)).results;
        append_results(&mut inputs, results.clone(), results, &form);
        let outputs = pass(inputs, &form.backward(wanted));
        [
            elements(outputs.left),
            elements(outputs.right),
            Vec::new(),
            Vec::new(),
        ]
    });
    assert!(distance(&found[1], &found[0]) <= 1e-12);
}

#[test]
fn one_pass_for_value_and_gradient_matches_two_passes() {
    for symmetric in [false, true] {
        let problem = Problem::of(symmetric, 70, 66, 4);
        let sums = &forms(symmetric)[2];
        let form = Form {
            reductions: sums.reductions[..1].to_vec(),
            ..sums.clone()
        };
        for pass in [backend::pass::<Flex>, chunked::pass::<Flex>] {
            let mut inputs = inputs(&problem, symmetric, DType::F64);
            let together = pass(inputs.clone(), &form.with_gradient(wanted(&form)));
            let results = pass(inputs.clone(), &form.forward(false)).results;
            let len = results.shape().num_elements();
            let upstream = vector(&vec![1.0; len], DType::F64);
            append_results(&mut inputs, results.clone(), upstream, &form);
            let after = pass(inputs, &form.backward(wanted(&form)));
            let one = [
                elements(together.results),
                elements(together.left),
                Vec::new(),
                Vec::new(),
            ];
            let two = [
                [elements(results), elements(after.results)].concat(),
                elements(after.left),
                Vec::new(),
                Vec::new(),
            ];
            assert!(distance(&one, &two) <= 1e-12);
        }
    }
}
