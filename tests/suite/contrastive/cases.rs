//! The criteria that tests run, each with a temperature and its inputs.

use super::*;

/// The criterion of each named objective, with a temperature and inputs.
pub fn objectives() -> Vec<(&'static str, Criterion, f64, Inputs)> {
    let plain = || batch(5, 4, 50);
    let taught = || with_teacher(plain(), 3);
    vec![
        ("InfoNce", Criterion::new(), 0.2, plain()),
        (
            "ConVse",
            ConVseConfig::new().contrastive().criterion,
            0.1,
            plain(),
        ),
        (
            "Decoupled",
            DecoupledConfig::new().contrastive().criterion,
            0.1,
            plain(),
        ),
        (
            "Decoupled, within the modality",
            DecoupledConfig::new()
                .with_within_modality(true)
                .contrastive()
                .criterion,
            0.1,
            plain(),
        ),
        (
            "Mvn",
            MvnConfig::new().contrastive().criterion,
            0.1,
            plain(),
        ),
        (
            "NtXent",
            NtXentConfig::new().contrastive().criterion,
            0.1,
            plain(),
        ),
        (
            "InfoCmr",
            InfoCmrConfig::new().contrastive().criterion,
            0.2,
            with_hard_and_noise(plain()),
        ),
        (
            "Srcl",
            SrclConfig::new().contrastive().criterion,
            0.2,
            taught(),
        ),
        (
            "Srcl, of both",
            SrclConfig::new()
                .with_regulation(SimilarityRegulation::new().with_alpha(0.3))
                .contrastive()
                .criterion,
            0.2,
            taught(),
        ),
        (
            "Srcl, fine-tuning",
            SrclConfig::new()
                .with_regulation(SimilarityRegulation::new().with_alpha(0.0))
                .contrastive()
                .criterion,
            0.2,
            plain(),
        ),
        (
            "Srcl with a queue",
            SrclConfig::new()
                .with_regulation(SimilarityRegulation::new().with_alpha(0.6))
                .contrastive()
                .criterion,
            0.2,
            with_teacher(with_negatives(plain()), 3),
        ),
        (
            "FalseNegativeRemoval",
            FalseNegativeRemovalConfig::new()
                .with_threshold(0.7)
                .contrastive()
                .criterion,
            0.2,
            taught(),
        ),
        (
            "MultiPositive",
            MultiPositiveConfig::new().contrastive().criterion,
            0.2,
            with_ids(plain()),
        ),
        (
            "MultiPositive, left out",
            MultiPositiveConfig::new()
                .with_same_id(SameId::LeftOut)
                .contrastive()
                .criterion,
            0.2,
            with_ids(plain()),
        ),
        (
            "SupCon",
            MultiPositiveConfig::new()
                .with_within_modality(true)
                .contrastive()
                .criterion,
            0.2,
            with_ids(plain()),
        ),
    ]
}

/// Combinations that no paper has.
pub fn combinations() -> Vec<(&'static str, Criterion, f64, Inputs)> {
    let everything = || {
        with_ids(with_teacher(
            with_hard_and_noise(with_negatives(batch(5, 4, 60))),
            3,
        ))
    };
    let regulation = SimilarityRegulation::new()
        .with_alpha(0.4)
        .with_weight_temperature(0.5);
    let regulated = Criterion::new().with_weighting(Weighting::Regulation(regulation));
    let removal = |threshold| {
        Criterion::new().with_weighting(Weighting::Removal {
            regulation,
            threshold,
        })
    };
    vec![
        (
            "InfoCMR with SRCL's weights and a queue",
            InfoCmrConfig::new()
                .contrastive()
                .criterion
                .with_weighting(regulated.weighting),
            0.2,
            Inputs {
                ids: None,
                ..everything()
            },
        ),
        (
            "decoupled with removal",
            removal(0.8).with_decoupled(true),
            0.3,
            with_teacher(batch(5, 4, 61), 3),
        ),
        (
            "softmax weights with a gradient, unequal directions",
            Criterion::new()
                .with_weighting(Weighting::Regulation(
                    regulation
                        .with_norm(Norm::Softmax { delta: 2.0 })
                        .with_differentiable(true),
                ))
                .with_image_to_text_weight(0.8),
            0.3,
            with_teacher(with_negatives(batch(4, 5, 62)), 3),
        ),
        (
            "weights of the mean with a gradient",
            Criterion::new()
                .with_weighting(Weighting::Regulation(regulation.with_differentiable(true))),
            0.3,
            with_teacher(batch(4, 5, 63), 3),
        ),
        (
            "guided, smoothed",
            Criterion::new()
                .with_guided_margin(Some(0.1))
                .with_label_smoothing(0.2),
            0.3,
            with_teacher(with_negatives(batch(6, 4, 64)), 3),
        ),
        (
            "guided within the modality",
            Criterion::new()
                .with_guided_margin(Some(-0.2))
                .with_within_modality(true),
            0.3,
            with_teacher(batch(6, 4, 65), 3),
        ),
        (
            "removal with a queue, hard negatives, noise, ids, a guide and smoothing",
            removal(0.7)
                .with_guided_margin(Some(0.3))
                .with_label_smoothing(0.1),
            0.3,
            everything(),
        ),
        (
            "distilled, weighted, with a queue",
            regulated.with_soft_targets(0.6),
            0.3,
            with_teacher(with_negatives(batch(5, 4, 67)), 3),
        ),
        (
            "distilled and smoothed over what removal leaves",
            removal(0.8)
                .with_soft_targets(0.5)
                .with_label_smoothing(0.3),
            0.3,
            with_teacher(batch(5, 4, 68), 3),
        ),
        (
            "everything at once",
            regulated
                .with_decoupled(true)
                .with_within_modality(true)
                .with_same_id(SameId::Positive)
                .with_guided_margin(Some(0.2))
                .with_label_smoothing(0.1)
                .with_soft_targets(0.2)
                .with_directions(Directions::Sum)
                .with_image_to_text_weight(0.3),
            0.4,
            everything(),
        ),
        (
            "dot products, weighted and smoothed",
            regulated
                .with_label_smoothing(0.3)
                .with_similarity(SimilarityConfig::new().with_normalize(false)),
            1.0,
            with_teacher(batch(5, 4, 66), 3),
        ),
    ]
}

/// Similarity regulation beside a momentum encoder and a queue of its features, with a frozen
/// teacher of another width: the system of the SRCL paper, and what may be put together with it.
pub fn pretraining() -> Vec<(&'static str, Criterion, f64, Inputs)> {
    let inputs = |seed| {
        with_ids(with_teacher(
            with_momentum(with_negatives(batch(5, 4, seed))),
            3,
        ))
    };
    let regulation = SimilarityRegulation::new()
        .with_alpha(0.5)
        .with_weight_temperature(0.4);
    let srcl = SrclConfig::new().with_regulation(regulation);
    let published = srcl
        .contrastive()
        .criterion
        .with_soft_targets(0.4)
        .with_same_id(SameId::Positive);
    let weighted = |queue_weight| {
        let criterion = published.with_queue_weight(queue_weight);
        (criterion.with_label_smoothing(0.2), 0.3, inputs(69))
    };
    let [(zero, ..), (half, ..)] = [0.0, 0.5].map(weighted);
    vec![
        ("SRCL as published", published, 0.2, inputs(61)),
        (
            "SRCL as published, negatives of low weight removed",
            published.with_weighting(Weighting::Removal {
                regulation,
                threshold: 0.8,
            }),
            0.2,
            inputs(62),
        ),
        (
            "SRCL as published, guided",
            published.with_guided_margin(Some(0.1)),
            0.2,
            inputs(63),
        ),
        (
            "SRCL as published, weights with a gradient, within the modality",
            published
                .with_weighting(Weighting::Regulation(regulation.with_differentiable(true)))
                .with_within_modality(true),
            0.3,
            inputs(64),
        ),
        ("a queue of weight 0", zero, 0.3, inputs(69)),
        ("a queue of weight ½", half, 0.3, inputs(69)),
        (
            "a plain queue of weight ½",
            Criterion::new().with_queue_weight(0.5),
            0.2,
            with_negatives(batch(5, 4, 65)),
        ),
    ]
}

/// Presets of which each gets every kind of negatives, with ids.
pub fn in_context() -> Vec<(&'static str, Criterion, f64, Inputs)> {
    let inputs = || with_ids(with_hard_and_noise(with_negatives(batch(5, 4, 110))));
    let dcl = DecoupledConfig::new().contrastive();
    let presets = [
        ("ConVse with everything", ConVseConfig::new().contrastive()),
        ("Mvn with everything", MvnConfig::new().contrastive()),
        ("NtXent with everything", NtXentConfig::new().contrastive()),
        ("Decoupled with everything", dcl),
    ];
    presets
        .map(|(name, config)| (name, config.criterion, 0.2, inputs()))
        .into()
}

/// Every case there is.
pub fn all() -> impl Iterator<Item = (&'static str, Criterion, f64, Inputs)> {
    let recombined = combinations().into_iter().chain(pretraining());
    objectives()
        .into_iter()
        .chain(recombined)
        .chain(in_context())
}

/// Every criterion with the inputs that it needs, of `n` pairs.
pub fn all_of(n: usize) -> Vec<(&'static str, Criterion, Inputs)> {
    all()
        .map(|(name, criterion, _, inputs)| {
            let mut of_n = batch(n, 4, 80);
            if inputs.negatives[0].is_some() {
                of_n = with_negatives(of_n);
            }
            if inputs.noise.is_some() {
                of_n = with_hard_and_noise(of_n);
            }
            if inputs.momentum.is_some() {
                of_n = with_momentum(of_n);
            }
            if inputs.teacher.is_some() {
                of_n = with_teacher(of_n, 3);
            }
            if inputs.ids.is_some() {
                of_n = with_ids(of_n);
            }
            (name, criterion, of_n)
        })
        .collect()
}
