//! Retrieval against naive f64 loops, and the invariants it must keep.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_contrastive::retrieval::{
    Blocks, CrossModal, CrossModalMetrics, cross_modal, five_fold, precision_at_k,
    similarity_histogram,
};
use proptest::prelude::*;

/// Embeddings of small integers: distinct cosines are far apart, equal ones differ by rounding.
type Rows = Vec<Vec<i8>>;

fn tensor(rows: &Rows) -> Tensor<2> {
    let values: Vec<f32> = rows
        .iter()
        .flatten()
        .map(|&value| f32::from(value))
        .collect();
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(values, shape), &Device::default())
}

fn cosine(a: &[i8], b: &[i8]) -> f64 {
    let dot = |a: &[i8], b: &[i8]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

/// Rank of the best positive by definition: one more than the negatives at least as similar.
fn naive_rank(query: &[i8], candidates: &Rows, is_positive: impl Fn(usize) -> bool) -> usize {
    let similarities: Vec<f64> = candidates
        .iter()
        .map(|other| cosine(query, other))
        .collect();
    let best = (0..candidates.len())
        .filter(|&c| is_positive(c))
        .map(|c| similarities[c])
        .fold(f64::NEG_INFINITY, f64::max);
    let ahead = |&c: &usize| !is_positive(c) && similarities[c] >= best - 1e-9;
    1 + (0..candidates.len()).filter(ahead).count()
}

fn defined(ranks: &burn_contrastive::retrieval::Ranks) -> Vec<usize> {
    ranks
        .as_slice()
        .iter()
        .map(|rank| rank.expect("a finite set has ranks"))
        .collect()
}

fn rows(count: std::ops::Range<usize>, width: usize) -> impl Strategy<Value = Rows> {
    prop::collection::vec(prop::collection::vec(-2i8..=2, width), count)
}

/// Images, texts, and the image that each text describes. Every image has at least one text, in any
/// order.
fn pairs() -> impl Strategy<Value = (Rows, Rows, Vec<usize>)> {
    (1usize..6)
        .prop_flat_map(|width| (rows(1..14, width), Just(width)))
        .prop_flat_map(|(images, width)| {
            let count = images.len();
            let extra = prop::collection::vec(0..count, 0..20);
            (Just(images), extra, Just(width))
        })
        .prop_flat_map(|(images, extra, width)| {
            let owners: Vec<usize> = (0..images.len()).chain(extra).collect();
            let texts = rows(owners.len()..owners.len() + 1, width);
            (Just(images), texts, Just(owners).prop_shuffle())
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn ranks_match_naive_loops_for_any_block_shape(
        (images, texts, owners) in pairs(), block_rows in 1usize..9, block_columns in 1usize..9,
    ) {
        let whole = cross_modal(tensor(&images), tensor(&texts), &owners);
        let blocked = Blocks::new(block_rows, block_columns)
            .cross_modal(tensor(&images), tensor(&texts), &owners);
        prop_assert_eq!(&whole, &blocked);
        for (image, rank) in defined(&whole.image_to_text).into_iter().enumerate() {
            prop_assert_eq!(rank, naive_rank(&images[image], &texts, |text| owners[text] == image));
        }
        for (text, rank) in defined(&whole.text_to_image).into_iter().enumerate() {
            prop_assert_eq!(rank, naive_rank(&texts[text], &images, |image| owners[text] == image));
        }
    }

    #[test]
    fn permuting_the_texts_permutes_their_ranks_and_no_others(
        (images, texts, owners) in pairs(), turn in 0usize..40,
    ) {
        let before = cross_modal(tensor(&images), tensor(&texts), &owners);
        let (mut turned, mut turned_owners) = (texts.clone(), owners.clone());
        turned.rotate_left(turn % texts.len());
        turned_owners.rotate_left(turn % texts.len());
        let after = cross_modal(tensor(&images), tensor(&turned), &turned_owners);
        prop_assert_eq!(&before.image_to_text, &after.image_to_text);
        let mut expected = defined(&before.text_to_image);
        expected.rotate_left(turn % texts.len());
        prop_assert_eq!(expected, defined(&after.text_to_image));
    }

    #[test]
    fn swapping_modalities_swaps_directions(images in rows(1..20, 4), seed in rows(20..21, 4)) {
        let texts: Rows = seed[..images.len()].to_vec();
        let owners: Vec<usize> = (0..images.len()).collect();
        let one = cross_modal(tensor(&images), tensor(&texts), &owners);
        let other = cross_modal(tensor(&texts), tensor(&images), &owners);
        prop_assert_eq!(one.image_to_text, other.text_to_image);
        prop_assert_eq!(one.text_to_image, other.image_to_text);
    }

    #[test]
    fn precision_matches_naive_loops_for_any_block_shape(
        queries in rows(1..9, 4), candidates in rows(3..24, 4),
        labels in prop::collection::vec(0usize..3, 33),
        block_rows in 1usize..9, block_columns in 1usize..9,
    ) {
        let query_labels = &labels[..queries.len()];
        let candidate_labels = &labels[9..9 + candidates.len()];
        let ks = [1, 2, candidates.len()];
        let whole = precision_at_k(
            tensor(&queries), query_labels, tensor(&candidates), candidate_labels, &ks,
        );
        let blocked = Blocks::new(block_rows, block_columns).precision_at_k(
            tensor(&queries), query_labels, tensor(&candidates), candidate_labels, &ks,
        );
        prop_assert_eq!(&whole, &blocked);
        for (&k, &precision) in ks.iter().zip(&whole) {
            let mut found = 0;
            for (query, label) in queries.iter().zip(query_labels) {
                // Sort by similarity, and among equals the other labels first.
                let mut order: Vec<(i64, bool)> = candidates
                    .iter()
                    .zip(candidate_labels)
                    .map(|(c, other)| ((-1e9 * cosine(query, c)).round() as i64, other == label))
                    .collect();
                order.sort_unstable();
                found += order[..k].iter().filter(|(_, same)| *same).count();
            }
            let expected = 100.0 * found as f64 / (k * queries.len()) as f64;
            prop_assert!(
                (precision - expected).abs() < 1e-9,
                "k {k}: {precision} is not {expected}"
            );
        }
    }

    #[test]
    fn histogram_counts_every_pair_once_for_any_block_shape(
        (images, texts, owners) in pairs(), block_rows in 1usize..9, block_columns in 1usize..9,
    ) {
        // No cosine lies on an edge, where rounding would decide: m/23 needs a squared norm that is
        // a multiple of 23, and these are at most 20.
        let bins = 23;
        let whole = similarity_histogram(tensor(&images), tensor(&texts), &owners, bins);
        let blocked = Blocks::new(block_rows, block_columns)
            .similarity_histogram(tensor(&images), tensor(&texts), &owners, bins);
        prop_assert_eq!(&whole.positive_counts, &blocked.positive_counts);
        prop_assert_eq!(&whole.negative_counts, &blocked.negative_counts);

        let mut populations = [(vec![0u64; bins], vec![]), (vec![0u64; bins], vec![])];
        for (i, image) in images.iter().enumerate() {
            for (text, &owner) in texts.iter().zip(&owners) {
                let similarity = cosine(image, text);
                let (counts, all) = &mut populations[usize::from(owner != i)];
                counts[(((similarity + 1.0) / 2.0 * bins as f64) as usize).min(bins - 1)] += 1;
                all.push(similarity);
            }
        }
        let found = [
            (&whole.positive_counts, whole.positive),
            (&whole.negative_counts, whole.negative),
        ];
        for ((counts, all), (found_counts, moments)) in populations.iter().zip(found) {
            prop_assert_eq!(counts, found_counts);
            if all.is_empty() {
                prop_assert!(moments.mean.is_nan() && moments.deviation.is_nan());
                continue;
            }
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let variance = all.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / all.len() as f64;
            prop_assert!((moments.mean - mean).abs() < 1e-6);
            prop_assert!((moments.deviation - variance.sqrt()).abs() < 1e-6);
        }
    }
}

/// Pseudo-random, full-precision embeddings.
fn noise(count: usize, width: usize, seed: u64) -> Tensor<2> {
    let mut state = seed;
    let values: Vec<f32> = (0..count * width)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [count, width]), &Device::default())
}

#[test]
fn equal_embeddings_have_zero_recall() {
    // Widths and counts off every tile size, so that the product's edge paths take part.
    for (count, width) in [(2, 1), (37, 67), (130, 513)] {
        let same = noise(1, width, 9).repeat_dim(0, count);
        let owners: Vec<usize> = (0..count).collect();
        for blocks in [Blocks::default(), Blocks::new(7, 1), Blocks::new(1, 33)] {
            let found = blocks.cross_modal(same.clone(), same.clone() * 3.7, &owners);
            for ranks in [&found.image_to_text, &found.text_to_image] {
                assert_eq!(
                    defined(ranks),
                    vec![count; count],
                    "{count} × {width}, {blocks:?}"
                );
                assert_eq!(ranks.recall_at(1), 0.0);
            }
        }
    }
}

#[test]
fn a_duplicate_of_the_positive_ranks_before_it_at_any_index() {
    let (count, width) = (203, 129);
    let images = noise(count, width, 1);
    // Texts equal their images, but the last text repeats the first.
    let texts = Tensor::cat(
        vec![
            images.clone().narrow(0, 0, count - 1),
            images.clone().narrow(0, 0, 1),
        ],
        0,
    );
    let owners: Vec<usize> = (0..count).collect();
    for blocks in [Blocks::default(), Blocks::new(64, 64), Blocks::new(1, 50)] {
        let found = blocks.cross_modal(images.clone(), texts.clone(), &owners);
        let ranks = defined(&found.image_to_text);
        assert_eq!(ranks[0], 2);
        assert!(ranks[1..count - 1].iter().all(|&rank| rank == 1));
        assert_eq!(defined(&found.text_to_image)[0], 1);
    }
}

#[test]
fn blocks_do_not_change_the_ranks_of_full_precision_embeddings() {
    let (images, texts) = (noise(101, 40, 2), noise(303, 40, 3));
    let owners: Vec<usize> = (0..303).map(|text| (text * 7) % 101).collect();
    let whole = cross_modal(images.clone(), texts.clone(), &owners);
    for blocks in [
        Blocks::new(1, 1000),
        Blocks::new(1000, 1),
        Blocks::new(64, 128),
        Blocks::new(13, 17),
    ] {
        assert_eq!(
            whole,
            blocks.cross_modal(images.clone(), texts.clone(), &owners),
            "{blocks:?}"
        );
    }
    let median = whole.image_to_text.median();
    assert!(
        (20.0..150.0).contains(&median),
        "noise finds pairs by chance only, median {median}"
    );
}

#[test]
fn a_single_pair_has_rank_one() {
    let one = noise(1, 5, 4);
    let found = cross_modal(one.clone(), one.neg(), &[0]);
    assert_eq!(found.image_to_text.as_slice(), [Some(1)]);
    assert_eq!(found.text_to_image.as_slice(), [Some(1)]);
}

#[test]
fn any_caption_among_the_nearest_counts_once() {
    let device = Device::default();
    let images = Tensor::<2>::from_data([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], &device);
    // Image 0: captions 0 (far), 2 and 3 (near). Image 1: caption 1, nearer to image 0.
    let texts = Tensor::<2>::from_data(
        [
            [0.0, 0.0, 1.0],
            [0.9, 0.4, 0.0],
            [1.0, 0.1, 0.0],
            [1.0, 0.0, 0.2],
        ],
        &device,
    );
    let found = cross_modal(images, texts, &[0, 1, 0, 0]);
    assert_eq!(found.image_to_text.as_slice(), [Some(1), Some(1)]);
    // Caption 0 is orthogonal to both images: a tie, so its image ranks last. Caption 1 is nearer
    // to the other image.
    assert_eq!(
        found.text_to_image.as_slice(),
        [Some(2), Some(2), Some(1), Some(1)]
    );
    let metrics = found.metrics();
    assert_eq!(metrics.text_to_image.recall_at_1, 50.0);
    assert_eq!(metrics.text_to_image.median_rank, 1.5);
    assert_eq!(metrics.recall_sum, 550.0);
}

fn with_broken_row(rows: Tensor<2>, row: usize, value: f32) -> Tensor<2> {
    let width = rows.dims()[1];
    let broken = Tensor::<2>::full([1, 1], value, &rows.device());
    rows.slice_assign([row..row + 1, width - 1..width], broken)
}

#[test]
fn nan_and_infinity_have_no_rank() {
    let owners = [0, 1, 2, 3];
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let clean = noise(4, 6, 5);
        let broken = with_broken_row(clean.clone(), 2, value);
        let found = cross_modal(broken.clone(), clean.clone(), &owners);
        assert_eq!(
            found.image_to_text.as_slice(),
            [Some(1), Some(1), None, Some(1)]
        );
        assert_eq!(found.text_to_image.as_slice(), [None; 4]);
        let metrics = found.metrics();
        for one in [metrics.image_to_text, metrics.text_to_image] {
            assert!(one.recall_at_1.is_nan() && one.recall_at_10.is_nan());
            assert!(one.median_rank.is_nan() && one.mean_rank.is_nan());
        }
        assert!(metrics.recall_sum.is_nan());

        let precision = precision_at_k(clean.clone(), &owners, broken.clone(), &owners, &[1, 4]);
        assert!(precision.iter().all(|one| one.is_nan()));
        let histogram = similarity_histogram(broken, clean, &owners, 10);
        assert!(histogram.positive.mean.is_nan() && histogram.negative.deviation.is_nan());
        assert!(histogram.overlap().is_nan());
        assert_eq!(histogram.negative_counts, [0; 10]);
    }
    let nan = with_broken_row(noise(1, 6, 5), 0, f32::NAN);
    let found = cross_modal(nan, noise(1, 6, 5), &[0]);
    assert!(
        found.image_to_text.recall_at(1).is_nan(),
        "even without a negative to lose to"
    );
}

#[test]
fn a_zero_vector_ranks_last() {
    let images = noise(5, 8, 6);
    let texts = images
        .clone()
        .slice_assign([3..4, 0..8], Tensor::zeros([1, 8], &images.device()));
    let found = cross_modal(images, texts, &[0, 1, 2, 3, 4]);
    assert_eq!(defined(&found.text_to_image)[3], 5);
    assert_eq!(defined(&found.text_to_image)[0], 1);
}

#[test]
fn huge_and_tiny_norms_change_no_rank() {
    let (images, texts) = (noise(30, 16, 7), noise(30, 16, 8));
    let owners: Vec<usize> = (0..30).collect();
    let expected = cross_modal(images.clone(), texts.clone(), &owners);
    for scale in [1e-20, 1e20] {
        assert_eq!(
            expected,
            cross_modal(images.clone() * scale, texts.clone(), &owners),
            "{scale:e}"
        );
    }
}

#[test]
fn half_precision_is_computed_in_f32_and_f64_in_f64() {
    let images = noise(40, 24, 10);
    let texts = images.clone() + noise(40, 24, 11) * 1.5;
    let owners: Vec<usize> = (0..40).collect();
    for dtype in [DType::BF16, DType::F16] {
        let (images, texts) = (images.clone().cast(dtype), texts.clone().cast(dtype));
        let widened = cross_modal(
            images.clone().cast(DType::F32),
            texts.clone().cast(DType::F32),
            &owners,
        );
        assert_eq!(widened, cross_modal(images, texts, &owners), "{dtype:?}");
    }
    // Too close for f32, not for f64: the second text is nearer to the image than its own.
    let image = Tensor::<2>::from_data(
        TensorData::new(vec![1.0f64, 0.0], [1, 2]),
        (&Device::default(), DType::F64),
    );
    let images = Tensor::cat(vec![image.clone(), image.clone().flip([1])], 0);
    let texts = TensorData::new(vec![1.0f64, 2e-5, 1.0, 1e-5], [2, 2]);
    let texts = Tensor::<2>::from_data(texts, (&Device::default(), DType::F64));
    let found = cross_modal(images.clone(), texts.clone(), &[0, 1]);
    assert_eq!(defined(&found.image_to_text), [2, 2]);
    let found = cross_modal(images, texts, &[1, 0]);
    assert_eq!(defined(&found.image_to_text), [1, 1]);
}

#[test]
fn tracked_embeddings_have_the_same_ranks_as_untracked_ones() {
    let (images, texts) = (noise(12, 8, 12), noise(12, 8, 13));
    let owners: Vec<usize> = (0..12).collect();
    let expected = cross_modal(images.clone(), texts.clone(), &owners);
    let tracked = images.clone().autodiff().require_grad();
    assert_eq!(
        expected,
        cross_modal(tracked.clone(), texts.clone(), &owners)
    );
    assert_eq!(
        expected,
        cross_modal(tracked, texts.autodiff().require_grad(), &owners)
    );
}

#[test]
fn five_folds_average_five_separate_evaluations() {
    let images = noise(15, 4, 14);
    let owners: Vec<usize> = (0..45).map(|text| (text * 4) % 15).collect();
    let texts = noise(45, 4, 15);
    let folds: Vec<CrossModalMetrics> = (0..5)
        .map(|fold| {
            let start = fold * 3;
            let members: Vec<usize> = (0..45)
                .filter(|&text| (start..start + 3).contains(&owners[text]))
                .collect();
            let own: Vec<usize> = members.iter().map(|&text| owners[text] - start).collect();
            let texts = members
                .iter()
                .map(|&text| texts.clone().narrow(0, text, 1))
                .collect();
            cross_modal(
                images.clone().narrow(0, start, 3),
                Tensor::cat(texts, 0),
                &own,
            )
            .metrics()
        })
        .collect();
    let found = five_fold(images.clone(), texts.clone(), &owners);
    assert_eq!(found, CrossModalMetrics::average(&folds));
    let mean = folds
        .iter()
        .map(|fold| fold.text_to_image.recall_at_1)
        .sum::<f64>()
        / 5.0;
    assert_eq!(found.text_to_image.recall_at_1, mean);
    // Fewer candidates, easier: the folds must not see each other's captions.
    assert!(found.recall_sum > cross_modal(images, texts, &owners).metrics().recall_sum);
}

#[test]
fn metrics_survive_json_and_print_as_a_table() {
    let found = cross_modal(noise(6, 3, 16), noise(6, 3, 17), &[0, 1, 2, 3, 4, 5]).metrics();
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(found, serde_json::from_str(&json).unwrap());
    let undefined = CrossModal {
        image_to_text: burn_contrastive::retrieval::Ranks::new(vec![None]),
        text_to_image: burn_contrastive::retrieval::Ranks::new(vec![Some(1)]),
    };
    let json = serde_json::to_string(&undefined.metrics()).unwrap();
    let back: CrossModalMetrics = serde_json::from_str(&json).unwrap();
    assert!(back.recall_sum.is_nan() && back.image_to_text.recall_at_5.is_nan());
    assert_eq!(back.text_to_image.recall_at_1, 100.0);

    let table = undefined.metrics().to_string();
    assert_eq!(table.lines().count(), 4);
    assert!(
        table.contains("text → image  100.00 100.00 100.00"),
        "{table}"
    );
    assert!(table.contains("image → text     NaN"), "{table}");
}

#[test]
fn overlap_is_one_for_equal_populations_and_zero_for_separate_ones() {
    let device = Device::default();
    let images = Tensor::<2>::from_data([[1.0, 0.0], [1.0, 0.0]], &device);
    assert_eq!(
        similarity_histogram(images.clone(), images, &[0, 1], 50).overlap(),
        1.0
    );
    let images = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
    let histogram = similarity_histogram(images.clone(), images, &[0, 1], 50);
    assert_eq!(histogram.overlap(), 0.0);
    assert_eq!(
        (histogram.positive.mean, histogram.positive.deviation),
        (1.0, 0.0)
    );
    assert_eq!(
        (histogram.negative.mean, histogram.negative.deviation),
        (0.0, 0.0)
    );
    assert_eq!(
        (
            histogram.edges()[0],
            histogram.edges()[25],
            histogram.edges()[50]
        ),
        (-1.0, 0.0, 1.0)
    );
}

mod misuse {
    use super::*;

    #[test]
    #[should_panic(expected = "cross_modal: `texts` is empty")]
    fn no_texts() {
        let empty = Tensor::<2>::empty([0, 4], &Device::default());
        cross_modal(noise(2, 4, 1), empty, &[]);
    }

    #[test]
    #[should_panic(expected = "cross_modal: `images` has width 4, `texts` has width 1")]
    fn widths_differ() {
        cross_modal(noise(2, 4, 1), noise(2, 1, 1), &[0, 1]);
    }

    #[test]
    #[should_panic(
        expected = "`image_of_text` has 3 indices: it needs the image of each of the 2 texts"
    )]
    fn too_many_indices() {
        cross_modal(noise(2, 4, 1), noise(2, 4, 1), &[0, 1, 1]);
    }

    #[test]
    #[should_panic(
        expected = "names image 2 for text 1: it needs indices below the number of images, 2"
    )]
    fn index_out_of_range() {
        cross_modal(noise(2, 4, 1), noise(2, 4, 1), &[0, 2]);
    }

    #[test]
    #[should_panic(expected = "names no text for image 1")]
    fn image_without_text() {
        cross_modal(noise(2, 4, 1), noise(2, 4, 1), &[0, 0]);
    }

    #[test]
    #[should_panic(expected = "`images` has 6 rows: it needs a multiple of 5")]
    fn six_images_in_five_folds() {
        five_fold(noise(6, 4, 1), noise(6, 4, 1), &[0, 1, 2, 3, 4, 5]);
    }

    #[test]
    #[should_panic(expected = "`candidate_labels` has 2 labels: it needs 3")]
    fn labels_missing() {
        precision_at_k(noise(2, 4, 1), &[0, 1], noise(3, 4, 1), &[0, 1], &[1]);
    }

    #[test]
    #[should_panic(expected = "`ks` holds 4: each must lie in [1, 3]")]
    fn k_beyond_candidates() {
        precision_at_k(noise(2, 4, 1), &[0, 1], noise(3, 4, 1), &[0, 1, 0], &[1, 4]);
    }

    #[test]
    #[should_panic(expected = "`columns` is 0, it must lie in [1, 2^24]")]
    fn empty_blocks() {
        Blocks::new(8, 0);
    }
}
