//! Identities between objectives, and invariants of each.

use super::*;

on_every_backend! {
    permuting_the_batch_changes_nothing,
    swapping_the_modalities_changes_nothing,
    scaling_an_embedding_changes_nothing,
    con_vse_plus_plus_equals_vse_plus_plus_divided_by_the_temperature,
    vse_plus_plus_equals_vse_for_two_pairs,
    reco_equals_orthogonality_when_no_cosine_is_negative,
    barlow_twins_equals_orthogonality_of_transposed_inputs,
    warm_up_and_margin_by_name_match_the_oracle,
}

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
            let loss =
                |image, text| elements((case.loss)(&backend.device, similarity, image, text));
            let before = loss(image.clone(), text.clone())[0];
            let [image, text] = change(case.name, image.clone(), text.clone());
            let after = loss(image, text)[0];
            println!("{} of {n} pairs of width {width}", case.name);
            assert_near(after, before, 1e-4);
        }
    }
}

fn permuting_the_batch_changes_nothing(backend: &Backend) {
    nothing_changes(backend, |_, image, text| [image, text].map(|x| x.flip([0])));
}

fn swapping_the_modalities_changes_nothing(backend: &Backend) {
    nothing_changes(backend, |_, image, text| [text, image]);
}

fn scaling_an_embedding_changes_nothing(backend: &Backend) {
    nothing_changes(backend, |name, image, text| {
        // Features of Barlow Twins have one scale each, over the batch.
        let dim = usize::from(name.starts_with("BarlowTwins"));
        let scaled = image.clone().slice_dim(dim, 0..1) * 37.5;
        let shape = scaled.dims();
        [image.slice_assign([0..shape[0], 0..shape[1]], scaled), text]
    });
}

fn loss_of(backend: &Backend, loss: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<1>, seed: u64) -> f64 {
    let (image, text) = (random(6, 5, seed), random(6, 5, seed + 1));
    elements(loss(
        backend.tensor(&image, DType::F32),
        backend.tensor(&text, DType::F32),
    ))[0]
}

fn con_vse_plus_plus_equals_vse_plus_plus_divided_by_the_temperature(backend: &Backend) {
    let settings = |weight| Settings {
        hardest_weight: Some(weight),
        ..Settings::default()
    };
    for (seed, weight, temperature) in [(130, 1.0, 0.1), (132, 0.3, 0.7), (134, 0.0, 0.01)] {
        let contrastive = ConVsePlusPlusConfig::new()
            .with_temperature(temperature)
            .init()
            .with_settings(&settings(weight));
        let hinges = VsePlusPlusConfig::new().init();
        let hinges = hinges.with_settings(&settings(weight));
        let contrastive = loss_of(backend, |a, b| contrastive.forward(a, b), seed);
        let hinges = loss_of(backend, |a, b| hinges.forward(a, b), seed);
        assert_close(&[contrastive], &[hinges / temperature], 1e-6);
    }
}

fn vse_plus_plus_equals_vse_for_two_pairs(backend: &Backend) {
    let (image, text) = (random(2, 5, 136), random(2, 5, 137));
    let tensor = |x| backend.tensor(x, DType::F32);
    let vse = VseConfig::new().init();
    let plus_plus = VsePlusPlusConfig::new().init();
    assert_close(
        &elements(plus_plus.forward_no_reduction(tensor(&image), tensor(&text))),
        &elements(vse.forward_no_reduction(tensor(&image), tensor(&text))),
        1e-6,
    );
}

fn reco_equals_orthogonality_when_no_cosine_is_negative(backend: &Backend) {
    let reco = ReCoConfig::new().init();
    let orthogonality = OrthogonalityConfig::new().init();
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

fn barlow_twins_equals_orthogonality_of_transposed_inputs(backend: &Backend) {
    let barlow = BarlowTwinsConfig::new().with_redundancy_weight(0.4).init();
    let orthogonality = OrthogonalityConfig::new().with_negative_weight(0.4).init();
    let features = loss_of(backend, |a, b| barlow.forward(a, b), 142);
    let samples = |a: Tensor<2>, b: Tensor<2>| orthogonality.forward(a.transpose(), b.transpose());
    assert_close(&[features], &[loss_of(backend, samples, 142)], 1e-6);
}

fn warm_up_and_margin_by_name_match_the_oracle(backend: &Backend) {
    let (image, text) = (random(5, 4, 144), random(5, 4, 145));
    let features = Features::new(
        backend.tensor(&image, DType::F32),
        backend.tensor(&text, DType::F32),
    );
    let loss = |objective: Objective| elements(objective.forward(&features));
    let pairs = image.rows as f64;
    let warming = |margin, hardest: f64| {
        let sum = pointwise::vse(&image, &text, margin) / pairs;
        let maximum = pointwise::vse_plus_plus(&image, &text, margin) / pairs;
        (1.0 - hardest) * sum + hardest * maximum
    };
    type Oracle<'a> = &'a dyn Fn(f64, f64) -> f64;
    let cases: [(&str, Oracle); 4] = [
        ("vse", &|margin, _| warming(margin, 0.0)),
        ("vse-plus-plus", &warming),
        ("con-vse-plus-plus", &|margin, hardest| {
            warming(margin, hardest) / 0.1
        }),
        ("max-margin", &|margin, _| {
            pointwise::max_margin(&image, &text, margin) / pairs
        }),
    ];
    for (name, oracle) in cases {
        println!("{name}");
        let objective = ObjectiveConfig::named(name).unwrap().init(&backend.device);
        for (margin, hardest) in [(0.2, 0.0), (0.3, 0.4), (0.5, 1.0)] {
            let settings = Settings {
                margin: Some(margin),
                hardest_weight: Some(hardest),
                ..Settings::default()
            };
            let changed = objective.clone().with_settings(&settings);
            assert_close(&loss(changed), &[oracle(margin, hardest)], 1e-5);
        }
        // By their own schedules: the sum over all negatives first, the hardest in the end.
        let default = if name == "max-margin" { 0.5 } else { 0.2 };
        for (progress, hardest) in [(0.0, 0.0), (1.0, 1.0)] {
            let changed = objective.clone().at(progress);
            assert_close(&loss(changed), &[oracle(default, hardest)], 1e-5);
        }
    }
}
