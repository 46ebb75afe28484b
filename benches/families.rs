//! Time of every family of reductions, forward and backward, as a multiple of InfoNCE's:
//! `cargo bench --bench families -- [pairs] [width] [rounds]`.
//!
//! The families take turns within each round, so that whatever else the machine does falls on all alike;
//! a ratio is the median of the rounds' ratios.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::objective::InfoNceConfig;
use burn_contrastive::pairwise::{
    Evaluation, Expr, Pairs, Positives, columns, hardest, log_add_exp, rows, soft_targets,
    softmax_above, weighted_softmax,
};
use burn_contrastive::similarity::{SimilarityConfig, l2_normalize};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Two sets of normalised embeddings of each kind.
struct Embeddings {
    image: Tensor<2>,
    text: Tensor<2>,
    teacher_image: Tensor<2>,
    teacher_text: Tensor<2>,
}

const SCALE: f64 = 1.0 / 0.07;

type Loss = fn(&Embeddings, Evaluation) -> Tensor<1>;

/// Every family, with the loss that stands for it.
const FAMILIES: [(&str, Loss); 9] = [
    ("softmax (InfoNCE)", info_nce),
    ("several blocks (NT-Xent)", several_blocks),
    ("weighted softmax (SRCL)", weighted),
    ("removal by weight", removal),
    ("soft targets", targets),
    ("pointwise (SigLIP)", sigmoid),
    ("pointwise (sum of hinges)", hinges),
    ("pointwise (ReCo)", squares),
    ("hardest (VSE++)", hardest_negatives),
];

fn info_nce(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let similarity = SimilarityConfig::new()
        .with_normalize(false)
        .with_evaluation(evaluation);
    InfoNceConfig::new()
        .with_similarity(similarity)
        .init(&e.image.device())
        .forward(e.image.clone(), e.text.clone())
}

fn pairs(e: &Embeddings, evaluation: Evaluation) -> Pairs {
    Pairs::new(e.image.clone(), e.text.clone()).with_evaluation(evaluation)
}

fn several_blocks(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let across = pairs(e, evaluation);
    let logit = across.similarity() * SCALE;
    let positive = Expr::select(&Expr::diagonal(), &logit, &Expr::constant(0.0));
    let results = across.reduce(&[
        rows().log_sum_exp(&logit),
        columns().log_sum_exp(&logit),
        rows().sum(&positive),
    ]);
    let own = |x: &Tensor<2>| {
        let within = Pairs::within(x.clone()).with_evaluation(evaluation);
        let logit = (within.similarity() * SCALE).except(&Expr::diagonal());
        within.reduce(&[rows().log_sum_exp(&logit)]).remove(0)
    };
    let image = log_add_exp(&[results[0].clone(), own(&e.image)]);
    let text = log_add_exp(&[results[1].clone(), own(&e.text)]);
    (image + text - results[2].clone() * 2.0).mean()
}

/// The SRCL weight's logarithm, and the logits.
fn srcl(e: &Embeddings, evaluation: Evaluation) -> (Pairs, Expr, Expr) {
    let mut pairs = pairs(e, evaluation);
    let (c, alpha) = (pairs.similarity(), 0.7);
    let teacher = pairs.teacher(e.teacher_image.clone(), e.teacher_text.clone());
    let mixed = teacher.exp() * alpha + c.exp() * (1.0 - alpha);
    (pairs, c * SCALE, (-mixed.log()).detach())
}

fn weighted(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let (pairs, logit, log_weight) = srcl(e, evaluation);
    let sums = weighted_softmax(pairs, &logit, &log_weight, &Expr::diagonal());
    (sums.rows + sums.columns).mean()
}

fn removal(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let (pairs, logit, log_weight) = srcl(e, evaluation);
    let sums = softmax_above(pairs, &logit, &log_weight, 0.9, &Expr::diagonal());
    (sums.rows + sums.columns).mean()
}

fn targets(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let mut pairs = pairs(e, evaluation);
    let teacher = pairs.teacher(e.teacher_image.clone(), e.teacher_text.clone()) * SCALE;
    let logit = pairs.similarity() * SCALE;
    let [by_row, by_column] = soft_targets(pairs, &logit, &teacher);
    (by_row.cross_entropy() + by_column.cross_entropy()).mean()
}

fn sigmoid(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let pairs = pairs(e, evaluation);
    let logit = pairs.similarity() * 10.0 - 10.0;
    let signed = Expr::select(&Expr::diagonal(), &-&logit, &logit);
    pairs.total(&signed.softplus())
}

fn hinges(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let positive = (e.image.clone() * e.text.clone())
        .sum_dim(1)
        .squeeze_dim::<1>(1);
    let mut pairs = pairs(e, evaluation);
    let c = pairs.similarity();
    let own = [pairs.row(positive.clone()), pairs.column(positive)];
    let [by_row, by_column] = own.map(|own| (&c - own + 0.2).relu());
    let zero = Expr::constant(0.0);
    pairs.total(&Expr::select(
        &Expr::diagonal(),
        &zero,
        &(by_row + by_column),
    ))
}

fn squares(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let pairs = pairs(e, evaluation);
    let c = pairs.similarity();
    let positive = (-&c + Expr::constant(1.0)).square();
    pairs.total(&Expr::select(
        &Expr::diagonal(),
        &positive,
        &(c.relu().square() * 0.6),
    ))
}

fn hardest_negatives(e: &Embeddings, evaluation: Evaluation) -> Tensor<1> {
    let positive = (e.image.clone() * e.text.clone())
        .sum_dim(1)
        .squeeze_dim::<1>(1);
    let mut pairs = pairs(e, evaluation);
    let left_out = Positives::Diagonal.of(&mut pairs);
    let [by_row, by_column] = hardest(pairs, &left_out);
    let hinge =
        |similarity: Tensor<1>| burn::tensor::activation::relu(similarity - positive.clone() + 0.2);
    (hinge(by_row.similarity) + hinge(by_column.similarity)).sum()
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|x| x.parse().ok()).collect();
    let argument = |k: usize, default| numbers.get(k).copied().unwrap_or(default);
    let (pairs, width, rounds) = (argument(0, 1024), argument(1, 512), argument(2, 7));
    let device = Device::default().autodiff();
    let embeddings = |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let values: Vec<f32> = (0..pairs * width)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect();
        l2_normalize(Tensor::from_data(
            TensorData::new(values, [pairs, width]),
            &device,
        ))
        .detach()
    };
    let [image, text, teacher_image, teacher_text] = [1, 2, 3, 4].map(embeddings);
    println!(
        "N = {pairs}, D = {width}, {} threads, medians of {rounds} rounds\n",
        threads()
    );
    println!(
        "| family | streaming | × InfoNCE | auto | × InfoNCE |\n| --- | --: | --: | --: | --: |"
    );
    let measured = [Evaluation::Streaming, Evaluation::Auto].map(|evaluation| {
        let evaluate = |loss: Loss| {
            let e = Embeddings {
                image: image.clone().require_grad(),
                text: text.clone().require_grad(),
                teacher_image: teacher_image.clone(),
                teacher_text: teacher_text.clone(),
            };
            let start = Instant::now();
            let gradients = loss(&e, evaluation).backward();
            assert!(e.image.grad(&gradients).is_some() && e.text.grad(&gradients).is_some());
            start.elapsed().as_secs_f64()
        };
        for (_, loss) in &FAMILIES {
            evaluate(*loss); // warms up
        }
        let rounds: Vec<Vec<f64>> = (0..rounds)
            .map(|_| FAMILIES.iter().map(|(_, loss)| evaluate(*loss)).collect())
            .collect();
        let column = |f: &dyn Fn(&[f64], usize) -> f64| -> Vec<f64> {
            (0..FAMILIES.len())
                .map(|k| median(rounds.iter().map(|round| f(round, k)).collect()))
                .collect()
        };
        [
            column(&|round, k| round[k] * 1e3),
            column(&|round, k| round[k] / round[0]),
        ]
    });
    let [[streaming, by_streaming], [auto, by_auto]] = measured;
    for (k, (name, _)) in FAMILIES.iter().enumerate() {
        println!(
            "| {name} | {:.1} ms | {:.2} | {:.1} ms | {:.2} |",
            streaming[k], by_streaming[k], auto[k], by_auto[k]
        );
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
