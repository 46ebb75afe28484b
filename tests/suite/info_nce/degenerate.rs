//! Degenerate inputs, NaN, strides, untracked inputs, and misuse.

use super::*;

on_every_backend! {
    a_single_pair_has_zero_loss_and_gradients,
    a_single_pair_with_extra_negatives_matches_the_oracle,
    empty_extra_negatives_change_nothing,
    huge_and_tiny_norms_change_nothing,
    zero_rows_have_similarity_zero_and_finite_gradients,
    temperature_0_001_matches_the_oracle,
    logits_of_10_000_match_the_oracle_with_finite_gradients,
    duplicate_rows_match_the_oracle,
    nan_in_gives_nan_out,
    strided_tensors_match_contiguous_ones,
    an_untracked_text_leaves_the_image_gradient_unchanged,
    gradient_checkpointing_matches_the_oracle,
    refuses_an_empty_batch,
    refuses_different_row_counts,
    refuses_broadcasting,
    refuses_different_dtypes,
    refuses_mixing_autodiff_and_plain_tensors,
    refuses_autodiff_inputs_on_a_plain_objective,
    refuses_negatives_of_a_different_width,
}

fn a_single_pair_has_zero_loss_and_gradients(backend: &Backend) {
    let actual = evaluate(
        backend,
        &config(0.07),
        &random(1, 4, 21),
        &random(1, 4, 22),
        DType::F32,
    );
    assert_eq!((actual.loss, actual.log_scale), (0.0, 0.0));
    assert!(actual.image.iter().chain(&actual.text).all(|&g| g == 0.0));
}

fn a_single_pair_with_extra_negatives_matches_the_oracle(backend: &Backend) {
    let (image, text, extra) = (random(1, 4, 23), random(1, 4, 24), random(5, 4, 25));
    let config = config(0.07).with_image_to_text_weight(1.0);
    let tensor = |m| backend.tensor(m, DType::F32);
    let loss = config.init(&backend.device).forward_with_negatives(
        tensor(&image),
        tensor(&text),
        Negatives {
            image: None,
            text: Some(tensor(&extra)),
            ..Negatives::default()
        },
    );
    assert_close(
        &elements(loss),
        &oracle_of(&config).each(&image, &text, None, Some(&extra)),
        1e-5,
    );
}

fn empty_extra_negatives_change_nothing(backend: &Backend) {
    let (image, text) = (random(3, 4, 26), random(3, 4, 27));
    let tensor = |m| backend.tensor(m, DType::F32);
    let nothing = || Some(tensor(&image).slice([0..0, 0..4]));
    let objective = config(0.07).init(&backend.device);
    let negatives = Negatives {
        image: nothing(),
        text: nothing(),
        ..Negatives::default()
    };
    let with = objective.forward_with_negatives(tensor(&image), tensor(&text), negatives);
    assert_eq!(
        elements(with),
        elements(objective.forward(tensor(&image), tensor(&text)))
    );
}

fn huge_and_tiny_norms_change_nothing(backend: &Backend) {
    let (image, text) = (random(4, 5, 28), random(4, 5, 29));
    let config = config(0.07);
    let plain = evaluate(backend, &config, &image, &text, DType::F32);
    for magnitude in [1e-20, 1e20] {
        let actual = evaluate(
            backend,
            &config,
            &scaled(&image, magnitude),
            &text,
            DType::F32,
        );
        assert_close(&[actual.loss], &[plain.loss], 1e-5);
        assert_close(&actual.text, &plain.text, 1e-4);
        let by_image: Vec<_> = plain.image.iter().map(|g| g / magnitude).collect();
        assert_close(&actual.image, &by_image, 1e-4);
    }
}

fn zero_rows_have_similarity_zero_and_finite_gradients(backend: &Backend) {
    let (mut image, text) = (random(4, 5, 30), random(4, 5, 31));
    image.values[5..10].fill(0.0);
    let config = config(0.07);
    let actual = evaluate(backend, &config, &image, &text, DType::F32);
    assert_close(
        &[actual.loss],
        &[oracle_of(&config).loss(&image, &text)],
        1e-5,
    );
    assert_finite(actual.image.iter().chain(&actual.text));
    assert!(actual.image[5..10].iter().all(|&g| g == 0.0));
    assert!(actual.image[..5].iter().any(|&g| g != 0.0));
}

fn temperature_0_001_matches_the_oracle(backend: &Backend) {
    let (image, text) = (random(6, 8, 32), random(6, 8, 33));
    let config = config(0.001);
    let actual = evaluate(backend, &config, &image, &text, DType::F32);
    // Logits near 1000: an error of 1e-7 in a cosine is 1e-4 in a logit.
    assert_matches(&actual, &expected(&config, &image, &text), 2e-3);
}

fn logits_of_10_000_match_the_oracle_with_finite_gradients(backend: &Backend) {
    let (image, text) = (random(5, 4, 34), random(5, 4, 35));
    let (image, text) = (scaled(&image, 100.0), scaled(&text, 100.0));
    let config = config(1.0).with_similarity(SimilarityConfig::new().with_normalize(false));
    let actual = evaluate(backend, &config, &image, &text, DType::F32);
    assert_close(
        &[actual.loss],
        &[oracle_of(&config).loss(&image, &text)],
        1e-5,
    );
    assert_finite(actual.image.iter().chain(&actual.text));
}

fn duplicate_rows_match_the_oracle(backend: &Backend) {
    let mut image = random(4, 5, 36);
    image.values.copy_within(0..5, 5);
    let mut text = random(4, 5, 37);
    text.values.copy_within(0..5, 5);
    let config = config(0.05);
    let actual = evaluate(backend, &config, &image, &text, DType::F32);
    assert_matches(&actual, &expected(&config, &image, &text), 2e-5);
}

fn nan_in_gives_nan_out(backend: &Backend) {
    let good = random(3, 4, 38);
    let mut bad = good.clone();
    bad.values[5] = f64::NAN;
    for (image, text) in [(&bad, &good), (&good, &bad)] {
        assert!(
            each(backend, &config(0.07), image, text)
                .iter()
                .all(|l| l.is_nan())
        );
    }
    let (one, none) = (random(1, 2, 39), Matrix::new(1, 2, vec![1.0, f64::NAN]));
    assert!(
        each(backend, &config(0.07), &one, &none)[0].is_nan(),
        "a single pair"
    );
}

fn strided_tensors_match_contiguous_ones(backend: &Backend) {
    let (image, text) = (random(5, 4, 40), random(5, 4, 41));
    let columns = |m: &Matrix| {
        let values = (0..4)
            .flat_map(|k| (0..5).map(move |i| (i, k)))
            .map(|(i, k)| m.row(i)[k])
            .collect();
        backend
            .tensor(&Matrix::new(4, 5, values), DType::F32)
            .transpose()
    };
    let objective = config(0.07).init(&backend.device);
    let strided = elements(objective.forward_no_reduction(columns(&image), columns(&text)));
    assert_close(&strided, &each(backend, &config(0.07), &image, &text), 1e-6);
}

fn an_untracked_text_leaves_the_image_gradient_unchanged(backend: &Backend) {
    let (image, text) = (random(4, 5, 42), random(4, 5, 43));
    let device = backend.autodiff();
    let both = evaluate(backend, &config(0.07), &image, &text, DType::F32);
    let objective = config(0.07).init(&device);
    let (tracked, frozen) = (
        on(&device, &image, DType::F32).require_grad(),
        on(&device, &text, DType::F32),
    );
    let gradients = objective
        .forward(tracked.clone(), frozen.clone())
        .backward();
    assert_close(&gradient(&tracked, &gradients), &both.image, 1e-6);
    assert!(frozen.grad(&gradients).is_none());
}

fn gradient_checkpointing_matches_the_oracle(backend: &Backend) {
    let (image, text) = (random(4, 5, 44), random(4, 5, 45));
    let config = config(0.07);
    let device = backend.checkpointing();
    let actual = evaluate_on(&device, &config, &image, &text, DType::F32);
    assert_matches(&actual, &expected(&config, &image, &text), 2e-5);
}

fn forward(objective: &InfoNce, image: Tensor<2>, text: Tensor<2>) {
    let _ = objective.forward(image, text);
}

fn zeros(backend: &Backend, shape: [usize; 2]) -> Tensor<2> {
    Tensor::zeros(shape, &backend.device)
}

fn refuses_an_empty_batch(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    let empty = || zeros(backend, [2, 3]).slice([0..0, 0..3]);
    assert_panics("`image` is empty, shape [0, 3]", || {
        forward(&objective, empty(), empty())
    });
}

fn refuses_different_row_counts(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    assert_panics("`image` has 4 rows, `text` has 5", || {
        forward(&objective, zeros(backend, [4, 3]), zeros(backend, [5, 3]));
    });
}

fn refuses_broadcasting(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    assert_panics("`image` has 4 rows, `text` has 1", || {
        forward(&objective, zeros(backend, [4, 3]), zeros(backend, [1, 3]));
    });
    assert_panics("`image` has width 1, `text` has width 3", || {
        forward(&objective, zeros(backend, [4, 1]), zeros(backend, [4, 3]));
    });
}

fn refuses_different_dtypes(backend: &Backend) {
    let Some(&other) = backend.dtypes.first() else {
        println!("{:?} has f32 alone: nothing to mix", backend.device);
        return;
    };
    let objective = config(0.07).init(&backend.device);
    assert_panics("`image` is F32, `text` is", || {
        forward(
            &objective,
            zeros(backend, [2, 3]),
            zeros(backend, [2, 3]).cast(other),
        );
    });
}

fn refuses_mixing_autodiff_and_plain_tensors(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    let tracked = Tensor::<2>::zeros([2, 3], &backend.autodiff());
    assert_panics("is on an autodiff device, the other is not", || {
        forward(&objective, tracked, zeros(backend, [2, 3]));
    });
}

fn refuses_autodiff_inputs_on_a_plain_objective(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    let tracked = || Tensor::<2>::zeros([2, 3], &backend.autodiff());
    assert_panics("the objective is on", || {
        forward(&objective, tracked(), tracked())
    });
}

fn refuses_negatives_of_a_different_width(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    assert_panics("`image` has width 3, `negatives.text` has width 4", || {
        let negatives = Negatives {
            image: None,
            text: Some(zeros(backend, [5, 4])),
            ..Negatives::default()
        };
        let _ = objective.forward_with_negatives(
            zeros(backend, [2, 3]),
            zeros(backend, [2, 3]),
            negatives,
        );
    });
}
