//! Sums over pairs, hinges, distances and correlations: against the oracle, and their invariants.

mod degenerate;
mod identities;
mod values;

use burn::tensor::{DType, Device, Tensor};
use burn_contrastive::objective::{
    AlignmentConfig, BarlowTwinsConfig, BatchReduction, ConVsePlusPlusConfig, Features,
    MaxMarginConfig, Objective, ObjectiveConfig, OrthogonalityConfig, ReCoConfig, SigLipConfig,
    UniformityConfig, VseConfig, VsePlusPlusConfig,
};
use burn_contrastive::schedule::Settings;
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};

use super::*;
use crate::oracle::{self, Matrix, pointwise};

type Loss = fn(&Device, SimilarityConfig, Tensor<2>, Tensor<2>) -> Tensor<1>;

/// An objective, and its equation as naive loops.
struct Case {
    name: &'static str,
    loss: Loss,
    oracle: fn(&Matrix, &Matrix) -> f64,
    /// The losses of the pairs: their mean is `loss`.
    each: Option<Loss>,
    /// Whether norms may be arbitrarily small: without an epsilon that they are clamped to.
    scale_free: bool,
}

macro_rules! case {
    ($name:literal, $config:expr, $oracle:expr $(, each: $each:expr)?) => {
        Case {
            name: $name,
            loss: |_, similarity, image, text| {
                $config.with_similarity(similarity).init().forward(image, text)
            },
            oracle: $oracle,
            each: None$(.or(Some(|_, similarity, image, text| {
                $each.with_similarity(similarity).init().forward_no_reduction(image, text)
            })))?,
            scale_free: true,
        }
    };
}
use case;

/// The one objective here with parameters, which is built on a device.
fn sig_lip() -> Case {
    Case {
        name: "SigLip",
        loss: |device, similarity, image, text| {
            let config = SigLipConfig::new().with_similarity(similarity);
            config.init(device).forward(image, text)
        },
        oracle: |a, b| pointwise::sig_lip(a, b, (10f64.ln() as f32 as f64).exp(), -10.0),
        each: Some(|device, similarity, image, text| {
            let config = SigLipConfig::new().with_similarity(similarity);
            config.init(device).forward_no_reduction(image, text)
        }),
        scale_free: true,
    }
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
        case!("ReCo", ReCoConfig::new().with_reduction(BatchReduction::Mean),
            |a, b| pointwise::reco(a, b, 0.6, 1e-7) / a.rows as f64,
            each: ReCoConfig::new()),
        case!("Orthogonality", OrthogonalityConfig::new().with_reduction(BatchReduction::Mean),
            |a, b| pointwise::orthogonality(a, b, 0.6, 1e-7) / a.rows as f64,
            each: OrthogonalityConfig::new()),
        sig_lip(),
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
                .with_reduction(BatchReduction::Sum)
                .with_margin(0.5),
            |a, b| pointwise::vse(a, b, 0.5)
        ),
        case!(
            "VsePlusPlus, summed",
            VsePlusPlusConfig::new().with_reduction(BatchReduction::Sum),
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
    let gradient = |x: Tensor<2>| gradient(&x, &gradients);
    [elements(loss), gradient(image), gradient(text)]
}

fn evaluate_on(backend: &Backend, case: &Case, image: &Matrix, text: &Matrix) -> Evaluated {
    let device = backend.autodiff();
    evaluate(
        &device,
        case,
        SimilarityConfig::new(),
        image,
        text,
        DType::F32,
    )
}

fn expected(case: &Case, image: &Matrix, text: &Matrix) -> Evaluated {
    let by_image = |x: &[f64]| (case.oracle)(&with_values(image, x), text);
    let by_text = |x: &[f64]| (case.oracle)(image, &with_values(text, x));
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
