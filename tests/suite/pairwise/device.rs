//! What only devices with a queue of launches can get wrong: blocks in device memory, laziness, rounding.

use burn_contrastive::pairwise::Precision;

use super::*;

/// Where references are computed: a device's own products would be tuned, for longer than the test takes.
fn reference() -> How {
    How {
        device: Device::flex().autodiff(),
        dtype: DType::F64,
        evaluation: Evaluation::Dense,
        budget: 0,
    }
}

/// Blocks of 128 × 128, the smallest that there are.
const LITTLE: usize = 1;

pub fn blocks_match_the_dense_reference(backend: &Backend) {
    for (case, inputs) in cases(150, 130, 3, 150) {
        println!("{}", case.name);
        let dense = evaluate(&case, &inputs, &reference());
        let how = How::new(backend, DType::F32).with(Evaluation::Auto, LITTLE);
        assert_same(case.name, &evaluate(&case, &inputs, &how), &dense, 2e-5);
    }
}

pub fn sizes_around_the_tile_of_a_cube(backend: &Backend) {
    let case = edge_case();
    for (n, m) in [(31, 129), (33, 127), (1, 1030), (1030, 1)] {
        let inputs = inputs(n, m, 3, 160 + n as u64);
        println!("{n} × {m}");
        let dense = evaluate(&case, &inputs, &reference());
        let how = How::new(backend, DType::F32).with(Evaluation::Auto, 1 << 30);
        assert_same(case.name, &evaluate(&case, &inputs, &how), &dense, 2e-5);
    }
}

/// Loss and gradients of a softmax over blocks.
fn bits(backend: &Backend, precision: Precision) -> Vec<Vec<f64>> {
    let device = backend.device.clone().autodiff();
    let leaf = |rows, seed| on(&device, &random(rows, 20, seed), DType::F32).require_grad();
    let (a, b) = (leaf(150, 170), leaf(140, 171));
    let pairs = Pairs::new(a.clone(), b.clone())
        .with_memory_budget(LITTLE)
        .with_precision(precision);
    let logit = pairs.similarity() * 2.0;
    let results = pairs.reduce(&[
        rows().log_sum_exp(&logit),
        columns().softmax_mean(&logit, &logit.sigmoid()),
    ]);
    let loss = results
        .iter()
        .cloned()
        .map(Tensor::sum)
        .reduce(|x, y| x + y);
    let gradients = loss.unwrap().backward();
    let results = results.into_iter().map(numbers);
    results
        .chain([&a, &b].map(|x| numbers(x.grad(&gradients).unwrap())))
        .collect()
}

pub fn two_runs_give_the_same_bits(backend: &Backend) {
    let bits = || bits(backend, Precision::Full);
    assert_eq!(bits(), bits());
}

pub fn rounded_products_are_as_good_as_their_type(backend: &Backend) {
    let full = bits(backend, Precision::Full);
    // Rounding of both factors, and of the coefficients.
    for (precision, tolerance) in [
        (Precision::Tf32, 2f64.powi(-9)),
        (Precision::Bf16, 2f64.powi(-6)),
    ] {
        let rounded = bits(backend, precision);
        for (rounded, full) in rounded.iter().zip(&full) {
            assert_close(rounded, full, tolerance);
        }
    }
}

pub fn what_is_declared_is_what_comes_back(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    for (n, m) in [(5, 7), (130, 3)] {
        let leaf = |rows, seed| on(&device, &random(rows, 6, seed), DType::F32).require_grad();
        let (a, b) = (leaf(n, 180), leaf(m, 181));
        let mut pairs = Pairs::new(a.clone(), b.clone());
        let c = pairs.similarity();
        let scalar = Tensor::<1>::ones([1], &device).require_grad();
        let (row, column) = (
            a.clone().sum_dim(1).flatten(0, 1),
            b.clone().sum_dim(1).flatten(0, 1),
        );
        let x = &(&c * &pairs.scalar(scalar.clone())) + &(pairs.row(row) * pairs.column(column));
        let mut results = pairs.clone().reduce(&[
            rows().log_sum_exp(&x),
            columns().softmax_mean(&x, &c),
            rows().sum(&c),
        ]);
        results.push(pairs.total(&x.square()));
        let loss = results
            .iter()
            .cloned()
            .map(Tensor::sum)
            .reduce(|x, y| x + y);
        let gradients = loss.unwrap().backward();
        let check = |shape: Vec<usize>, dtype: DType, data: TensorData| {
            assert_eq!((shape, dtype), (data.shape().to_vec(), data.dtype()));
        };
        for result in results {
            check(result.dims().into(), result.dtype(), result.into_data());
        }
        let gradient = scalar.grad(&gradients).unwrap();
        check(
            gradient.dims().into(),
            gradient.dtype(),
            gradient.into_data(),
        );
        for gradient in [&a, &b].map(|x| x.grad(&gradients).unwrap()) {
            check(
                gradient.dims().into(),
                gradient.dtype(),
                gradient.into_data(),
            );
        }
    }
}
