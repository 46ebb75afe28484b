//! Values and gradients against the oracle and other implementations.

use super::*;

on_every_backend! {
    values_and_gradients_match_the_oracle,
    f64_matches_the_oracle_to_1e_9,
    half_precision_matches_the_oracle_on_rounded_inputs,
    the_loss_is_the_mean_over_pairs,
    matches_open_clip_lightly_and_pytorch_metric_learning,
    streaming_and_auto_evaluation_match_dense,
    sig_lip_scale_and_bias_gradients_match_the_oracle,
    uniformity_within_a_modality_matches_the_oracle,
    uniformity_with_a_large_t_matches_the_oracle,
    uniformity_accepts_different_row_counts,
}

fn values_and_gradients_match_the_oracle(backend: &Backend) {
    for (n, width) in [(2, 3), (5, 2), (6, 9)] {
        let (image, text) = (random(n, width, 100), random(n, width, 101));
        for case in cases().into_iter().chain(variants()) {
            if n == 2 && case.name == "BarlowTwins, centred" {
                // Two centred samples always correlate by ±1: the gradients are rounding errors.
                continue;
            }
            let actual = evaluate_on(backend, &case, &image, &text);
            assert_matches(&case, &actual, &expected(&case, &image, &text), 3e-5);
        }
    }
}

fn f64_matches_the_oracle_to_1e_9(backend: &Backend) {
    if !backend.has_f64() {
        return;
    }
    let device = backend.autodiff();
    let (image, text) = (random(6, 5, 102), random(6, 5, 103));
    for case in cases() {
        let similarity = SimilarityConfig::new();
        let actual = evaluate(&device, &case, similarity, &image, &text, DType::F64);
        assert_matches(&case, &actual, &expected(&case, &image, &text), 1e-9);
    }
}

fn half_precision_matches_the_oracle_on_rounded_inputs(backend: &Backend) {
    let device = backend.autodiff();
    for dtype in backend.half_dtypes() {
        let rounded = |seed| {
            let x = random(6, 9, seed);
            with_values(&x, &elements(backend.tensor(&x, dtype)))
        };
        let (image, text) = (rounded(104), rounded(105));
        let ulp = ulp(dtype);
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

fn the_loss_is_the_mean_over_pairs(backend: &Backend) {
    let (image, text) = (random(5, 4, 106), random(5, 4, 107));
    let tensor = |x| backend.tensor(x, DType::F32);
    for case in cases() {
        let Some(each) = case.each else { continue };
        let similarity = SimilarityConfig::new();
        let each = each(&backend.device, similarity, tensor(&image), tensor(&text));
        assert_eq!(each.dims(), [5], "{}", case.name);
        assert_close(
            &elements(each.mean()),
            &[(case.oracle)(&image, &text)],
            1e-5,
        );
    }
}

fn matches_open_clip_lightly_and_pytorch_metric_learning(backend: &Backend) {
    let stored: serde_json::Value =
        serde_json::from_str(include_str!("../../fixtures/pair_losses/pair_losses.json")).unwrap();
    let number = |v: &serde_json::Value| v.as_f64().unwrap();
    let list =
        |v: &serde_json::Value| -> Vec<f64> { v.as_array().unwrap().iter().map(number).collect() };
    let device = backend.autodiff();
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
                .init()
                .forward(image, text),
            "vse" => VseConfig::new()
                .with_margin(parameter("margin"))
                .with_reduction(BatchReduction::Sum)
                .init()
                .forward(image, text),
            "vse_plus_plus" => VsePlusPlusConfig::new()
                .with_margin(parameter("margin"))
                .with_reduction(BatchReduction::Sum)
                .init()
                .forward(image, text),
            other => panic!("no objective `{other}`"),
        };
        println!("{name} of {n} pairs");
        let gradients = loss.backward();
        assert_close(&elements(loss), &[number(&case["loss"])], 1e-5);
        for (x, key) in tracked.iter().zip(["image", "text"]) {
            assert_close(&gradient(x, &gradients), &list(&case[key]), 5e-5);
        }
    }
}

fn streaming_and_auto_evaluation_match_dense(backend: &Backend) {
    // More than one block each way.
    let (image, text) = (random(70, 6, 108), random(70, 6, 109));
    let device = backend.autodiff();
    for case in cases() {
        let with = |evaluation| {
            let similarity = SimilarityConfig::new()
                .with_evaluation(evaluation)
                .with_memory_budget(1 << 14);
            evaluate(&device, &case, similarity, &image, &text, DType::F32)
        };
        compare_with_dense(with, |actual, dense| {
            assert_matches(&case, actual, dense, 1e-4);
        });
    }
}

fn sig_lip_scale_and_bias_gradients_match_the_oracle(backend: &Backend) {
    let (image, text) = (random(5, 4, 110), random(5, 4, 111));
    let device = backend.autodiff();
    let objective = SigLipConfig::new().with_bias(-3.0).init(&device);
    let [a, b] = [&image, &text].map(|x| on(&device, x, DType::F32));
    let gradients = objective.forward(a, b).backward();
    let loss = |x: &[f64]| pointwise::sig_lip(&image, &text, x[0].exp(), x[1]);
    let expected = oracle::gradient(loss, &[10f64.ln(), -3.0], 1e-4);
    let scale = objective.logit_scale.log_scale.val().grad(&gradients);
    let bias = objective.bias.val().grad(&gradients);
    assert_close(&elements(scale.unwrap()), &expected[..1], 1e-5);
    assert_close(&elements(bias.unwrap()), &expected[1..], 1e-5);
}

fn uniformity_within_a_modality_matches_the_oracle(backend: &Backend) {
    let x = random(6, 4, 112);
    let device = backend.autodiff();
    let tracked = on(&device, &x, DType::F32).require_grad();
    let loss = UniformityConfig::new()
        .init()
        .forward_within(tracked.clone());
    let gradients = loss.backward();
    let oracle = |values: &[f64]| pointwise::uniformity_within(&with_values(&x, values), 2.0);
    assert_close(&elements(loss), &[oracle(&x.values)], 1e-5);
    assert_close(
        &gradient(&tracked, &gradients),
        &oracle::gradient(oracle, &x.values, 1e-5),
        3e-5,
    );
}

fn uniformity_with_a_large_t_matches_the_oracle(backend: &Backend) {
    let (image, text) = (random(5, 3, 150), random(5, 3, 151));
    let case = case!(
        "Uniformity",
        UniformityConfig::new().with_t(40.0),
        |a, b| { pointwise::uniformity(a, b, 40.0) }
    );
    let actual = evaluate_on(backend, &case, &image, &text);
    assert_matches(&case, &actual, &expected(&case, &image, &text), 1e-4);
}

fn uniformity_accepts_different_row_counts(backend: &Backend) {
    let (image, text) = (random(3, 4, 113), random(8, 4, 114));
    let [a, b] = [&image, &text].map(|x| backend.tensor(x, DType::F32));
    let loss = UniformityConfig::new().init().forward(a, b);
    let expected = pointwise::uniformity(&image, &text, 2.0);
    assert_close(&elements(loss), &[expected], 1e-5);
}
