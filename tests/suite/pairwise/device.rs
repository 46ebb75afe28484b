//! Kernels on a device: blocks in device memory, shapes around a tile, and rounded products.

use burn_contrastive::pairwise::Precision;

use super::*;

on_devices! {
    blocks_match_the_dense_reference,
    shapes_around_the_tile_of_a_cube_match_the_dense_reference,
    two_runs_give_the_same_bits,
    rounded_products_are_accurate_to_their_level,
    results_and_gradients_have_the_declared_shape_and_dtype,
}

/// References are computed on the CPU: a device would first tune its products, which takes longer
/// than the test.
fn reference() -> How {
    How {
        device: Device::flex().autodiff(),
        dtype: DType::F64,
        evaluation: Evaluation::Dense,
        budget: 0,
    }
}

/// A budget for blocks of 128 × 128, the smallest.
const SMALL_BUDGET: usize = 1;

fn blocks_match_the_dense_reference(backend: &Backend) {
    for (case, inputs) in cases(150, 130, 3, 150) {
        println!("{}", case.name);
        let dense = evaluate(&case, &inputs, &reference());
        let how = How::new(backend, DType::F32).with(Evaluation::Auto, SMALL_BUDGET);
        assert_same(case.name, &evaluate(&case, &inputs, &how), &dense, 2e-5);
    }
}

fn shapes_around_the_tile_of_a_cube_match_the_dense_reference(backend: &Backend) {
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
    let device = backend.autodiff();
    let leaf = |rows, seed| on(&device, &random(rows, 20, seed), DType::F32).require_grad();
    let (a, b) = (leaf(150, 170), leaf(140, 171));
    let pairs = Pairs::new(a.clone(), b.clone())
        .with_memory_budget(SMALL_BUDGET)
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
    let results = results.into_iter().map(elements);
    results
        .chain([&a, &b].map(|x| gradient(x, &gradients)))
        .collect()
}

fn two_runs_give_the_same_bits(backend: &Backend) {
    let bits = || bits(backend, Precision::Highest);
    assert_eq!(bits(), bits());
}

fn rounded_products_are_accurate_to_their_level(backend: &Backend) {
    let full = bits(backend, Precision::Highest);
    // Both factors and the coefficients are rounded, to 16 bits and to 8.
    for (precision, tolerance) in [
        (Precision::High, 2f64.powi(-14)),
        (Precision::Medium, 2f64.powi(-6)),
    ] {
        let rounded = bits(backend, precision);
        let ran = if rounded == full {
            "in full"
        } else {
            "rounded"
        };
        println!("{precision:?} on {:?}: {ran}", backend.device);
        // CUDA and ROCm, whose half precision the suite requires, have matrix units: a test that
        // compared full precision with itself would prove nothing. (NVIDIA's before sm_80 lack
        // bf16.)
        let has_units = backend.required.contains(&DType::BF16);
        assert!(!has_units || ran == "rounded", "{precision:?} ran in full");
        for (rounded, full) in rounded.iter().zip(&full) {
            assert_close(rounded, full, tolerance);
        }
    }
}

fn results_and_gradients_have_the_declared_shape_and_dtype(backend: &Backend) {
    let device = backend.autodiff();
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
