//! Time and peak memory of every objective, forward and backward, as multiples of InfoNCE's:
//! `cargo bench --bench objectives -- [pairs] [width] [rounds]`.
//!
//! The objectives are those of the catalogue, by name and at their defaults, with hard negatives,
//! noise and a queue as large as the batch's tenth. They take turns within each round, so that
//! whatever else the machine does falls on all alike; a ratio is the median of the rounds' ratios.
//! Memory is the most that was live on the heap above the embeddings.

#[path = "../tests/counting/mod.rs"]
mod counting;

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_contrastive::objective::{AnyConfig, Features, Objective, ObjectiveConfig};
use burn_contrastive::pairwise::Evaluation;
use counting::peak_of;
use rand::{RngExt, SeedableRng, rngs::StdRng};

fn random<const R: usize>(shape: [usize; R], seed: u64, device: &Device) -> Tensor<R> {
    let mut rng = StdRng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Everything that an objective may need; three pairs share a label.
fn features(pairs: usize, width: usize, device: &Device) -> Features {
    let few = pairs.div_ceil(10);
    let labels: Vec<i32> = (0..pairs as i32).map(|pair| pair / 3).collect();
    Features {
        teacher_image: Some(random([pairs, width], 3, device)),
        teacher_text: Some(random([pairs, width], 4, device)),
        queue_image: Some(random([few, width], 5, device)),
        queue_text: Some(random([few, width], 6, device)),
        noise: Some(random([128, width], 7, device)),
        hard_image: Some(random([pairs, 2, width], 8, device)),
        hard_text: Some(random([pairs, 2, width], 9, device)),
        label: Some(Tensor::<1, Int>::from_data(labels.as_slice(), device)),
        ..Features::new(
            random([pairs, width], 1, device),
            random([pairs, width], 2, device),
        )
    }
}

/// Seconds of an evaluation, and its peak bytes.
fn evaluate(objective: &Objective, features: &Features) -> [f64; 2] {
    let mut seconds = 0.0;
    let [peak, _] = peak_of(|| {
        let features = Features {
            image: features.image.clone().require_grad(),
            text: features.text.clone().require_grad(),
            ..features.clone()
        };
        let start = Instant::now();
        let gradients = objective.forward(&features).backward();
        assert!(features.image.grad(&gradients).is_some());
        assert!(features.text.grad(&gradients).is_some());
        seconds = start.elapsed().as_secs_f64();
    });
    [seconds, peak as f64]
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|x| x.parse().ok()).collect();
    let argument = |k: usize, default| numbers.get(k).copied().unwrap_or(default);
    let (pairs, width, rounds) = (argument(0, 1024), argument(1, 512), argument(2, 5));
    let device = Device::default().autodiff();
    let few = features(pairs.min(256), width, &device);
    let features = features(pairs, width, &device);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("N = {pairs}, D = {width}, {threads} threads, medians of {rounds} rounds\n");
    let header = "| time | × | memory | × ";
    println!("| objective {}|", header.repeat(2));
    println!("| --- {}|", "| --: ".repeat(8));

    // InfoNCE is the first.
    let names = AnyConfig::names().into_iter();
    let names: Vec<_> = names.filter(|&name| name != "sum").collect();
    let columns = [Evaluation::Streaming, Evaluation::Auto].map(|evaluation| {
        let objective = |name: &&str| {
            let config = ObjectiveConfig::named(name).expect("a name of the list");
            config.with_evaluation(evaluation).init(&device)
        };
        let objectives: Vec<_> = names.iter().map(objective).collect();
        for objective in &objectives {
            evaluate(objective, &few); // warms up
        }
        let round = |_| -> Vec<_> {
            let evaluate = |objective| evaluate(objective, &features);
            objectives.iter().map(evaluate).collect()
        };
        let rounds: Vec<Vec<[f64; 2]>> = (0..rounds).map(round).collect();
        let median_of =
            |f: &dyn Fn(&[[f64; 2]]) -> f64| median(rounds.iter().map(|r| f(r)).collect());
        let cells = |k: usize| {
            let [time, memory] = [0, 1].map(|what| {
                let value = median_of(&|round| round[k][what]);
                (value, median_of(&|round| round[k][what] / round[0][what]))
            });
            format!(
                "| {:.1} ms | {:.2} | {:.1} MB | {:.2} ",
                1e3 * time.0,
                time.1,
                memory.0 / 1e6,
                memory.1
            )
        };
        (0..names.len()).map(cells).collect::<Vec<_>>()
    });
    for (name, cells) in names.iter().zip(columns[0].iter().zip(&columns[1])) {
        println!("| {name} {}{}|", cells.0, cells.1);
    }
    println!(
        "\nThe first four columns streaming, the others with similarities kept within the budget."
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
