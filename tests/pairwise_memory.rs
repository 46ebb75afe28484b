//! Forward and backward passes allocate no similarity matrix: peak live bytes and the largest
//! allocation, counted by the allocator of this test binary.
#![cfg(feature = "flex")]

mod counting;

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_contrastive::negatives::{
    FeatureQueueConfig, Features, HardNegativeSamplerConfig, HardNegativeSynthesisConfig,
};
use burn_contrastive::objective::{
    BarlowTwinsConfig, Context, ContrastiveConfig, Criterion, FalseNegativeRemovalConfig,
    InfoNceConfig, MultiPositiveConfig, Negatives, ReCoConfig, SigLipConfig, SrclConfig, Teacher,
    UniformityConfig, VseConfig, VsePlusPlusConfig,
};
use burn_contrastive::pairwise::{Evaluation, Expr, Pairs, Positives, columns, hardest, rows};
use burn_contrastive::similarity::SimilarityConfig;
use counting::peak_of;

const N: usize = 1_536;
const M: usize = 1_024;
const D: usize = 16;
const MIB: usize = 1 << 20;
/// Bytes of the matrix.
const MATRIX: usize = 4 * N * M;

fn embeddings(count: usize, device: &Device) -> Tensor<2> {
    let values = (0..count * D).map(|i| (i as f32 * 0.37).sin()).collect();
    Tensor::from_data(TensorData::new(values, [count, D]), device).require_grad()
}

fn vector(count: usize, device: &Device) -> Tensor<1> {
    let values = (0..count).map(|i| (i as f32 * 0.11).cos()).collect();
    Tensor::from_data(TensorData::new(values, [count]), device).require_grad()
}

type Loss = fn(Pairs, [Expr; 2], &Device) -> Tensor<1>;

fn sum(results: Vec<Tensor<1>>) -> Tensor<1> {
    results
        .into_iter()
        .map(Tensor::sum)
        .reduce(|x, y| x + y)
        .expect("there are results")
}

/// The sum of the log-sum-exps of several logits, along the rows and along the columns.
fn log_sum_exps(pairs: Pairs, logits: &[&Expr], left_out: &Expr) -> Tensor<1> {
    let both = |x: &&Expr| {
        let x = x.except(left_out);
        [rows().log_sum_exp(&x), columns().log_sum_exp(&x)]
    };
    sum(pairs.reduce(&logits.iter().flat_map(both).collect::<Vec<_>>()))
}

/// Every kind of reduction; the second argument is a vector bound to the rows and one bound to the
/// columns.
const FAMILIES: [(&str, Loss); 9] = [
    ("softmax", |pairs, [u, v], _| {
        let logit = pairs.similarity() + u - v;
        log_sum_exps(pairs, &[&logit], &Expr::diagonal())
    }),
    ("softmax, labels left out", |mut pairs, _, device| {
        let ids = |count: usize| Tensor::<1, Int>::arange(0..count as i64, device) / 2;
        let labels = Positives::Labels {
            rows: ids(N),
            columns: ids(M),
        };
        let left_out = labels.of(&mut pairs);
        let logit = pairs.similarity() * 3.0;
        log_sum_exps(pairs, &[&logit], &left_out)
    }),
    ("weights and their sums", |pairs, [u, _], _| {
        let (logit, weight) = (pairs.similarity() * 3.0, pairs.similarity() + u);
        log_sum_exps(pairs, &[&(logit + &weight), &weight], &Expr::diagonal())
    }),
    ("removal below a threshold", |pairs, [u, _], _| {
        let removed = (u - pairs.similarity()).step();
        let logit = pairs.similarity() * 3.0;
        log_sum_exps(pairs, &[&logit.except(&removed)], &Expr::diagonal())
    }),
    ("soft targets of a teacher", |mut pairs, [u, _], device| {
        let target = pairs.teacher(embeddings(N, device), embeddings(M, device)) * 2.0;
        let logit = pairs.similarity() * u;
        sum(pairs.reduce(&[
            rows().log_sum_exp(&logit),
            rows().softmax_mean(&target, &logit),
            columns().log_sum_exp(&logit),
            columns().softmax_mean(&target, &logit),
        ]))
    }),
    ("total of hinges", |pairs, [u, v], _| {
        let hinge = |own: &Expr| (&(pairs.similarity() - own) + 0.2).relu();
        let cost = hinge(&u) + hinge(&v);
        pairs.total(&cost)
    }),
    ("total of softplus", |mut pairs, _, device| {
        let scale = pairs.scalar(vector(1, device));
        let logit = pairs.similarity() * scale;
        let cost = Expr::select(&Expr::diagonal(), &-&logit, &logit).softplus();
        pairs.total(&cost)
    }),
    ("sums along both sides", |pairs, [u, v], _| {
        let cost = (pairs.similarity() * u).sigmoid() * v;
        sum(pairs.reduce(&[rows().sum(&cost), columns().sum(&cost.square())]))
    }),
    ("hardest", |pairs, _, _| {
        let [by_row, by_column] = hardest(pairs, &Expr::diagonal());
        by_row.similarity.sum() + by_column.similarity.sum()
    }),
];

/// Softmax contrasts of several parts.
fn contrasts(device: &Device) -> Vec<(&'static str, Criterion, Context)> {
    let teacher = || Teacher {
        negative_text: Some(embeddings(M, device)),
        ..Teacher::new(embeddings(N, device), embeddings(N, device))
    };
    let queue = || Negatives {
        text: Some(embeddings(M, device)),
        ..Negatives::default()
    };
    let taught = || Context {
        negatives: queue(),
        ..teacher().into()
    };
    let ids = Tensor::<1, Int>::arange(0..N as i64, device) / 3;
    vec![
        (
            "SRCL with a teacher and a queue",
            SrclConfig::new().criterion(),
            taught(),
        ),
        (
            "several positives in both modalities",
            MultiPositiveConfig::new()
                .with_within_modality(true)
                .criterion(),
            Context {
                ids: Some(ids.into()),
                ..Context::default()
            },
        ),
        (
            "false-negative removal, guided and smoothed, by a teacher",
            FalseNegativeRemovalConfig::new()
                .criterion()
                .with_guided_margin(Some(0.0))
                .with_label_smoothing(0.1),
            taught(),
        ),
    ]
}

fn run(loss: Loss, pairs: impl Fn(Tensor<2>, Tensor<2>) -> Pairs, device: &Device) -> [usize; 2] {
    let (a, b) = (embeddings(N, device), embeddings(M, device));
    let (u, v) = (vector(N, device), vector(M, device));
    peak_of(|| {
        let mut pairs = pairs(a.clone(), b.clone());
        let bound = [pairs.row(u.clone()), pairs.column(v.clone())];
        let gradients = loss(pairs, bound, device).backward();
        assert!(a.grad(&gradients).is_some() && b.grad(&gradients).is_some());
    })
}

type Run = fn(SimilarityConfig, [Tensor<2>; 2], &Device);

macro_rules! objective {
    ($config:ident) => {
        (stringify!($config), |similarity, [image, text], device| {
            let objective = $config::new().with_similarity(similarity).init(device);
            objective.forward(image, text).backward();
        })
    };
}

/// Objectives forward and backward, and what draws or makes their negatives.
const OBJECTIVES: [(&str, Run); 9] = [
    objective!(InfoNceConfig),
    objective!(VseConfig),
    objective!(VsePlusPlusConfig),
    objective!(ReCoConfig),
    objective!(SigLipConfig),
    objective!(UniformityConfig),
    objective!(BarlowTwinsConfig),
    ("hard negatives drawn", |similarity, [image, text], _| {
        let sampler = HardNegativeSamplerConfig::new().with_similarity(similarity);
        sampler
            .init()
            .draw_both(image, text, Positives::Diagonal, 0);
    }),
    (
        "hard negatives synthesised",
        |similarity, [image, text], _| {
            let synthesis = HardNegativeSynthesisConfig::new().with_similarity(similarity);
            let synthesis = synthesis.with_max_prototypes(64).init();
            synthesis.synthesize(image, text, 0).unwrap();
        },
    ),
];

/// Bytes of embeddings, their gradients and copies, bound vectors and results.
const VECTORS: usize = 4 * (N + M) * (4 * D + 16);
/// The steps of an expression, for one row of a tile.
const SCRATCH: usize = MIB / 4;

// One test, so that nothing else allocates meanwhile.
#[test]
fn memory_is_bounded_by_the_budget_and_the_embeddings() {
    // Each thread works on a tile: as many as a test of a small matrix can tell from the matrix.
    // SAFETY: the only test of this binary, before anything else runs.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("RAYON_NUM_THREADS", "1");
    }
    let device = Device::flex().autodiff();
    let check = |name: &str, evaluation, budget, [peak, largest]: [usize; 2]| {
        // The similarities that the budget is for, at least a tile, and a tile of the teacher's.
        let tile = MIB;
        let teacher = if name.contains("teacher") { tile } else { 0 };
        let bound = tile.max(budget) + teacher + VECTORS + SCRATCH;
        println!("{name}, {evaluation:?} with {budget}: peak {peak} of {bound}, largest {largest}");
        assert!(
            peak <= bound && largest <= tile.max(budget),
            "{name}, {evaluation:?} with {budget} bytes: peak {peak}, allowed {bound}, \
             largest allocation {largest}"
        );
        assert!(
            budget >= MATRIX || bound < MATRIX / 4 * 3,
            "the bound is too loose: {bound} of {MATRIX}"
        );
    };
    let of = |loss, evaluation, budget| {
        let pairs = |a, b| {
            let pairs = Pairs::new(a, b).with_evaluation(evaluation);
            pairs.with_memory_budget(budget)
        };
        run(loss, pairs, &device)
    };
    // What the backend allocates once and keeps, such as workspaces of products, does not count.
    of(FAMILIES[0].1, Evaluation::Streaming, 1);

    for (name, loss) in FAMILIES {
        check(
            name,
            Evaluation::Streaming,
            MIB,
            of(loss, Evaluation::Streaming, MIB),
        );
    }
    for k in [0, 3, 4] {
        let (name, loss) = FAMILIES[k];
        check(
            name,
            Evaluation::Auto,
            2 * MIB,
            of(loss, Evaluation::Auto, 2 * MIB),
        );
    }
    // Everything is kept, and nothing beside it.
    let (name, loss) = FAMILIES[0];
    check(
        name,
        Evaluation::Auto,
        MATRIX,
        of(loss, Evaluation::Auto, MATRIX),
    );

    let (image, text) = (embeddings(N, &device), embeddings(N, &device));
    let of = |run: Run, evaluation, budget| {
        let similarity = SimilarityConfig::new()
            .with_evaluation(evaluation)
            .with_memory_budget(budget);
        peak_of(|| run(similarity, [image.clone(), text.clone()], &device))
    };
    // A product of the backend's own, and its workspace.
    of(OBJECTIVES[7].1, Evaluation::Streaming, MIB);
    for (name, run) in OBJECTIVES {
        let peak = of(run, Evaluation::Streaming, MIB);
        check(name, Evaluation::Streaming, MIB, peak);
    }
    for (name, run) in &OBJECTIVES[..2] {
        let peak = of(*run, Evaluation::Auto, 2 * MIB);
        check(name, Evaluation::Auto, 2 * MIB, peak);
    }
    // A queue that nothing else holds is written in place.
    let queue = FeatureQueueConfig::new(D).with_capacity(40 * N);
    let queue = queue.init(&device);
    let [_, largest] = peak_of(|| {
        queue.push(Features::new(image.clone(), text.clone()));
    });
    assert!(largest < 4 * N * D, "pushing allocates {largest} bytes");
    let within = || {
        let pairs = Pairs::within(image.clone()).with_evaluation(Evaluation::Streaming);
        let pairs = pairs.with_memory_budget(MIB);
        let logit = pairs.similarity().except(&Expr::diagonal());
        pairs.reduce(&[rows().log_sum_exp(&logit)])[0]
            .clone()
            .sum()
            .backward();
    };
    // Products of one set with itself have workspaces of their own.
    within();
    let similarity = SimilarityConfig::new()
        .with_evaluation(Evaluation::Streaming)
        .with_memory_budget(MIB);
    for (name, criterion, context) in contrasts(&device) {
        let contrast = ContrastiveConfig::new()
            .with_criterion(criterion.with_similarity(similarity))
            .init(&device);
        let peak = peak_of(|| {
            let (image, text) = (image.clone(), text.clone());
            contrast.forward(image, text, context.clone()).backward();
        });
        check(name, Evaluation::Streaming, MIB, peak);
    }
    check(
        "within one set",
        Evaluation::Streaming,
        MIB,
        peak_of(within),
    );
}
