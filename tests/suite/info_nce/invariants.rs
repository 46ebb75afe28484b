//! Invariants on random batches.

use proptest::prelude::*;

use super::*;

on_every_backend! {
    permuting_the_batch_permutes_the_losses,
    swapping_the_modalities_swaps_the_directions,
    adding_a_constant_to_every_logit_changes_nothing,
    scaling_an_embedding_changes_nothing,
}

/// Runs `check` on a handful of random batches (rows, width, seed).
fn for_batches(check: impl Fn(usize, usize, u64) -> Result<(), TestCaseError>) {
    proptest!(property(12), |(n in 1usize..9, width in 1usize..9, seed in any::<u64>())| {
        check(n, width, seed)?;
    });
}

fn batch(n: usize, width: usize, seed: u64) -> (Matrix, Matrix) {
    (
        random(n, width, seed),
        random(n, width, seed.wrapping_add(1)),
    )
}

fn prop_close(actual: &[f64], expected: &[f64], tolerance: f64) -> Result<(), TestCaseError> {
    for (a, e) in actual.iter().zip(expected) {
        prop_assert!(
            (a - e).abs() <= tolerance * (1.0 + e.abs()),
            "{actual:?}, expected {expected:?}"
        );
    }
    Ok(())
}

fn permuting_the_batch_permutes_the_losses(backend: &Backend) {
    for_batches(|n, width, seed| {
        let (image, text) = batch(n, width, seed);
        let rotated = |m: &Matrix| {
            let mut values = m.values.clone();
            values.rotate_left(width * (seed as usize % n));
            Matrix::new(n, width, values)
        };
        let mut losses = each(backend, &config(0.07), &image, &text);
        losses.rotate_left(seed as usize % n);
        prop_close(
            &each(backend, &config(0.07), &rotated(&image), &rotated(&text)),
            &losses,
            1e-4,
        )
    });
}

fn swapping_the_modalities_swaps_the_directions(backend: &Backend) {
    for_batches(|n, width, seed| {
        let (image, text) = batch(n, width, seed);
        let weighted = |weight| config(0.07).with_image_to_text_weight(weight);
        let swapped = each(backend, &weighted(0.2), &text, &image);
        prop_close(
            &swapped,
            &each(backend, &weighted(0.8), &image, &text),
            1e-4,
        )
    });
}

fn adding_a_constant_to_every_logit_changes_nothing(backend: &Backend) {
    for_batches(|n, width, seed| {
        let (image, text) = batch(n, width, seed);
        // One more column, of 3 against 1, adds 3 to every dot product.
        let wider = |m: &Matrix, value: f64| {
            let values = (0..n).flat_map(|i| [m.row(i), &[value]].concat()).collect();
            Matrix::new(n, width + 1, values)
        };
        let config = config(1.0).with_similarity(SimilarityConfig::new().with_normalize(false));
        let shifted = each(backend, &config, &wider(&image, 3.0), &wider(&text, 1.0));
        prop_close(&shifted, &each(backend, &config, &image, &text), 1e-5)
    });
}

fn scaling_an_embedding_changes_nothing(backend: &Backend) {
    for_batches(|n, width, seed| {
        let (image, text) = batch(n, width, seed);
        let mut scaled = image.clone();
        scaled.values[..width].iter_mut().for_each(|v| *v *= 37.5);
        let losses = each(backend, &config(0.07), &image, &text);
        prop_close(&each(backend, &config(0.07), &scaled, &text), &losses, 1e-4)
    });
}
