//! Degenerate inputs, NaN, untracked inputs, and misuse.

use super::*;

on_every_backend! {
    a_single_pair_matches_the_oracle,
    zero_rows_match_the_oracle_with_finite_gradients,
    huge_and_tiny_norms_change_nothing,
    norms_below_epsilon_are_clamped_to_it,
    duplicate_rows_match_the_oracle,
    nan_in_gives_nan_out,
    an_untracked_text_leaves_the_image_gradient_unchanged,
    gradient_checkpointing_changes_nothing,
    refuses_different_row_counts,
    sig_lip_refuses_autodiff_inputs_on_a_plain_objective,
}

fn a_single_pair_matches_the_oracle(backend: &Backend) {
    let (image, text) = (random(1, 4, 115), random(1, 4, 116));
    for case in cases() {
        let actual = evaluate_on(backend, &case, &image, &text);
        println!("{}", case.name);
        assert_close(&actual[0], &[(case.oracle)(&image, &text)], 1e-5);
        assert_finite(actual.iter().flatten());
    }
    let one = on(&backend.device, &image, DType::F32);
    let uniformity = UniformityConfig::new().init(&backend.device);
    assert_eq!(elements(uniformity.forward_within(one)), [0.0]);
}

fn zero_rows_match_the_oracle_with_finite_gradients(backend: &Backend) {
    let (mut image, text) = (random(4, 5, 117), random(4, 5, 118));
    image.values[5..10].fill(0.0);
    for case in cases() {
        let actual = evaluate_on(backend, &case, &image, &text);
        println!("{}", case.name);
        assert_close(&actual[0], &[(case.oracle)(&image, &text)], 1e-5);
        assert_finite(actual.iter().flatten());
    }
}

fn huge_and_tiny_norms_change_nothing(backend: &Backend) {
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

fn norms_below_epsilon_are_clamped_to_it(backend: &Backend) {
    let (mut image, text) = (random(3, 4, 121), random(3, 4, 122));
    image.values[..4].copy_from_slice(&[2e-8, -1e-8, 3e-8, 0.0]);
    let device = backend.autodiff();
    for case in cases().into_iter().filter(|case| !case.scale_free) {
        let similarity = SimilarityConfig::new();
        let actual = evaluate(&device, &case, similarity, &image, &text, DType::F32);
        let loss = |x: &[f64]| (case.oracle)(&with_values(&image, x), &text);
        let by_image = oracle::gradient_at(loss, &image.values, 1e-11, &[0, 1, 2, 3]);
        println!("{}", case.name);
        assert_close(&actual[0], &[loss(&image.values)], 1e-5);
        assert_close(&actual[1][..4], &by_image, 1e-4);
    }
}

fn duplicate_rows_match_the_oracle(backend: &Backend) {
    let (mut image, mut text) = (random(4, 5, 123), random(4, 5, 124));
    image.values.copy_within(0..5, 5);
    text.values.copy_within(0..5, 5);
    for case in cases() {
        let actual = evaluate_on(backend, &case, &image, &text);
        println!("{}", case.name);
        assert_close(&actual[0], &[(case.oracle)(&image, &text)], 1e-5);
    }
}

fn nan_in_gives_nan_out(backend: &Backend) {
    for n in [1, 3] {
        let good = random(n, 4, 125);
        let mut bad = good.clone();
        bad.values[1] = f64::NAN;
        for case in cases() {
            for (image, text) in [(&bad, &good), (&good, &bad)] {
                let [image, text] = [image, text].map(|x| backend.tensor(x, DType::F32));
                let similarity = SimilarityConfig::new();
                let loss = elements((case.loss)(&backend.device, similarity, image, text));
                assert!(loss[0].is_nan(), "{}, {n} pairs: {loss:?}", case.name);
            }
        }
    }
}

fn an_untracked_text_leaves_the_image_gradient_unchanged(backend: &Backend) {
    let (image, text) = (random(4, 5, 126), random(4, 5, 127));
    let device = backend.autodiff();
    for case in cases() {
        let both = evaluate_on(backend, &case, &image, &text);
        let tracked = on(&device, &image, DType::F32).require_grad();
        let frozen = on(&device, &text, DType::F32);
        let similarity = SimilarityConfig::new();
        let loss = (case.loss)(&device, similarity, tracked.clone(), frozen.clone());
        let gradients = loss.backward();
        println!("{}", case.name);
        assert_close(&gradient(&tracked, &gradients), &both[1], 1e-5);
        assert!(frozen.grad(&gradients).is_none());
    }
}

fn gradient_checkpointing_changes_nothing(backend: &Backend) {
    let (image, text) = (random(4, 5, 128), random(4, 5, 129));
    let device = backend.checkpointing();
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

fn refuses_different_row_counts(backend: &Backend) {
    for case in cases().iter().filter(|case| case.name != "Uniformity") {
        let [image, text] = [[4, 3], [5, 3]].map(|s| Tensor::<2>::zeros(s, &backend.device));
        let of = case.name.split(',').next().unwrap();
        let message = format!("{of}: `image` has 4 rows, `text` has 5");
        assert_panics(&message, || {
            let _ = (case.loss)(&backend.device, SimilarityConfig::new(), image, text);
        });
    }
}

fn sig_lip_refuses_autodiff_inputs_on_a_plain_objective(backend: &Backend) {
    let objective = SigLipConfig::new().init(&backend.device);
    let tracked = Tensor::<2>::zeros([2, 3], &backend.autodiff());
    assert_panics("SigLip: the objective is on", || {
        let _ = objective.forward(tracked.clone(), tracked);
    });
}
