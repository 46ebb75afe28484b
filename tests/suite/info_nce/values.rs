//! Values and gradients against the oracle and open_clip.

use super::*;

on_every_backend! {
    value_and_gradients_match_the_oracle,
    f64_matches_the_oracle_to_1e_10,
    half_precision_matches_the_oracle_on_rounded_inputs,
    extra_negatives_match_the_oracle,
    matches_open_clip,
    equal_embeddings_give_ln_n,
}

on_cpu_device! {
    f64_matches_the_oracle_to_1e_10,
    half_precision_matches_the_oracle_on_rounded_inputs,
}

fn value_and_gradients_match_the_oracle(backend: &Backend) {
    for (n, width, temperature, weight, normalize) in [
        (2, 2, 0.5, 0.5, true),
        (3, 5, 0.07, 0.5, true),
        (7, 3, 0.2, 0.75, true),
        (17, 33, 0.07, 0.0, true),
        (5, 4, 1.0, 1.0, false),
    ] {
        let (image, text) = (random(n, width, 10), random(n, width, 11));
        println!(
            "{n} pairs of width {width}, temperature {temperature}, weight {weight}, \
             normalize {normalize}"
        );
        let config = config(temperature)
            .with_image_to_text_weight(weight)
            .with_similarity(SimilarityConfig::new().with_normalize(normalize));
        let actual = evaluate(backend, &config, &image, &text, DType::F32);
        assert_matches(&actual, &expected(&config, &image, &text), 2e-5);
    }
}

fn f64_matches_the_oracle_to_1e_10(backend: &Backend) {
    if !backend.has_f64() {
        return;
    }
    let (image, text) = (random(9, 6, 12), random(9, 6, 13));
    let config = config(0.5);
    let actual = evaluate(backend, &config, &image, &text, DType::F64);
    // The parameter is f32: compare at the scale that it holds.
    let held = (-(2f64.ln() as f32 as f64)).exp();
    let expected = expected(&self::config(held), &image, &text);
    assert_close(&[actual.loss], &[expected.loss], 1e-13);
    assert_close(&actual.image, &expected.image, 1e-10);
    assert_close(&actual.text, &expected.text, 1e-10);
    // Rounded to f32 on its way back to the parameter.
    assert_close(&[actual.log_scale], &[expected.log_scale], 1e-7);
}

fn half_precision_matches_the_oracle_on_rounded_inputs(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        let (image, text) = (random(9, 16, 14), random(9, 16, 15));
        // What the inputs are after rounding to half precision.
        let rounded = |m: &Matrix| backend.rounded(m, dtype);
        let (image, text) = (rounded(&image), rounded(&text));
        let config = config(0.07);
        let actual = evaluate(backend, &config, &image, &text, dtype);
        let expected = expected(&config, &image, &text);
        // The loss is computed in f32; only the gradients are rounded on their way back.
        assert_close(&[actual.loss], &[expected.loss], 1e-5);
        let ulp = ulp(dtype);
        assert_close(&actual.image, &expected.image, 2.0 * ulp);
        assert_close(&actual.text, &expected.text, 2.0 * ulp);
    }
}

fn extra_negatives_match_the_oracle(backend: &Backend) {
    let (image, text) = (random(4, 6, 16), random(4, 6, 17));
    let (extra_image, extra_text) = (random(3, 6, 18), random(8, 6, 19));
    let config = config(0.1).with_image_to_text_weight(0.3);
    let device = backend.autodiff();
    let objective = config.init(&device);
    for (with_image, with_text) in [(true, true), (true, false), (false, true)] {
        let anchor = on(&device, &image, DType::F32).require_grad();
        let negative = on(&device, &extra_text, DType::F32).require_grad();
        let negatives = Negatives {
            image: with_image.then(|| on(&device, &extra_image, DType::F32)),
            text: with_text.then(|| negative.clone()),
            ..Negatives::default()
        };
        let each = objective.forward_no_reduction(
            anchor.clone(),
            on(&device, &text, DType::F32),
            negatives,
        );
        let oracle = oracle_of(&config);
        let reference = |image: &Matrix, extra_text: &Matrix| {
            let extra = |use_it: bool, m| use_it.then_some(m);
            oracle.each(
                image,
                &text,
                extra(with_image, &extra_image),
                extra(with_text, extra_text),
            )
        };
        assert_close(
            &elements(each.clone()),
            &reference(&image, &extra_text),
            1e-5,
        );
        let gradients = each.sum().backward();
        let total = |x: Vec<f64>| x.iter().sum::<f64>();
        let by_image = oracle::gradient(
            |x| total(reference(&Matrix::new(4, 6, x.to_vec()), &extra_text)),
            &image.values,
            1e-5,
        );
        assert_close(&gradient(&anchor, &gradients), &by_image, 2e-5);
        if with_text {
            let by_negative = oracle::gradient(
                |x| total(reference(&image, &Matrix::new(8, 6, x.to_vec()))),
                &extra_text.values,
                1e-5,
            );
            assert_close(&gradient(&negative, &gradients), &by_negative, 2e-5);
        }
    }
}

fn matches_open_clip(backend: &Backend) {
    let stored: serde_json::Value =
        serde_json::from_str(include_str!("../../fixtures/open_clip/clip_loss.json")).unwrap();
    let list = |v: &serde_json::Value| -> Vec<f64> {
        v.as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .collect()
    };
    let cases: Vec<_> = stored["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["dtype"] == "f64")
        .collect();
    assert!(cases.len() >= 18, "the fixture lost cases: {}", cases.len());
    for case in cases {
        let input = &stored["inputs"][case["input"].as_u64().unwrap() as usize];
        let (n, width) = (
            input["n"].as_u64().unwrap() as usize,
            input["d"].as_u64().unwrap() as usize,
        );
        let image = Matrix::new(n, width, list(&input["image"]));
        let text = Matrix::new(n, width, list(&input["text"]));
        let scale = case["log_logit_scale"].as_f64().unwrap().exp();
        let config = config(1.0 / scale)
            .with_image_to_text_weight(case["image_to_text_weight"].as_f64().unwrap());
        let actual = evaluate(backend, &config, &image, &text, DType::F32);
        let gradients = &case["gradients"];
        // f32 against f64: errors of a cosine (1e-7) times the logit scale, over gradients that may
        // be tiny beside the scale.
        let tolerance = 1e-6 * (1.0 + scale);
        let expected = case["loss"].as_f64().unwrap();
        assert!(
            (actual.loss - expected).abs() <= tolerance * (1.0 + expected),
            "{} against {expected}",
            actual.loss
        );
        let close = |actual: &[f64], expected: Vec<f64>| {
            let size = expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
            for (a, e) in actual.iter().zip(&expected) {
                assert!(
                    (a - e).abs() <= tolerance * size,
                    "{a} against {e} at scale {scale}"
                );
            }
        };
        close(&actual.image, list(&gradients["image"]));
        close(&actual.text, list(&gradients["text"]));
        close(
            &[actual.log_scale],
            vec![gradients["log_logit_scale"].as_f64().unwrap()],
        );
    }
}

fn equal_embeddings_give_ln_n(backend: &Backend) {
    for n in [2, 3, 64] {
        let x = equal_rows(n, 5, 20);
        let actual = evaluate(backend, &config(0.07), &x, &x, DType::F32);
        assert_close(&[actual.loss], &[(n as f64).ln()], 1e-6);
        assert!(
            actual
                .image
                .iter()
                .chain(&actual.text)
                .all(|g| g.abs() < 1e-5)
        );
    }
}
