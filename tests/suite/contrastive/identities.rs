//! Identities between criteria.

use super::*;

on_every_backend! {
    named_objectives_equal_their_criterion,
    srcl_equals_con_vse_when_all_similarities_are_equal,
    decoupled_equals_info_nce_without_the_positive_in_the_denominator,
    neutral_settings_change_nothing,
    batch_and_extra_negatives_are_weighted_together,
    gradients_vanish_when_predictions_equal_the_soft_targets,
    custom_log_weights_match_the_built_in_weighting,
    swapping_the_modalities_swaps_the_directions,
    permuting_the_batch_permutes_the_losses,
}

/// A preset with its temperature, built under its own name, and its parts.
macro_rules! preset {
    ($config:ident) => {{
        let config = $config::new();
        let build: fn(&Device) -> Contrastive = |device| $config::new().init(device);
        (stringify!($config), build, config.contrastive())
    }};
}

/// Name, builder and parts.
type Preset = (&'static str, fn(&Device) -> Contrastive, ContrastiveConfig);

fn presets() -> [Preset; 10] {
    [
        preset!(InfoNceConfig),
        preset!(ConVseConfig),
        preset!(MvnConfig),
        preset!(NtXentConfig),
        preset!(DecoupledConfig),
        preset!(SrclConfig),
        preset!(FalseNegativeRemovalConfig),
        preset!(InfoCmrConfig),
        preset!(MultiPositiveConfig),
        preset!(ImageTextContrastiveConfig),
    ]
}

fn named_objectives_equal_their_criterion(backend: &Backend) {
    let everything = with_hard_and_noise(with_negatives(with_momentum(batch(5, 4, 70))));
    let everything = with_ids(with_teacher(everything, 3));
    let Placed { batch, context, .. } = place(&backend.device, &everything, DType::F32);
    for (name, build, config) in presets() {
        println!("{name}");
        let loss = |objective: Contrastive, context: Context| {
            let [image, text] = batch.clone();
            elements(objective.forward_with(image, text, context))[0]
        };
        let criterion = config.criterion;
        let [named, recombined] = [build(&backend.device), config.init(&backend.device)];
        let by_criterion = loss(recombined, context.clone());
        assert_same(loss(named.clone(), context.clone()), by_criterion);
        // The criterion's parts alone, evaluated by naive loops.
        let temperature = config.logit_scale.temperature;
        let expected = oracle_of(&criterion, temperature).loss(&everything, &everything);
        assert_near(by_criterion, expected, 4e-5);
        // A batch alone, where the objective needs nothing else.
        let needs_context =
            criterion.weighting != Weighting::Uniform || criterion.soft_targets > 0.0;
        if !needs_context {
            let alone = oracle_of(&criterion, temperature);
            let inputs = self::batch(5, 4, 70);
            let [image, text] = batch.clone();
            let found = elements(named.forward(image, text))[0];
            assert_near(found, alone.loss(&inputs, &inputs), 4e-5);
        }
    }
}

fn srcl_equals_con_vse_when_all_similarities_are_equal(backend: &Backend) {
    let mut inputs = with_teacher(batch(5, 4, 71), 3);
    // To the teacher, every text is equally similar to every image.
    let [image, text] = inputs.teacher.as_mut().unwrap();
    image.values = random(1, 3, 1).values.repeat(5);
    text.values = random(1, 3, 2).values.repeat(5);
    let con_vse = criterion_loss(
        backend,
        ConVseConfig::new().contrastive().criterion,
        &inputs,
    );
    for norm in [Norm::Mean, Norm::Softmax { delta: 3.0 }] {
        let regulation = SimilarityRegulation::new().with_norm(norm);
        let srcl = SrclConfig::new().with_regulation(regulation);
        assert_same(
            criterion_loss(backend, srcl.contrastive().criterion, &inputs),
            con_vse,
        );
    }
    // Equal similarities of the student as well, at any alpha.
    let equal = Inputs {
        batch: [0, 1].map(|k| equal_rows(5, 4, 72 + k)),
        ..inputs
    };
    let half = SimilarityRegulation::new().with_alpha(0.5);
    let srcl = SrclConfig::new()
        .with_regulation(half)
        .contrastive()
        .criterion;
    assert_same(criterion_loss(backend, srcl, &equal), 2.0 * 5f64.ln());
}

fn decoupled_equals_info_nce_without_the_positive_in_the_denominator(backend: &Backend) {
    // log(1 + e^D) = L for each anchor and direction.
    let inputs = batch(6, 4, 73);
    let [decoupled, plain] = [true, false].map(|decoupled| {
        let criterion = Criterion::new().with_decoupled(decoupled);
        directions(backend, criterion, 0.2, &inputs)
    });
    for (without, with) in decoupled.iter().zip(plain) {
        let expected: Vec<f64> = without.iter().map(|d| d.exp().ln_1p()).collect();
        assert_close(&with, &expected, 1e-5);
    }
}

fn neutral_settings_change_nothing(backend: &Backend) {
    let inputs = with_ids(with_teacher(batch(5, 4, 74), 3));
    let plain = criterion_loss(backend, Criterion::new(), &batch(5, 4, 74));
    let unchanged = |criterion, inputs: &Inputs| {
        assert_same(criterion_loss(backend, criterion, inputs), plain);
    };
    // A margin that no candidate exceeds.
    unchanged(
        Criterion::new().with_guided_margin(Some(2.5)),
        &Inputs {
            ids: None,
            ..inputs.clone()
        },
    );
    // Ids that are ignored, and ids that all differ.
    unchanged(Criterion::new().with_same_id(SameId::Negative), &inputs);
    let different = Inputs {
        ids: Some(vec![5, -3, 1 << 30, 0, 9]),
        ..inputs.clone()
    };
    for same_id in [SameId::LeftOut, SameId::Positive] {
        unchanged(Criterion::new().with_same_id(same_id), &different);
    }
    // Removal below weight 0, and both directions added at half the weight.
    let without_ids = Inputs {
        ids: None,
        ..inputs
    };
    let removal = Weighting::Removal {
        regulation: SimilarityRegulation::new(),
        threshold: 0.0,
    };
    unchanged(Criterion::new().with_weighting(removal), &without_ids);
    assert_same(
        criterion_loss(
            backend,
            Criterion::new().with_directions(Directions::Sum),
            &without_ids,
        ),
        2.0 * plain,
    );
    // NT-Xent is half of MVN; InfoCMR without its negatives is ConVSE.
    assert_same(
        2.0 * criterion_loss(
            backend,
            NtXentConfig::new().contrastive().criterion,
            &without_ids,
        ),
        criterion_loss(
            backend,
            MvnConfig::new().contrastive().criterion,
            &without_ids,
        ),
    );
    let none = Negatives {
        noise: Some(Tensor::<2>::zeros([1, 4], &backend.device).slice([0..0, 0..4])),
        hard_text: Some(Tensor::<3>::zeros([5, 1, 4], &backend.device).slice([0..5, 0..0, 0..4])),
        ..Negatives::default()
    };
    let Placed { batch, .. } = place(&backend.device, &without_ids, DType::F32);
    let [image, text] = batch;
    let fixed = || LogitScaleConfig::fixed(0.2);
    let info_cmr = InfoCmrConfig::new().with_logit_scale(fixed());
    let info_cmr = info_cmr.init(&backend.device);
    let con_vse = ConVseConfig::new().with_logit_scale(fixed());
    let con_vse = con_vse.init(&backend.device);
    assert_same(
        elements(info_cmr.forward_with(image.clone(), text.clone(), none))[0],
        elements(con_vse.forward(image, text))[0],
    );
}

fn batch_and_extra_negatives_are_weighted_together(backend: &Backend) {
    // The last row of a batch, moved to the queue, is the same negative to all others.
    let whole = with_teacher(batch(5, 4, 75), 3);
    let head = |m: &Matrix| Matrix::new(4, m.width, m.values[..4 * m.width].to_vec());
    let last = |m: &Matrix| Matrix::new(1, m.width, m.values[4 * m.width..].to_vec());
    let teacher = whole.teacher.as_ref().unwrap();
    let parted = Inputs {
        batch: whole.batch.each_ref().map(head),
        negatives: whole.batch.each_ref().map(|m| Some(last(m))),
        teacher: Some(teacher.each_ref().map(head)),
        teacher_negatives: teacher.each_ref().map(|m| Some(last(m))),
        ..Inputs::default()
    };
    for weighting in [
        Weighting::Regulation(SimilarityRegulation::new().with_alpha(0.5)),
        Weighting::Removal {
            regulation: SimilarityRegulation::new(),
            threshold: 0.9,
        },
    ] {
        let criterion = Criterion::new().with_weighting(weighting);
        let [parted, whole] =
            [&parted, &whole].map(|inputs| directions(backend, criterion, 0.2, inputs));
        for (parted, whole) in parted.iter().zip(whole) {
            assert_close(parted, &whole[..4], 1e-5);
        }
    }
}

fn gradients_vanish_when_predictions_equal_the_soft_targets(backend: &Backend) {
    // Soft targets alone, equal to the prediction: cross-entropy is at its minimum.
    let mut inputs = batch(5, 4, 77);
    inputs.teacher = Some(inputs.batch.clone());
    let criterion = Criterion::new().with_soft_targets(1.0);
    let device = backend.autodiff();
    let (_, gradients) = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
    assert!(
        gradients.iter().flatten().all(|g| g.abs() < 1e-5),
        "{gradients:?}"
    );
}

fn custom_log_weights_match_the_built_in_weighting(backend: &Backend) {
    let inputs = with_teacher(batch(5, 4, 76), 3);
    let loss = |criterion, weight: LogWeight| {
        let placed = place(&backend.device, &inputs, DType::F32);
        let [image, text] = placed.batch;
        let objective = build(criterion, 0.2, &backend.device).with_log_weight(weight);
        elements(objective.forward_with(image, text, placed.context))[0]
    };
    // Constant weights change nothing; the regulation as custom weights is the built-in one.
    let constant = LogWeight::new(|_| Expr::constant(3.0));
    assert_same(
        loss(Criterion::new(), constant),
        criterion_loss(backend, Criterion::new(), &inputs),
    );
    let by_teacher = || LogWeight::with_teacher(|_, teacher| -teacher);
    let regulation = SimilarityRegulation::new();
    assert_same(
        loss(Criterion::new(), by_teacher()),
        criterion_loss(
            backend,
            Criterion::new().with_weighting(Weighting::Regulation(regulation)),
            &inputs,
        ),
    );
    // Custom weights decide what removal removes.
    let removal = Criterion::new().with_weighting(Weighting::Removal {
        regulation: regulation.with_alpha(0.0),
        threshold: 0.8,
    });
    let expected = Criterion::new().with_weighting(Weighting::Removal {
        regulation,
        threshold: 0.8,
    });
    assert_same(
        loss(removal, by_teacher()),
        criterion_loss(backend, expected, &inputs),
    );
}

fn swapping_the_modalities_swaps_the_directions(backend: &Backend) {
    for (name, criterion, _, inputs) in all() {
        println!("{name}");
        let mut swapped = inputs.clone();
        swapped.batch.reverse();
        swapped.negatives.reverse();
        swapped.hard.reverse();
        swapped.teacher_negatives.reverse();
        swapped.negative_ids.reverse();
        for features in [&mut swapped.teacher, &mut swapped.momentum] {
            features.iter_mut().for_each(|pair| pair.reverse());
        }
        let [by_image, by_text] = directions(backend, criterion, 0.3, &inputs);
        let [of_text, of_image] = directions(backend, criterion, 0.3, &swapped);
        assert_close(&of_image, &by_image, 1e-5);
        assert_close(&of_text, &by_text, 1e-5);
    }
}

fn permuting_the_batch_permutes_the_losses(backend: &Backend) {
    for (name, criterion, _, inputs) in all() {
        println!("{name}");
        let n = inputs.batch[0].rows;
        let rotated = |m: &mut Matrix| {
            let first = m.values.len() / n;
            m.values.rotate_left(first);
        };
        let mut permuted = inputs.clone();
        permuted.batch.iter_mut().for_each(rotated);
        permuted.hard.iter_mut().flatten().for_each(rotated);
        permuted.teacher.iter_mut().flatten().for_each(rotated);
        permuted.momentum.iter_mut().flatten().for_each(rotated);
        if let Some(ids) = &mut permuted.ids {
            ids.rotate_left(1);
        }
        let expected = directions(backend, criterion, 0.3, &inputs).map(|mut losses| {
            losses.rotate_left(1);
            losses
        });
        for (found, expected) in directions(backend, criterion, 0.3, &permuted)
            .iter()
            .zip(&expected)
        {
            assert_close(found, expected, 1e-5);
        }
    }
}
