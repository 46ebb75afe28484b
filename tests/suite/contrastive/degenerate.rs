//! Degenerate inputs, NaN, and misuse.

use super::*;

on_every_backend! {
    a_single_pair_has_zero_loss_or_matches_the_oracle,
    temperature_0_001_matches_the_oracle_with_finite_gradients,
    weight_temperature_0_004_matches_the_oracle_with_finite_gradients,
    zero_and_duplicate_rows_match_the_oracle_with_finite_gradients,
    nan_in_gives_nan_out,
    misuse_panics_name_the_argument,
}

fn a_single_pair_has_zero_loss_or_matches_the_oracle(backend: &Backend) {
    let device = backend.autodiff();
    for (name, criterion, inputs) in all_of(1) {
        println!("{name}");
        let (loss, gradients) = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
        let alone = inputs.negatives[0].is_none() && inputs.noise.is_none();
        if alone {
            // Without negatives the loss is exactly zero, or zero to rounding where smoothing or
            // soft targets subtract a logit that was computed in another way.
            let shared = criterion.label_smoothing + criterion.soft_targets > 0.0;
            let most = if shared { 1e-6 } else { 0.0 };
            assert!(loss.abs() <= most, "{loss}");
            assert!(
                gradients.iter().flatten().all(|g| g.abs() <= most),
                "{gradients:?}"
            );
        } else {
            let expected = oracle_of(&criterion, 0.2).loss(&inputs, &inputs);
            assert!((loss - expected).abs() < 1e-4, "{loss} against {expected}");
            assert_finite(gradients.iter().flatten());
        }
    }
}

fn temperature_0_001_matches_the_oracle_with_finite_gradients(backend: &Backend) {
    let device = backend.autodiff();
    for (name, criterion, inputs) in all_of(4) {
        println!("{name}");
        let (loss, gradients) = evaluate(&device, criterion, 0.001, &inputs, DType::F32);
        let expected = oracle_of(&criterion, 0.001).loss(&inputs, &inputs);
        assert_near(loss, expected, 1e-3);
        assert_finite(gradients.iter().flatten());
    }
}

fn weight_temperature_0_004_matches_the_oracle_with_finite_gradients(backend: &Backend) {
    // Weights from e^{−250} to e^{250} before normalization: nearly all on the least similar.
    let regulation = SimilarityRegulation::new()
        .with_alpha(0.5)
        .with_weight_temperature(0.004);
    let inputs = with_teacher(with_negatives(batch(4, 4, 81)), 3);
    let device = backend.autodiff();
    for differentiable in [false, true] {
        let regulation = regulation.with_differentiable(differentiable);
        let criterion = Criterion::new().with_weighting(Weighting::Regulation(regulation));
        let (loss, gradients) = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
        let expected = oracle_of(&criterion, 0.2).loss(&inputs, &inputs);
        assert!((loss - expected).abs() < 1e-3, "{loss} against {expected}");
        assert_finite(gradients.iter().flatten());
    }
}

fn zero_and_duplicate_rows_match_the_oracle_with_finite_gradients(backend: &Backend) {
    let device = backend.autodiff();
    for (name, criterion, mut inputs) in all_of(4) {
        println!("{name}");
        for side in &mut inputs.batch {
            side.values.copy_within(0..4, 4);
            side.values[8..12].fill(0.0);
        }
        let (loss, gradients) = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
        let expected = oracle_of(&criterion, 0.2).loss(&inputs, &inputs);
        assert_near(loss, expected, 1e-4);
        assert_finite(gradients.iter().flatten());
        if criterion.similarity.normalize {
            assert!(gradients[0][8..12].iter().all(|&g| g == 0.0));
        }
    }
}

fn nan_in_gives_nan_out(backend: &Backend) {
    for (name, criterion, inputs) in all_of(3) {
        println!("{name}");
        let mut bad = vec![inputs.clone(), inputs.clone()];
        bad[0].batch[0].values[5] = f64::NAN;
        bad[1].batch[1].values[2] = f64::NAN;
        if inputs.noise.is_some() {
            let mut broken = inputs.clone();
            broken.noise.as_mut().unwrap().values[0] = f64::NAN;
            bad.push(broken);
            let mut broken = inputs.clone();
            broken.hard[1].as_mut().unwrap().values[0] = f64::NAN;
            bad.push(broken);
        }
        if inputs.momentum.is_some() {
            let mut broken = inputs.clone();
            broken.momentum.as_mut().unwrap()[0].values[2] = f64::NAN;
            bad.push(broken);
        }
        if inputs.teacher.is_some() {
            let mut broken = inputs.clone();
            broken.teacher.as_mut().unwrap()[1].values[1] = f64::NAN;
            bad.push(broken);
        }
        for (k, inputs) in bad.iter().enumerate() {
            let loss = criterion_loss(backend, criterion, inputs);
            assert!(loss.is_nan(), "{loss} from bad input {k}");
        }
    }
}

fn misuse_panics_name_the_argument(backend: &Backend) {
    let device = &backend.device;
    let x = |rows: usize| Tensor::<2>::ones([rows, 3], device);
    let refused = |message: &str, criterion: Criterion, text: Tensor<2>, context: Context| {
        assert_panics(message, || {
            let _ = build(criterion, 0.2, device).forward_with(x(4), text, context);
        });
    };
    let srcl = SrclConfig::new().contrastive().criterion;
    let guided = Criterion::new().with_guided_margin(Some(0.0));
    refused(
        "`image` has 4 rows, `text` has 5",
        Criterion::new(),
        x(5),
        Context::default(),
    );
    for criterion in [srcl, guided] {
        refused(
            "Contrastive: `teacher` is missing",
            criterion,
            x(4),
            Context::default(),
        );
    }
    refused(
        "`teacher.image` has 3 rows, `image` has 4",
        srcl,
        x(4),
        Teacher::new(x(3), x(3)).into(),
    );
    refused(
        "`teacher.text` has 5 rows, `text` has 4",
        srcl,
        x(4),
        Teacher::new(x(4), x(5)).into(),
    );
    let queue = Negatives {
        text: Some(x(2)),
        ..Negatives::default()
    };
    refused(
        "`teacher.negative_text` is missing",
        srcl,
        x(4),
        Context {
            negatives: queue.clone(),
            ..Teacher::new(x(4), x(4)).into()
        },
    );
    let too_few = Teacher {
        negative_text: Some(x(1)),
        ..Teacher::new(x(4), x(4))
    };
    refused(
        "`teacher.negative_text` has 1 rows, `negatives.text` has 2",
        srcl,
        x(4),
        Context {
            negatives: queue.clone(),
            ..too_few.into()
        },
    );
    let ids = |count: i32| {
        Tensor::<1, Int>::from_data(
            TensorData::new(vec![0; count as usize], [count as usize]),
            device,
        )
    };
    let context = |ids| Context {
        negatives: queue.clone(),
        ids: Some(ids),
        ..Context::default()
    };
    refused(
        "`ids.batch` has 3 elements, `image` has 4 rows",
        Criterion::new(),
        x(4),
        context(Ids::new(ids(3))),
    );
    let too_many = Ids {
        negative_text: Some(ids(3)),
        ..Ids::new(ids(4))
    };
    refused(
        "`ids.negative_text` has 3 elements, `negatives.text` has 2 rows",
        Criterion::new(),
        x(4),
        context(too_many),
    );
    refused(
        "`image` has width 3, `negatives.noise` has width 2",
        Criterion::new(),
        x(4),
        Negatives {
            noise: Some(Tensor::ones([2, 2], device)),
            ..Negatives::default()
        }
        .into(),
    );
    assert_panics("`label_smoothing` is 2, it must lie in [0, 1]", || {
        let _ = build(Criterion::new().with_label_smoothing(2.0), 0.2, device);
    });
    assert_panics("`soft_targets` is 0.5, it must lie in [0, 0.25]", || {
        let criterion = Criterion::new().with_soft_targets(0.5);
        let _ = build(criterion.with_label_smoothing(0.75), 0.2, device);
    });
    assert_panics("InfoNceConfig: `image_to_text_weight` is -1", || {
        let _ = InfoNceConfig::new()
            .with_image_to_text_weight(-1.0)
            .init(device);
    });
}
