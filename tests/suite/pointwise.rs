//! Sums over pairs, hinges, distances and correlations: each against the oracle, and their invariants.

use burn::tensor::{DType, Device, Tensor};
use burn_contrastive::objective::{
    AlignmentConfig, BarlowTwinsConfig, ConVsePlusPlusConfig, MaxMarginConfig, OrthogonalityConfig,
    ReCoConfig, Reduction, SigLipConfig, UniformityConfig, VseConfig, VsePlusPlusConfig,
};
use burn_contrastive::pairwise::Evaluation;
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};

use super::info_nce::assert_panics;
use super::{Backend, assert_close, numbers, on, random};
use crate::oracle::{self, Matrix, pointwise};

type Loss = fn(&Device, SimilarityConfig, Tensor<2>, Tensor<2>) -> Tensor<1>;

/// An objective, and what the equation says.
struct Case {
    name: &'static str,
    loss: Loss,
    oracle: fn(&Matrix, &Matrix) -> f64,
    /// The losses of the pairs: their mean is `loss`.
    each: Option<Loss>,
    /// Whether a tiny norm is a norm like any other.
    scale_free: bool,
}

macro_rules! case {
    ($name:literal, $config:expr, $oracle:expr $(, each: $each:expr)?) => {
        Case {
            name: $name,
            loss: |device, similarity, image, text| {
                $config.with_similarity(similarity).init(device).forward(image, text)
            },
            oracle: $oracle,
            each: None$(.or(Some(|device, similarity, image, text| {
                $each.with_similarity(similarity).init(device).forward_no_reduction(image, text)
            })))?,
            scale_free: true,
        }
    };
}

/// Every objective once.
fn cases() -> Vec<Case> {
    let mut cases = vec![
        case!("Vse", VseConfig::new(),
            |a, b| pointwise::vse(a, b, 0.2) / a.rows as f64,
            each: VseConfig::new()),
        case!("VsePlusPlus", VsePlusPlusConfig::new(),
            |a, b| pointwise::vse_plus_plus(a, b, 0.2) / a.rows as f64,
            each: VsePlusPlusConfig::new()),
        case!("ConVsePlusPlus", ConVsePlusPlusConfig::new(),
            |a, b| pointwise::vse_plus_plus(a, b, 0.2) / 0.1 / a.rows as f64,
            each: ConVsePlusPlusConfig::new()),
        case!("MaxMargin", MaxMarginConfig::new().with_margin(0.1),
            |a, b| pointwise::max_margin(a, b, 0.1) / a.rows as f64,
            each: MaxMarginConfig::new().with_margin(0.1)),
        case!("ReCo", ReCoConfig::new().with_reduction(Reduction::Mean),
            |a, b| pointwise::reco(a, b, 0.6, 1e-7) / a.rows as f64,
            each: ReCoConfig::new()),
        case!("Orthogonality", OrthogonalityConfig::new().with_reduction(Reduction::Mean),
            |a, b| pointwise::orthogonality(a, b, 0.6, 1e-7) / a.rows as f64,
            each: OrthogonalityConfig::new()),
        case!("SigLip", SigLipConfig::new(),
            |a, b| pointwise::sig_lip(a, b, (10f64.ln() as f32 as f64).exp(), -10.0),
            each: SigLipConfig::new()),
        case!("Alignment", AlignmentConfig::new(), pointwise::alignment,
            each: AlignmentConfig::new()),
        case!("Uniformity", UniformityConfig::new(), |a, b| {
            pointwise::uniformity(a, b, 2.0)
        }),
        case!(
            "BarlowTwins, centred",
            BarlowTwinsConfig::new()
                .with_redundancy_weight(0.3)
                .with_center(true),
            |a, b| pointwise::barlow_twins(a, b, 0.3, true)
        ),
    ];
    for case in &mut cases {
        case.scale_free = !["ReCo", "Orthogonality"].contains(&case.name);
    }
    cases
}

/// The same with other settings.
fn variants() -> Vec<Case> {
    vec![
        case!(
            "Vse, summed",
            VseConfig::new()
                .with_reduction(Reduction::Sum)
                .with_margin(0.5),
            |a, b| pointwise::vse(a, b, 0.5)
        ),
        case!(
            "VsePlusPlus, summed",
            VsePlusPlusConfig::new().with_reduction(Reduction::Sum),
            |a, b| pointwise::vse_plus_plus(a, b, 0.2)
        ),
        case!("ReCo, summed", ReCoConfig::new(), |a, b| pointwise::reco(
            a, b, 0.6, 1e-7
        )),
        case!(
            "Orthogonality, summed",
            OrthogonalityConfig::new(),
            |a, b| pointwise::orthogonality(a, b, 0.6, 1e-7)
        ),
        case!(
            "BarlowTwins, not centred",
            BarlowTwinsConfig::new().with_redundancy_weight(0.3),
            |a, b| pointwise::barlow_twins(a, b, 0.3, false)
        ),
    ]
}

/// Loss, and gradients by image and text.
type Evaluated = [Vec<f64>; 3];

fn evaluate(
    device: &Device,
    case: &Case,
    similarity: SimilarityConfig,
    image: &Matrix,
    text: &Matrix,
    dtype: DType,
) -> Evaluated {
    let [image, text] = [image, text].map(|x| on(device, x, dtype).require_grad());
    let loss = (case.loss)(device, similarity, image.clone(), text.clone());
    let gradients = loss.backward();
    let gradient = |x: Tensor<2>| numbers(x.grad(&gradients).expect("a gradient"));
    [numbers(loss), gradient(image), gradient(text)]
}

fn evaluate_on(backend: &Backend, case: &Case, image: &Matrix, text: &Matrix) -> Evaluated {
    let device = backend.device.clone().autodiff();
    evaluate(
        &device,
        case,
        SimilarityConfig::new(),
        image,
        text,
        DType::F32,
    )
}

fn with(x: &Matrix, values: &[f64]) -> Matrix {
    Matrix::new(x.rows, x.width, values.to_vec())
}

fn expected(case: &Case, image: &Matrix, text: &Matrix) -> Evaluated {
    let by_image = |x: &[f64]| (case.oracle)(&with(image, x), text);
    let by_text = |x: &[f64]| (case.oracle)(image, &with(text, x));
    [
        vec![(case.oracle)(image, text)],
        oracle::gradient(by_image, &image.values, 1e-5),
        oracle::gradient(by_text, &text.values, 1e-5),
    ]
}

#[track_caller]
fn assert_matches(case: &Case, actual: &Evaluated, expected: &Evaluated, tolerance: f64) {
    println!("{}", case.name);
    for (actual, expected) in actual.iter().zip(expected) {
        assert_close(actual, expected, tolerance);
    }
}

fn scaled(x: &Matrix, factor: f64) -> Matrix {
    with(x, &x.values.iter().map(|v| v * factor).collect::<Vec<_>>())
}

// --- right values ---------------------------------------------------------------------------------

pub fn values_and_gradients_match_the_oracle(backend: &Backend) {
    for (n, width) in [(2, 3), (5, 2), (6, 9)] {
        let (image, text) = (random(n, width, 100), random(n, width, 101));
        for case in cases().into_iter().chain(variants()) {
            if n == 2 && case.name == "BarlowTwins, centred" {
                // Two samples correlate by ±1, whatever they are: gradients of rounding.
                continue;
            }
            let actual = evaluate_on(backend, &case, &image, &text);
            assert_matches(&case, &actual, &expected(&case, &image, &text), 3e-5);
        }
    }
}

pub fn f64_matches_the_oracle_to_1e_9(backend: &Backend) {
    if !backend.dtypes.contains(&DType::F64) {
        println!("{:?} has no f64: nothing to check", backend.device);
        return;
    }
    let device = backend.device.clone().autodiff();
    let (image, text) = (random(6, 5, 102), random(6, 5, 103));
    for case in cases() {
        let similarity = SimilarityConfig::new();
        let actual = evaluate(&device, &case, similarity, &image, &text, DType::F64);
        assert_matches(&case, &actual, &expected(&case, &image, &text), 1e-9);
    }
}

pub fn half_precision_is_as_good_as_its_inputs(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    for dtype in backend.half_dtypes() {
        let rounded = |seed| {
            let x = random(6, 9, seed);
            with(&x, &numbers(backend.tensor(&x, dtype)))
        };
        let (image, text) = (rounded(104), rounded(105));
        let ulp = if dtype == DType::F16 { 1e-3 } else { 8e-3 };
        for case in cases() {
            let similarity = SimilarityConfig::new();
            let actual = evaluate(&device, &case, similarity, &image, &text, dtype);
            let expected = expected(&case, &image, &text);
            println!("{}", case.name);
            assert_close(&actual[0], &expected[0], 1e-5);
            assert_close(&actual[1], &expected[1], 2.0 * ulp);
            assert_close(&actual[2], &expected[2], 2.0 * ulp);
        }
    }
}

pub fn the_mean_over_pairs_is_the_loss(backend: &Backend) {
    let (image, text) = (random(5, 4, 106), random(5, 4, 107));
    let tensor = |x| backend.tensor(x, DType::F32);
    for case in cases() {
        let Some(each) = case.each else { continue };
        let similarity = SimilarityConfig::new();
        let each = each(&backend.device, similarity, tensor(&image), tensor(&text));
        assert_eq!(each.dims(), [5], "{}", case.name);
        assert_close(&numbers(each.mean()), &[(case.oracle)(&image, &text)], 1e-5);
    }
}

pub fn matches_open_clip_lightly_and_pytorch_metric_learning(backend: &Backend) {
    let stored: serde_json::Value =
        serde_json::from_str(include_str!("../fixtures/pair_losses/pair_losses.json")).unwrap();
    let number = |v: &serde_json::Value| v.as_f64().unwrap();
    let list =
        |v: &serde_json::Value| -> Vec<f64> { v.as_array().unwrap().iter().map(number).collect() };
    let device = backend.device.clone().autodiff();
    let cases = stored["cases"].as_array().unwrap();
    assert!(cases.len() >= 24, "the fixture lost cases: {}", cases.len());
    for case in cases {
        let input = &stored["inputs"][case["input"].as_u64().unwrap() as usize];
        let [n, width] = ["n", "d"].map(|key| input[key].as_u64().unwrap() as usize);
        let tracked = ["image", "text"].map(|key| {
            let matrix = Matrix::new(n, width, list(&input[key]));
            on(&device, &matrix, DType::F32).require_grad()
        });
        let [image, text] = tracked.clone();
        let parameter = |key: &str| number(&case[key]);
        let name = case["objective"].as_str().unwrap();
        let loss = match name {
            "sig_lip" => {
                let scale =
                    LogitScaleConfig::new().with_temperature(1.0 / parameter("logit_scale"));
                let config = SigLipConfig::new().with_logit_scale(scale);
                let objective = config.with_bias(parameter("bias")).init(&device);
                objective.forward(image, text)
            }
            "barlow_twins" => BarlowTwinsConfig::new()
                .with_redundancy_weight(parameter("weight"))
                .with_center(true)
                .init(&device)
                .forward(image, text),
            "vse" => VseConfig::new()
                .with_margin(parameter("margin"))
                .with_reduction(Reduction::Sum)
                .init(&device)
                .forward(image, text),
            "vse_plus_plus" => VsePlusPlusConfig::new()
                .with_margin(parameter("margin"))
                .with_reduction(Reduction::Sum)
                .init(&device)
                .forward(image, text),
            other => panic!("no objective `{other}`"),
        };
        println!("{name} of {n} pairs");
        let gradients = loss.backward();
        assert_close(&numbers(loss), &[number(&case["loss"])], 1e-5);
        for (x, key) in tracked.iter().zip(["image", "text"]) {
            assert_close(
                &numbers(x.grad(&gradients).unwrap()),
                &list(&case[key]),
                5e-5,
            );
        }
    }
}

pub fn evaluations_agree(backend: &Backend) {
    // More than one block each way.
    let (image, text) = (random(70, 6, 108), random(70, 6, 109));
    let device = backend.device.clone().autodiff();
    for case in cases() {
        let with = |evaluation| {
            let similarity = SimilarityConfig::new()
                .with_evaluation(evaluation)
                .with_memory_budget(1 << 14);
            evaluate(&device, &case, similarity, &image, &text, DType::F32)
        };
        let dense = with(Evaluation::Dense);
        for evaluation in [Evaluation::Auto, Evaluation::Streaming] {
            assert_matches(&case, &with(evaluation), &dense, 1e-4);
        }
    }
}

pub fn the_scale_and_the_bias_of_sig_lip_have_their_gradients(backend: &Backend) {
    let (image, text) = (random(5, 4, 110), random(5, 4, 111));
    let device = backend.device.clone().autodiff();
    let objective = SigLipConfig::new().with_bias(-3.0).init(&device);
    let [a, b] = [&image, &text].map(|x| on(&device, x, DType::F32));
    let gradients = objective.forward(a, b).backward();
    let loss = |x: &[f64]| pointwise::sig_lip(&image, &text, x[0].exp(), x[1]);
    let expected = oracle::gradient(loss, &[10f64.ln(), -3.0], 1e-4);
    let scale = objective.logit_scale.log_scale.val().grad(&gradients);
    let bias = objective.bias.val().grad(&gradients);
    assert_close(&numbers(scale.unwrap()), &expected[..1], 1e-5);
    assert_close(&numbers(bias.unwrap()), &expected[1..], 1e-5);
}

pub fn uniformity_within_a_modality_matches_the_oracle(backend: &Backend) {
    let x = random(6, 4, 112);
    let device = backend.device.clone().autodiff();
    let tracked = on(&device, &x, DType::F32).require_grad();
    let loss = UniformityConfig::new()
        .init(&device)
        .forward_within(tracked.clone());
    let gradients = loss.backward();
    let oracle = |values: &[f64]| pointwise::uniformity_within(&with(&x, values), 2.0);
    assert_close(&numbers(loss), &[oracle(&x.values)], 1e-5);
    assert_close(
        &numbers(tracked.grad(&gradients).unwrap()),
        &oracle::gradient(oracle, &x.values, 1e-5),
        3e-5,
    );
}

pub fn uniformity_with_a_large_t_matches_the_oracle(backend: &Backend) {
    let (image, text) = (random(5, 3, 150), random(5, 3, 151));
    let case = case!(
        "Uniformity",
        UniformityConfig::new().with_t(40.0),
        |a, b| { pointwise::uniformity(a, b, 40.0) }
    );
    let actual = evaluate_on(backend, &case, &image, &text);
    assert_matches(&case, &actual, &expected(&case, &image, &text), 1e-4);
}

pub fn uniformity_takes_unequal_numbers(backend: &Backend) {
    let (image, text) = (random(3, 4, 113), random(8, 4, 114));
    let [a, b] = [&image, &text].map(|x| backend.tensor(x, DType::F32));
    let loss = UniformityConfig::new().init(&backend.device).forward(a, b);
    let expected = pointwise::uniformity(&image, &text, 2.0);
    assert_close(&numbers(loss), &[expected], 1e-5);
}

// --- degenerate and hostile input -----------------------------------------------------------------

pub fn a_single_pair_matches_the_oracle(backend: &Backend) {
    let (image, text) = (random(1, 4, 115), random(1, 4, 116));
    for case in cases() {
        let actual = evaluate_on(backend, &case, &image, &text);
        println!("{}", case.name);
        assert_close(&actual[0], &[(case.oracle)(&image, &text)], 1e-5);
        let finite = |x: &Vec<f64>| x.iter().all(|v| v.is_finite());
        assert!(actual.iter().all(finite), "{actual:?}");
    }
    let one = on(&backend.device, &image, DType::F32);
    let uniformity = UniformityConfig::new().init(&backend.device);
    assert_eq!(numbers(uniformity.forward_within(one)), [0.0]);
}

pub fn zero_rows_have_their_cosines_and_finite_gradients(backend: &Backend) {
    let (mut image, text) = (random(4, 5, 117), random(4, 5, 118));
    image.values[5..10].fill(0.0);
    for case in cases() {
        let actual = evaluate_on(backend, &case, &image, &text);
        println!("{}", case.name);
        assert_close(&actual[0], &[(case.oracle)(&image, &text)], 1e-5);
        let finite = |x: &Vec<f64>| x.iter().all(|v| v.is_finite());
        assert!(actual.iter().all(finite), "{actual:?}");
    }
}

pub fn huge_and_tiny_norms_change_nothing(backend: &Backend) {
    let (image, text) = (random(4, 5, 119), random(4, 5, 120));
    for case in cases() {
        let plain = evaluate_on(backend, &case, &image, &text);
        for magnitude in [1e-20, 1e20] {
            if magnitude < 1.0 && !case.scale_free {
                continue;
            }
            let actual = evaluate_on(backend, &case, &scaled(&image, magnitude), &text);
            let by_image: Vec<_> = plain[1].iter().map(|g| g / magnitude).collect();
            let expected = [plain[0].clone(), by_image, plain[2].clone()];
            assert_matches(&case, &actual, &expected, 1e-4);
        }
    }
}

pub fn norms_below_epsilon_are_divided_by_it(backend: &Backend) {
    let (mut image, text) = (random(3, 4, 121), random(3, 4, 122));
    image.values[..4].copy_from_slice(&[2e-8, -1e-8, 3e-8, 0.0]);
    let device = backend.device.clone().autodiff();
    for case in cases().into_iter().filter(|case| !case.scale_free) {
        let similarity = SimilarityConfig::new();
        let actual = evaluate(&device, &case, similarity, &image, &text, DType::F32);
        let loss = |x: &[f64]| (case.oracle)(&with(&image, x), &text);
        let by_image = oracle::gradient_at(loss, &image.values, 1e-11, &[0, 1, 2, 3]);
        println!("{}", case.name);
        assert_close(&actual[0], &[loss(&image.values)], 1e-5);
        assert_close(&actual[1][..4], &by_image, 1e-4);
    }
}

pub fn duplicates_match_the_oracle(backend: &Backend) {
    let (mut image, mut text) = (random(4, 5, 123), random(4, 5, 124));
    image.values.copy_within(0..5, 5);
    text.values.copy_within(0..5, 5);
    for case in cases() {
        let actual = evaluate_on(backend, &case, &image, &text);
        println!("{}", case.name);
        assert_close(&actual[0], &[(case.oracle)(&image, &text)], 1e-5);
    }
}

pub fn nan_in_gives_nan_out(backend: &Backend) {
    for n in [1, 3] {
        let good = random(n, 4, 125);
        let mut bad = good.clone();
        bad.values[1] = f64::NAN;
        for case in cases() {
            for (image, text) in [(&bad, &good), (&good, &bad)] {
                let [image, text] = [image, text].map(|x| backend.tensor(x, DType::F32));
                let similarity = SimilarityConfig::new();
                let loss = numbers((case.loss)(&backend.device, similarity, image, text));
                assert!(loss[0].is_nan(), "{}, {n} pairs: {loss:?}", case.name);
            }
        }
    }
}

pub fn an_untracked_side_changes_nothing_for_the_other(backend: &Backend) {
    let (image, text) = (random(4, 5, 126), random(4, 5, 127));
    let device = backend.device.clone().autodiff();
    for case in cases() {
        let both = evaluate_on(backend, &case, &image, &text);
        let tracked = on(&device, &image, DType::F32).require_grad();
        let frozen = on(&device, &text, DType::F32);
        let similarity = SimilarityConfig::new();
        let loss = (case.loss)(&device, similarity, tracked.clone(), frozen.clone());
        let gradients = loss.backward();
        println!("{}", case.name);
        assert_close(&numbers(tracked.grad(&gradients).unwrap()), &both[1], 1e-5);
        assert!(frozen.grad(&gradients).is_none());
    }
}

pub fn works_under_gradient_checkpointing(backend: &Backend) {
    let (image, text) = (random(4, 5, 128), random(4, 5, 129));
    let device = backend.device.clone().autodiff().gradient_checkpointing();
    for case in cases() {
        let similarity = SimilarityConfig::new();
        let actual = evaluate(&device, &case, similarity, &image, &text, DType::F32);
        assert_matches(
            &case,
            &actual,
            &evaluate_on(backend, &case, &image, &text),
            1e-5,
        );
    }
}

pub fn refuses_different_numbers_of_rows(backend: &Backend) {
    for case in cases().iter().filter(|case| case.name != "Uniformity") {
        let [image, text] = [[4, 3], [5, 3]].map(|s| Tensor::<2>::zeros(s, &backend.device));
        let of = case.name.split(',').next().unwrap();
        let message = format!("{of}: `image` has 4 rows, `text` has 5");
        assert_panics(&message, || {
            let _ = (case.loss)(&backend.device, SimilarityConfig::new(), image, text);
        });
    }
}

pub fn sig_lip_refuses_embeddings_of_another_autodiff(backend: &Backend) {
    let objective = SigLipConfig::new().init(&backend.device);
    let tracked = Tensor::<2>::zeros([2, 3], &backend.device.clone().autodiff());
    assert_panics("SigLip: the objective is on", || {
        let _ = objective.forward(tracked.clone(), tracked);
    });
}

// --- identities -----------------------------------------------------------------------------------

/// The loss of each case on changed embeddings is that on the embeddings as they were.
fn nothing_changes(
    backend: &Backend,
    change: impl Fn(&str, Tensor<2>, Tensor<2>) -> [Tensor<2>; 2],
) {
    for (n, width, seed) in [(1, 1, 160), (2, 3, 162), (7, 4, 164), (8, 9, 166)] {
        let similarity = SimilarityConfig::new();
        let [image, text] =
            [seed, seed + 1].map(|seed| backend.tensor(&random(n, width, seed), DType::F32));
        for case in cases() {
            let loss = |image, text| numbers((case.loss)(&backend.device, similarity, image, text));
            let before = loss(image.clone(), text.clone())[0];
            let [image, text] = change(case.name, image.clone(), text.clone());
            let after = loss(image, text)[0];
            println!("{} of {n} pairs of width {width}", case.name);
            assert!(
                (after - before).abs() < 1e-4 * (1.0 + before.abs()),
                "{after} against {before}"
            );
        }
    }
}

pub fn permuting_the_batch_changes_nothing(backend: &Backend) {
    nothing_changes(backend, |_, image, text| [image, text].map(|x| x.flip([0])));
}

pub fn swapping_the_modalities_changes_nothing(backend: &Backend) {
    nothing_changes(backend, |_, image, text| [text, image]);
}

pub fn scaling_an_embedding_changes_nothing(backend: &Backend) {
    nothing_changes(backend, |name, image, text| {
        // Features of Barlow Twins have one scale each, over the batch.
        let scaled = match name.starts_with("BarlowTwins") {
            true => image.clone().slice_dim(1, 0..1) * 37.5,
            false => image.clone().slice_dim(0, 0..1) * 37.5,
        };
        let shape = scaled.dims();
        [image.slice_assign([0..shape[0], 0..shape[1]], scaled), text]
    });
}

fn loss_of(backend: &Backend, loss: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<1>, seed: u64) -> f64 {
    let (image, text) = (random(6, 5, seed), random(6, 5, seed + 1));
    numbers(loss(
        backend.tensor(&image, DType::F32),
        backend.tensor(&text, DType::F32),
    ))[0]
}

pub fn con_vse_plus_plus_is_vse_plus_plus_over_the_temperature(backend: &Backend) {
    for (seed, weight, temperature) in [(130, 1.0, 0.1), (132, 0.3, 0.7), (134, 0.0, 0.01)] {
        let contrastive = ConVsePlusPlusConfig::new()
            .with_temperature(temperature)
            .init(&backend.device);
        let hinges = VsePlusPlusConfig::new().init(&backend.device);
        let contrastive = loss_of(backend, |a, b| contrastive.forward_at(a, b, weight), seed);
        let hinges = loss_of(backend, |a, b| hinges.forward_at(a, b, weight), seed);
        assert_close(&[contrastive], &[hinges / temperature], 1e-6);
    }
}

pub fn of_two_pairs_the_only_negative_is_the_hardest(backend: &Backend) {
    let (image, text) = (random(2, 5, 136), random(2, 5, 137));
    let tensor = |x| backend.tensor(x, DType::F32);
    let vse = VseConfig::new().init(&backend.device);
    let plus_plus = VsePlusPlusConfig::new().init(&backend.device);
    assert_close(
        &numbers(plus_plus.forward_no_reduction(tensor(&image), tensor(&text))),
        &numbers(vse.forward_no_reduction(tensor(&image), tensor(&text))),
        1e-6,
    );
}

pub fn reco_is_orthogonality_where_no_cosine_is_negative(backend: &Backend) {
    let reco = ReCoConfig::new().init(&backend.device);
    let orthogonality = OrthogonalityConfig::new().init(&backend.device);
    for seed in [138, 140] {
        let positive = loss_of(backend, |a, b| reco.forward(a.abs(), b.abs()), seed);
        let same = loss_of(
            backend,
            |a, b| orthogonality.forward(a.abs(), b.abs()),
            seed,
        );
        assert_close(&[positive], &[same], 1e-6);
        let relaxed = loss_of(backend, |a, b| reco.forward(a, b), seed);
        let strict = loss_of(backend, |a, b| orthogonality.forward(a, b), seed);
        assert!(relaxed < strict, "{relaxed} against {strict}");
    }
}

pub fn barlow_twins_is_orthogonality_of_features(backend: &Backend) {
    let barlow = BarlowTwinsConfig::new()
        .with_redundancy_weight(0.4)
        .init(&backend.device);
    let orthogonality = OrthogonalityConfig::new()
        .with_negative_weight(0.4)
        .init(&backend.device);
    let features = loss_of(backend, |a, b| barlow.forward(a, b), 142);
    let samples = |a: Tensor<2>, b: Tensor<2>| orthogonality.forward(a.transpose(), b.transpose());
    assert_close(&[features], &[loss_of(backend, samples, 142)], 1e-6);
}
