//! The kernels against plain tensor operations.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Shape, TensorData, read_sync};
use burn_cubecl::CubeDevice;

use super::*;
use crate::pairwise::Precision;
use crate::pairwise::backward::append_results;
use crate::pairwise::evaluation::Limits;
use crate::pairwise::expr::{Expr, Leaf};
use crate::pairwise::form::{Form, Wanted};
use crate::pairwise::reduction::{columns, rows};

fn tensor(values: impl Fn(usize) -> f32, shape: [usize; 2]) -> CubeTensor {
    let data = TensorData::new((0..shape[0] * shape[1]).map(values).collect(), shape);
    CubeBackend::float_from_data(data, &CubeDevice::Wgpu(Default::default()))
}

fn elements(x: CubeTensor) -> Vec<f32> {
    read_sync(CubeBackend::float_into_data(x))
        .unwrap()
        .try_to_vec()
        .unwrap()
}

fn assert_same(own: &[f32], plain: &[f32], tiling: Tiling) {
    let largest = plain.iter().fold(0f32, |l, x| l.max(x.abs()));
    assert_eq!(own.len(), plain.len());
    for (x, y) in own.iter().zip(plain) {
        assert!(
            (x - y).abs() <= 1e-5 * largest,
            "{x} against {y}, {tiling:?}"
        );
    }
}

/// Reductions of every kind, along both axes.
fn form() -> Form {
    let c = Expr::leaf(Leaf::Similarity);
    let logit = &c * &Expr::leaf(Leaf::Row(0)) + &Expr::leaf(Leaf::Column(0));
    Form {
        reductions: vec![
            rows().log_sum_exp(&logit.except(&Expr::diagonal())),
            columns().softmax_mean(&logit, &c),
            rows().max(&c),
            columns().sum(&logit.sigmoid()),
        ],
        rows: 1,
        columns: 1,
        scalars: 0,
        symmetric: false,
        has_norms: false,
        teachers: Vec::new(),
        tokens: [1, 1],
        limits: Limits {
            precision: Precision::Highest,
            budget: 1 << 30,
            block: 1 << 30,
            kept: 0,
        },
        workers: None,
    }
}

/// Also tilings that a software adapter does not choose, against plain tensor operations.
#[test]
fn every_tiling_gives_what_chunks_give() {
    let (n, m) = (70, 150);
    let form = form();
    let number = |seed: f32| move |k: usize| (k as f32 * seed).sin();
    let any = || tensor(number(1.0), [1, 1]);
    let mut inputs = Inputs {
        a: tensor(number(0.7), [n, 5]),
        b: tensor(number(0.9), [m, 5]),
        teacher_a: any(),
        teacher_b: any(),
        rows: tensor(number(1.1), [1, n]),
        columns: tensor(number(1.3), [1, m]),
        scalars: any(),
        mask: any(),
        kept: any(),
    };
    let wanted = Wanted {
        left: true,
        right: true,
        rows: true,
        columns: true,
        scalars: false,
    };
    let small = Tiling {
        lanes: 2,
        lines: 1,
        each: 1,
        tiles: 8,
    };
    let tilings = [Tiling::of(8), Tiling::of(32), small];
    let check = |inputs: &Inputs<CubeBackend>, pass: &Pass| {
        let plain = chunked::pass(inputs.clone(), pass);
        for tiling in tilings {
            let own = Cubes::with_tiling(inputs.clone(), pass, tiling).run();
            let pairs = [
                (own.results, plain.results.clone()),
                (own.left, plain.left.clone()),
                (own.right, plain.right.clone()),
            ];
            for (own, plain) in pairs {
                assert_same(&elements(own), &elements(plain), tiling);
            }
        }
        plain.results
    };
    let results = check(&inputs, &form.forward(false));
    let len = form.result_len([n, m]);
    let upstream = tensor(number(0.3), [1, len]);
    let upstream = CubeBackend::float_reshape(upstream, Shape::new([len]));
    append_results(&mut inputs, results, upstream, &form);
    check(&inputs, &form.backward(wanted));
}
