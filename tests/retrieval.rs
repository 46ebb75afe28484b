//! Retrieval against naive f64 loops, and the invariants it must keep.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_contrastive::retrieval::{
    CrossModal, CrossModalMetrics, MultiLabelAuc, Ranks, Scores, Shortlist, auc, cross_modal,
    five_fold, label_histogram, precision_at_k, precision_by_chance, similarity_histogram,
};
use proptest::prelude::*;

/// Embeddings of small integers: distinct cosines are far apart, equal ones are equal but for
/// rounding.
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

/// Rank of the best positive by definition: negatives that are not less similar come first.
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

/// Prec@k by definition: sorted by similarity, and among equals the other labels first.
fn naive_precision(
    queries: &Rows,
    query_labels: &[usize],
    candidates: &Rows,
    candidate_labels: &[usize],
    ks: &[usize],
) -> Vec<f64> {
    let mut found = vec![0; ks.len()];
    for (query, label) in queries.iter().zip(query_labels) {
        let mut order: Vec<(i64, bool)> = candidates
            .iter()
            .zip(candidate_labels)
            .map(|(c, other)| ((-1e9 * cosine(query, c)).round() as i64, other == label))
            .collect();
        order.sort_unstable();
        for (found, &k) in found.iter_mut().zip(ks) {
            *found += order[..k].iter().filter(|(_, same)| *same).count();
        }
    }
    let percent = |(found, k): (usize, &usize)| 100.0 * found as f64 / (k * queries.len()) as f64;
    found.into_iter().zip(ks).map(percent).collect()
}

/// The `k` nearest by definition: by similarity, and among equals the lowest index first.
fn naive_shortlist(query: &[i8], candidates: &Rows, k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&c| (-1e6 * cosine(query, &candidates[c])).round() as i64);
    order.truncate(k);
    order
}

/// The rank of the best match in the whole order that re-ranking makes: the listed candidates by
/// score, then the others by similarity, with matches last among equals. If a candidate that is not
/// listed is as similar as the best match, the order is that of the similarities.
fn naive_reranked(
    query: &[i8],
    candidates: &Rows,
    list: &[usize],
    scores: &[f64],
    is_match: impl Fn(usize) -> bool,
) -> usize {
    let similarity = |c: usize| (1e6 * cosine(query, &candidates[c])).round();
    let all = 0..candidates.len();
    let unlisted: Vec<usize> = all.filter(|c| !list.contains(c)).collect();
    let best = list.iter().copied().filter(|&c| is_match(c));
    let best = best.map(similarity).fold(f64::NEG_INFINITY, f64::max);
    if unlisted
        .iter()
        .any(|&c| !is_match(c) && similarity(c) >= best)
    {
        return naive_rank(query, candidates, is_match);
    }
    let listed = list.iter().zip(scores).map(|(&c, &score)| (0, score, c));
    let others = unlisted.into_iter().map(|c| (1, similarity(c), c));
    let mut order: Vec<(u8, f64, usize)> = listed.chain(others).collect();
    order.sort_by(|(part, x, a), (other, y, b)| {
        let by_value = part.cmp(other).then(y.total_cmp(x));
        by_value.then(is_match(*a).cmp(&is_match(*b)))
    });
    1 + order.iter().take_while(|(_, _, c)| !is_match(*c)).count()
}

fn rows(count: std::ops::Range<usize>, width: usize) -> impl Strategy<Value = Rows> {
    prop::collection::vec(prop::collection::vec(-2i8..=2, width), count)
}

/// Images, texts, and which image each text describes: each image has one text or more, in any
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

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn ranks_are_the_naive_ones((images, texts, owners) in pairs()) {
        let whole = cross_modal(tensor(&images), tensor(&texts), &owners);
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
    fn precision_is_the_naive_one(
        queries in rows(1..9, 4), candidates in rows(3..24, 4),
        labels in prop::collection::vec(0usize..3, 33),
    ) {
        let query_labels = &labels[..queries.len()];
        let candidate_labels = &labels[9..9 + candidates.len()];
        let ks = [1, 2, candidates.len()];
        let whole = precision_at_k(
            tensor(&queries), query_labels, tensor(&candidates), candidate_labels, &ks,
        );
        let expected = naive_precision(&queries, query_labels, &candidates, candidate_labels, &ks);
        for (precision, expected) in whole.iter().zip(expected) {
            prop_assert!((precision - expected).abs() < 1e-9, "{precision} is not {expected}");
        }
    }

    #[test]
    fn shortlists_and_their_reranking_are_the_naive_ones(
        (images, texts, owners) in pairs(), k in 1usize..40,
        scores in prop::collection::vec(-3i8..3, 40),
    ) {
        let before = cross_modal(tensor(&images), tensor(&texts), &owners);
        let is_pair = |image: usize, text: usize| owners[text] == image;
        for (queries, candidates, before, to_text) in [
            (&images, &texts, &before.image_to_text, true),
            (&texts, &images, &before.text_to_image, false),
        ] {
            let is_match = |q, c| if to_text { is_pair(q, c) } else { is_pair(c, q) };
            let list = Shortlist::new(tensor(queries), tensor(candidates), k);
            let score = |q: usize, c: usize| f64::from(scores[(7 * q + c) % scores.len()]);
            let (mut all, mut expected) = (vec![], vec![]);
            for (q, query) in queries.iter().enumerate() {
                let listed = naive_shortlist(query, candidates, k);
                prop_assert_eq!(list.candidates(q), &listed[..]);
                let own: Vec<f64> = listed.iter().map(|&c| score(q, c)).collect();
                let rank = naive_reranked(query, candidates, &listed, &own, |c| is_match(q, c));
                expected.push(rank);
                all.extend(own);
            }
            prop_assert_eq!(expected, defined(&list.reranked(&all, is_match, before)));

            let same: Vec<f64> = (0..list.queries())
                .flat_map(|q| list.similarities(q).to_vec())
                .collect();
            prop_assert_eq!(&list.reranked(&same, is_match, before), before);
        }
    }

    #[test]
    fn histogram_counts_every_pair_once((images, texts, owners) in pairs()) {
        // No cosine lies on an edge, where rounding would decide: one of m/23 needs a squared norm
        // that 23 divides, and these are 20 at most.
        let bins = 23;
        let whole = similarity_histogram(tensor(&images), tensor(&texts), &owners, bins);

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

/// The area under the ROC curve by definition: over all pairs of one that has the label and one
/// that has not.
fn naive_auc(scores: &[f64], labels: &[Option<bool>]) -> Option<f64> {
    let of = |kind| {
        let examples = scores.iter().zip(labels);
        let own = examples.filter(move |(_, label)| **label == Some(kind));
        own.map(|(score, _)| *score)
    };
    let (mut won, mut pairs) = (0.0, 0.0);
    for positive in of(true) {
        for negative in of(false) {
            pairs += 1.0;
            won += f64::from(u8::from(positive > negative))
                + 0.5 * f64::from(u8::from(positive == negative));
        }
    }
    (pairs > 0.0).then(|| won / pairs)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rankings_by_given_cosines_are_those_of_the_embeddings(
        (images, texts, owners) in pairs(), k in 1usize..40,
        labels in prop::collection::vec(0usize..3, 60),
    ) {
        let cosines = images.iter().flat_map(|x| texts.iter().map(|y| cosine(x, y)));
        let scores = Scores::new(cosines.collect(), texts.len()).with_tie(1e-6);
        let found = cross_modal(tensor(&images), tensor(&texts), &owners);
        prop_assert_eq!(scores.ranks(|i, text| owners[text] == i), found.image_to_text);
        let mine = scores.shortlist(k);
        let list = Shortlist::new(tensor(&images), tensor(&texts), k);
        for image in 0..images.len() {
            prop_assert_eq!(mine.candidates(image), list.candidates(image));
        }
        let (of_images, of_texts) = labels.split_at(images.len());
        let of_texts = &of_texts[..texts.len()];
        let ks = [1, texts.len()];
        let whole = precision_at_k(tensor(&images), of_images, tensor(&texts), of_texts, &ks);
        let mine = scores.precision_at_k(of_images, of_texts, &ks);
        prop_assert_eq!(&mine, &whole);
        let chance = precision_by_chance(of_images, of_texts);
        // All candidates are as many as in any order.
        prop_assert!((mine[1] - chance).abs() < 1e-9, "{} is not {chance}", mine[1]);
    }

    #[test]
    fn areas_are_the_naive_ones(
        examples in prop::collection::vec(
            (-3i8..3, prop::option::weighted(0.9, any::<bool>())), 0..60,
        ),
        classes in 1usize..4,
    ) {
        let whole = examples.len() / classes * classes;
        let (scores, labels): (Vec<f64>, Vec<Option<bool>>) =
            examples[..whole].iter().map(|&(score, label)| (f64::from(score), label)).unzip();
        let found = MultiLabelAuc::new(&scores, &labels, classes);
        let mut areas = vec![];
        for class in 0..classes {
            let own = |i: &usize| i % classes == class;
            let scores: Vec<f64> = (0..whole).filter(own).map(|i| scores[i]).collect();
            let labels: Vec<_> = (0..whole).filter(own).map(|i| labels[i]).collect();
            let expected = naive_auc(&scores, &labels);
            prop_assert_eq!(found.by_class[class].is_some(), expected.is_some());
            prop_assert_eq!(auc(&scores, &labels), found.by_class[class]);
            if let (Some(found), Some(expected)) = (found.by_class[class], expected) {
                prop_assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
                // The other way round.
                let turned: Vec<f64> = scores.iter().map(|score| -score).collect();
                prop_assert!((auc(&turned, &labels).unwrap() - (1.0 - expected)).abs() < 1e-12);
                areas.push(expected);
            }
        }
        match found.mean() {
            Some(mean) => {
                let expected = areas.iter().sum::<f64>() / areas.len() as f64;
                prop_assert!((mean - expected).abs() < 1e-12);
            }
            None => prop_assert!(areas.is_empty()),
        }
    }

    #[test]
    fn a_histogram_by_label_counts_every_pair_once(
        queries in rows(1..9, 4), candidates in rows(1..24, 4),
        labels in prop::collection::vec(0usize..3, 33),
    ) {
        let (query_labels, rest) = labels.split_at(queries.len());
        let candidate_labels = &rest[..candidates.len()];
        let bins = 23;
        let (x, y) = (tensor(&queries), tensor(&candidates));
        let found = label_histogram(x, query_labels, y, candidate_labels, bins);
        let mut expected = [vec![0u64; bins], vec![0u64; bins]];
        let mut sums = [0.0; 2];
        for (query, label) in queries.iter().zip(query_labels) {
            for (candidate, other) in candidates.iter().zip(candidate_labels) {
                let similarity = cosine(query, candidate);
                let kind = usize::from(label != other);
                let bin = ((similarity + 1.0) / 2.0 * bins as f64) as usize;
                expected[kind][bin.min(bins - 1)] += 1;
                sums[kind] += similarity;
            }
        }
        let counts = [&found.positive_counts, &found.negative_counts];
        prop_assert_eq!(counts, expected.each_ref());
        for (moments, (counts, sum)) in
            [found.positive, found.negative].iter().zip(expected.iter().zip(sums))
        {
            let mean = sum / counts.iter().sum::<u64>() as f64;
            prop_assert!(moments.mean.is_nan() == mean.is_nan());
            prop_assert!(mean.is_nan() || (moments.mean - mean).abs() < 1e-6);
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
fn n_equal_embeddings_score_nothing() {
    // Widths and counts off every tile size, so that the product's edge paths take part.
    for (count, width) in [(2, 1), (37, 67), (130, 513), (700, 33)] {
        let same = noise(1, width, 9).repeat_dim(0, count);
        let owners: Vec<usize> = (0..count).collect();
        let found = cross_modal(same.clone(), same.clone() * 3.7, &owners);
        for ranks in [&found.image_to_text, &found.text_to_image] {
            assert_eq!(defined(ranks), vec![count; count], "{count} × {width}");
            assert_eq!(ranks.recall_at(1), 0.0);
        }
    }
}

/// Terms of one size, whose rounding errors add up in one direction, the order of the sum aside.
#[test]
fn equal_constant_embeddings_score_nothing_at_any_width() {
    for width in [700, 768, 1000, 3000, 4099, 20_000] {
        let same = Tensor::<2>::full([40, width], 0.3, &Device::default());
        let owners: Vec<usize> = (0..40).collect();
        let found = cross_modal(same.clone(), same, &owners);
        for ranks in [&found.image_to_text, &found.text_to_image] {
            assert_eq!(defined(ranks), vec![40; 40], "width {width}");
        }
    }
}

#[test]
fn a_duplicate_of_the_positive_ranks_before_it_wherever_it_stands() {
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
    let found = cross_modal(images, texts, &owners);
    let ranks = defined(&found.image_to_text);
    assert_eq!(ranks[0], 2);
    assert!(ranks[1..count - 1].iter().all(|&rank| rank == 1));
    assert_eq!(defined(&found.text_to_image)[0], 1);
}

/// More rows and columns than a block has.
#[test]
fn several_blocks_match_naive_loops() {
    let (query_count, candidate_count) = (530, 2100);
    let row = |k: usize| -> Vec<i8> {
        (0..4)
            .map(|c| ((k * (7 + 4 * c) + k / 5) % 5) as i8 - 2)
            .collect()
    };
    let images: Rows = (0..query_count).map(row).collect();
    let texts: Rows = (0..candidate_count).map(|k| row(3 * k + 1)).collect();
    let owners: Vec<usize> = (0..candidate_count)
        .map(|text| (text * 7) % query_count)
        .collect();
    let found = cross_modal(tensor(&images), tensor(&texts), &owners);
    let by_image = defined(&found.image_to_text);
    let by_text = defined(&found.text_to_image);
    for image in (0..query_count).step_by(23) {
        let expected = naive_rank(&images[image], &texts, |text| owners[text] == image);
        assert_eq!(by_image[image], expected);
    }
    for text in (0..candidate_count).step_by(41) {
        let expected = naive_rank(&texts[text], &images, |image| owners[text] == image);
        assert_eq!(by_text[text], expected);
    }

    let histogram = similarity_histogram(tensor(&images), tensor(&texts), &owners, 23);
    let positives: u64 = histogram.positive_counts.iter().sum();
    let negatives: u64 = histogram.negative_counts.iter().sum();
    assert_eq!(positives as usize, candidate_count);
    assert_eq!(
        (positives + negatives) as usize,
        query_count * candidate_count
    );
    let own = texts
        .iter()
        .zip(&owners)
        .map(|(text, &image)| cosine(&images[image], text));
    let mean = own.sum::<f64>() / candidate_count as f64;
    assert!((histogram.positive.mean - mean).abs() < 1e-6);

    let list = Shortlist::new(tensor(&images), tensor(&texts), 150);
    for image in (0..query_count).step_by(23) {
        let expected = naive_shortlist(&images[image], &texts, 150);
        assert_eq!(list.candidates(image), expected);
    }

    let labels = |rows: &Rows| rows.iter().map(|x| (x[0] + 2) as usize).collect::<Vec<_>>();
    let (of_images, of_texts) = (labels(&images), labels(&texts));
    let ks = [1, 10, 300];
    let found = precision_at_k(tensor(&images), &of_images, tensor(&texts), &of_texts, &ks);
    let expected = naive_precision(&images, &of_images, &texts, &of_texts, &ks);
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }
}

/// A shortlist of equals is one by index: no scores can make it a hit.
#[test]
fn n_equal_embeddings_score_nothing_after_reranking() {
    for (count, width) in [(37, 67), (130, 513), (700, 33)] {
        let same = noise(1, width, 9).repeat_dim(0, count);
        let owners: Vec<usize> = (0..count).collect();
        let before = cross_modal(same.clone(), same.clone(), &owners).image_to_text;
        let list = Shortlist::new(same.clone(), same, 10);
        let mut scores = vec![];
        for query in 0..count {
            assert_eq!(list.candidates(query), &owners[..10]);
            let right = |&one: &usize| if one == query { 1.0 } else { 0.0 };
            scores.extend(list.candidates(query).iter().map(right));
        }
        assert_eq!(list.reranked(&scores, |a, b| a == b, &before), before);
    }
}

#[test]
fn scores_of_a_perfect_model_find_all_that_is_listed() {
    let images = noise(60, 8, 12);
    let texts = images.clone() + noise(60, 8, 13);
    let owners: Vec<usize> = (0..60).collect();
    let before = cross_modal(images.clone(), texts.clone(), &owners).image_to_text;
    let list = Shortlist::new(images.clone().autodiff(), texts.autodiff(), 5);
    let scores: Vec<f64> = (0..60)
        .flat_map(|query| list.candidates(query).iter().map(move |&one| (one, query)))
        .map(|(one, query)| if one == query { 1.0 } else { 0.0 })
        .collect();
    let after = list.reranked(&scores, |a, b| a == b, &before);
    let expected = defined(&before).into_iter();
    let expected: Vec<usize> = expected
        .map(|rank| if rank <= 5 { 1 } else { rank })
        .collect();
    assert_eq!(defined(&after), expected);
    assert!(before.recall_at(1) < before.recall_at(5) && before.recall_at(5) < 100.0);
    assert_eq!(after.recall_at(1), before.recall_at(5));
}

#[test]
fn one_pair_is_found() {
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
    // Caption 0 is orthogonal to both images: a tie, so it ranks last. Caption 1 prefers the other
    // image.
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
fn nan_and_infinity_never_score() {
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
fn norms_do_not_matter_however_large_or_small() {
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
fn half_precision_widens_and_double_stays() {
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
fn tracked_embeddings_rank_alike_and_keep_no_graph() {
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
    #[should_panic(expected = "Shortlist: `k` is 0")]
    fn shortlist_of_none() {
        Shortlist::new(noise(2, 4, 1), noise(3, 4, 1), 0);
    }

    #[test]
    #[should_panic(expected = "Shortlist: `queries` has width 4, `candidates` has width 5")]
    fn shortlist_of_other_widths() {
        Shortlist::new(noise(2, 4, 1), noise(3, 5, 1), 1);
    }

    #[test]
    #[should_panic(expected = "Shortlist: `candidates` is empty")]
    fn shortlist_from_none() {
        let empty = Tensor::<2>::empty([0, 4], &Device::default());
        Shortlist::new(noise(2, 4, 1), empty, 1);
    }

    #[test]
    #[should_panic(expected = "`scores` has 5 values: it needs 4, 2 for each of the 2 queries")]
    fn scores_in_excess() {
        let list = Shortlist::new(noise(2, 4, 1), noise(3, 4, 1), 2);
        let before = Ranks::new(vec![Some(1); 2]);
        list.reranked(&[0.0; 5], |a, b| a == b, &before);
    }

    #[test]
    #[should_panic(expected = "`before` has 3 ranks: it needs one for each of the 2 queries")]
    fn ranks_in_excess() {
        let list = Shortlist::new(noise(2, 4, 1), noise(3, 4, 1), 2);
        let before = Ranks::new(vec![Some(1); 3]);
        list.reranked(&[0.0; 4], |a, b| a == b, &before);
    }

    #[test]
    #[should_panic(expected = "Shortlist: there is no query 2: it must be below 2")]
    fn no_such_query() {
        Shortlist::new(noise(2, 4, 1), noise(3, 4, 1), 2).candidates(2);
    }
}
