//! What all configs must refuse and all objectives must display, and helpers of the tests beside
//! the objectives.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, Tensor};

use super::*;
use crate::similarity::LogitScaleConfig;
use crate::weighting::SimilarityRegulation;

/// A matrix on the default device.
pub(super) fn matrix<const N: usize, const D: usize>(rows: [[f32; D]; N]) -> Tensor<2> {
    Tensor::from_data(rows, &Device::default())
}

/// Images at 0°, 90° and 180° against texts at 0°, 0° and 180°: cosines
///
/// ```text
///  1  1 −1
///  0  0  0
/// −1 −1  1
/// ```
pub(super) fn three_pairs() -> [Tensor<2>; 2] {
    [
        matrix([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
        matrix([[2.0, 0.0], [0.5, 0.0], [-3.0, 0.0]]),
    ]
}

/// Checks that as many values were found as are expected, each within `tolerance` of its own.
#[track_caller]
pub(super) fn assert_close<const N: usize>(found: Tensor<1>, expected: [f32; N], tolerance: f32) {
    let found = found.into_data().try_to_vec::<f32>().unwrap();
    let close = |(found, expected): (&f32, f32)| (found - expected).abs() <= tolerance;
    assert!(
        found.len() == N && found.iter().zip(expected).all(close),
        "{found:?} against {expected:?}"
    );
}

/// Checks that `check` returns an error with this message, and that `init` panics with it.
macro_rules! assert_refused {
    ($($($config:ident)|+.$with:ident($value:expr).init $arguments:tt: $message:literal;)+) => {
        $($({
            let config = $config::new().$with($value);
            let message = $message.replace("{config}", stringify!($config));
            assert_eq!(config.check().unwrap_err().to_string(), message);
            let init = AssertUnwindSafe(|| {
                config.init $arguments;
            });
            let panic = catch_unwind(init).expect_err(&message);
            assert_eq!(panic.downcast_ref::<String>(), Some(&message));
        })+)+
    };
}

#[test]
fn a_value_out_of_its_range_is_refused_by_check_and_init() {
    let device = Device::default();
    let regulation = SimilarityRegulation::new().with_alpha(1.5);
    assert_refused! {
        InfoNceConfig | ConVseConfig | MvnConfig | NtXentConfig | DecoupledConfig | SrclConfig
            | FalseNegativeRemovalConfig | InfoCmrConfig | MultiPositiveConfig
            | ImageTextContrastiveConfig | SigLipConfig
            .with_logit_scale(LogitScaleConfig::new().with_temperature(0.0)).init(&device):
            "LogitScaleConfig: `temperature` is 0, it must lie in \
             [1.1754944e-38, 3.4028235e38]";
        InfoNceConfig.with_image_to_text_weight(1.5).init(&device):
            "{config}: `image_to_text_weight` is 1.5, it must lie in [0, 1]";
        SrclConfig | FalseNegativeRemovalConfig.with_regulation(regulation).init(&device):
            "SimilarityRegulation: `alpha` is 1.5, it must lie in [0, 1]";
        FalseNegativeRemovalConfig.with_threshold(-1.0).init(&device):
            "Weighting: `threshold` is -1, it must be finite and at least 0";
        ImageTextContrastiveConfig.with_soft_targets(-0.1).init(&device):
            "{config}: `soft_targets` is -0.1, it must lie in [0, 1]";
        VseConfig | VsePlusPlusConfig | ConVsePlusPlusConfig.with_margin(-0.1).init():
            "{config}: `margin` is -0.1, it must be finite and at least 0";
        VsePlusPlusConfig | ConVsePlusPlusConfig.with_hardest_weight(1.5).init():
            "{config}: `hardest_weight` is 1.5, it must lie in [0, 1]";
        ConVsePlusPlusConfig.with_temperature(0.0).init():
            "{config}: `temperature` is 0, it must lie in \
             [1.1754944e-38, 3.4028235e38]";
        MaxMarginConfig.with_margin(f64::NAN).init():
            "{config}: `margin` is NaN, it must lie in \
             [-3.4028235e38, 3.4028235e38]";
        SigLipConfig.with_bias(f64::INFINITY).init(&device):
            "{config}: `bias` is inf, it must lie in \
             [-3.4028235e38, 3.4028235e38]";
        ReCoConfig | OrthogonalityConfig.with_negative_weight(-1.0).init():
            "{config}: `negative_weight` is -1, it must be finite and at least 0";
        ReCoConfig | OrthogonalityConfig.with_epsilon(2.0).init():
            "{config}: `epsilon` is 2, it must lie in \
             [1e-30, 1]";
        UniformityConfig.with_t(0.0).init():
            "{config}: `t` is 0, it must lie in \
             [1.1754944e-38, 3.4028235e38]";
        BarlowTwinsConfig.with_redundancy_weight(-1.0).init():
            "{config}: `redundancy_weight` is -1, it must be finite and at least 0";
    }
}

/// Checks that the display of an objective has these parts.
macro_rules! assert_displays {
    ($($config:ident.init $arguments:tt: $($part:literal),+;)+) => {
        $(
            let shown = $config::new().init $arguments.to_string();
            $(assert!(shown.contains($part), "{shown}");)+
        )+
    };
}

#[test]
fn a_display_names_the_objective_and_its_settings() {
    let device = Device::default();
    assert_displays! {
        InfoNceConfig.init(&device): "InfoNce", "image_to_text_weight: 0.5";
        ConVseConfig.init(&device): "ConVse", "directions: Sum";
        MvnConfig.init(&device): "Mvn", "within_modality: true", "directions: Sum";
        NtXentConfig.init(&device): "NtXent", "within_modality: true";
        DecoupledConfig.init(&device): "Decoupled", "decoupled: true";
        SrclConfig.init(&device): "Srcl", "weighting: Regulation";
        FalseNegativeRemovalConfig.init(&device): "FalseNegativeRemoval", "threshold: 0.3";
        InfoCmrConfig.init(&device): "InfoCmr", "directions: Sum";
        MultiPositiveConfig.init(&device): "MultiPositive", "same_id: Positive";
        ImageTextContrastiveConfig.init(&device): "ImageTextContrastive", "soft_targets: 0.4";
        VseConfig.init(): "Vse {margin: 0.2, reduction: Mean, normalize: true";
        VsePlusPlusConfig.init():
            "VsePlusPlus {margin: 0.2, hardest_weight: 1.0, reduction: Mean, normalize: true";
        ConVsePlusPlusConfig.init():
            "ConVsePlusPlus {margin: 0.2, hardest_weight: 1.0, reduction: Mean, temperature: 0.1, ";
        MaxMarginConfig.init(): "MaxMargin {margin: 0.5, reduction: Mean, normalize: true";
        SigLipConfig.init(&device): "SigLip", "logit_scale", "bias", "reduction: Mean";
        ReCoConfig.init(): "ReCo {negative_weight: 0.6, reduction: Sum, epsilon: 1e-7, ";
        OrthogonalityConfig.init():
            "Orthogonality {negative_weight: 0.6, reduction: Sum, epsilon: 1e-7, ";
        AlignmentConfig.init(): "Alignment {normalize: true, evaluation: Auto";
        UniformityConfig.init(): "Uniformity {t: 2.0, normalize: true";
        BarlowTwinsConfig.init(): "BarlowTwins {redundancy_weight: 0.005, center: false, ";
    }
}
