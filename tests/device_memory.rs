//! GPU memory stays far below the size of the similarity matrix, by the largest allocation that the
//! memory pools of the device ever served. A test binary of its own, since pools keep what they
//! once reserved.
#![cfg(feature = "wgpu")]

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_contrastive::objective::InfoNceConfig;
use burn_contrastive::pairwise::{Evaluation, Expr, Pairs, columns, hardest, rows};
use burn_contrastive::similarity::SimilarityConfig;
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::MemoryScope;

const PAIRS: usize = 4096;
const WIDTH: usize = 16;
const MIB: u64 = 1 << 20;
const BUDGET: usize = MIB as usize;
/// Similarities of all pairs, in bytes.
const MATRIX: u64 = 4 * (PAIRS * PAIRS) as u64;

/// The largest allocation that any pool of the device ever served, and what all of them hold.
fn pools() -> [u64; 2] {
    let report = CubeDevice::Wgpu(Default::default())
        .client()
        .memory_report(MemoryScope::Device);
    let largest = report
        .streams
        .iter()
        .flat_map(|stream| {
            let pools = &stream.pools;
            pools
                .dynamic
                .iter()
                .chain([&pools.persistent, &pools.dedicated])
        })
        .map(|pool| pool.largest_alloc)
        .max();
    [largest.unwrap_or(0), report.usage().bytes_reserved]
}

fn embeddings(seed: f64, device: &Device) -> Tensor<2> {
    let values: Vec<_> = (0..PAIRS * WIDTH)
        .map(|k| (k as f64 * seed).sin())
        .collect();
    let data = TensorData::new(values, [PAIRS, WIDTH]).convert_dtype(DType::F32);
    Tensor::from_data(data, device)
}

/// A loss of two sets of embeddings.
type Loss = fn(Pairs, Tensor<2>) -> Tensor<1>;

fn sum(results: Vec<Tensor<1>>) -> Tensor<1> {
    results
        .into_iter()
        .map(Tensor::sum)
        .reduce(|x, y| x + y)
        .expect("there are results")
}

#[test]
fn no_family_takes_memory_of_the_size_of_the_matrix() {
    let device = Device::wgpu(Default::default()).autodiff();
    let [a, b] = [0.37, 0.41].map(|seed| embeddings(seed, &device).require_grad());
    let teacher = embeddings(0.53, &device);
    let losses: [(&str, Loss); 5] = [
        ("log-sum-exps", |pairs, _| {
            let c = pairs.similarity();
            let reductions = [
                &c * 1.5,
                &c * 0.5,
                c.except(&(&Expr::constant(0.1) - &c).step()),
            ];
            let both = |x: &Expr| {
                let x = x.except(&Expr::diagonal());
                [rows().log_sum_exp(&x), columns().log_sum_exp(&x)]
            };
            sum(pairs.reduce(&reductions.iter().flat_map(both).collect::<Vec<_>>()))
        }),
        ("soft targets", |mut pairs, teacher| {
            let target = pairs.teacher(teacher.clone(), teacher);
            let logit = pairs.similarity();
            sum(pairs.reduce(&[
                rows().softmax_mean(&target, &logit),
                columns().softmax_mean(&target, &logit),
            ]))
        }),
        ("pointwise", |pairs, _| {
            let cost = (pairs.similarity() - 0.2).softplus();
            pairs.total(&cost)
        }),
        ("hardest", |pairs, _| {
            let [by_row, by_column] = hardest(pairs, &Expr::diagonal());
            by_row.similarity.sum() + by_column.similarity.sum()
        }),
        ("within", |pairs, a| {
            let within = Pairs::within(a.require_grad()).with_memory_budget(BUDGET);
            let logit = within.similarity().except(&Expr::diagonal());
            within.reduce(&[rows().log_sum_exp(&logit)])[0]
                .clone()
                .sum()
                + pairs.total(&Expr::constant(1.0))
        }),
    ];
    let [_, before] = pools();
    for evaluation in [Evaluation::Streaming, Evaluation::Auto] {
        let similarity = SimilarityConfig::new()
            .with_evaluation(evaluation)
            .with_memory_budget(BUDGET);
        let info_nce = InfoNceConfig::new()
            .with_similarity(similarity)
            .init(&device);
        info_nce.forward(a.clone(), b.clone()).backward();
        for (_, loss) in &losses {
            let pairs = Pairs::new(a.clone(), b.clone())
                .with_evaluation(evaluation)
                .with_memory_budget(BUDGET);
            loss(pairs, teacher.clone()).backward();
        }
        // Wait until all launches are done.
        device.sync().unwrap();
        let [largest, reserved] = pools();
        println!(
            "{evaluation:?}: largest {largest}, reserved {before} + {}",
            reserved - before
        );
        assert!(
            largest <= MATRIX / 8,
            "{evaluation:?}: an allocation of {largest} bytes"
        );
        assert!(
            reserved - before <= MATRIX / 2,
            "{evaluation:?}: {} bytes reserved, the matrix has {MATRIX}",
            reserved - before
        );
    }

    // The dense evaluation allocates the matrix, and the test sees it.
    let dense = Pairs::new(a, b).with_evaluation(Evaluation::Dense);
    let logit = dense.similarity();
    dense.reduce(&[rows().log_sum_exp(&logit)])[0]
        .clone()
        .sum()
        .backward();
    device.sync().unwrap();
    assert!(pools()[0] >= MATRIX);
}
