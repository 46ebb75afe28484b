//! Synthetic hard negatives of batches in which several pairs match: an anchor's matches must not
//! influence its negatives. And gradients and hardness with several clusters.

use burn::tensor::{DType, Int, Tensor};
use burn_contrastive::negatives::{HardNegativeSynthesisConfig, HardNegatives};

use super::*;
use crate::oracle::{self, Matrix, normalize, synthesis};

on_every_backend! {
    samples_with_the_anchors_id_are_excluded,
    a_cluster_of_matches_alone_is_replaced_by_another,
    gradients_of_several_clusters_match_finite_differences,
    hard_negatives_are_nearer_than_their_clusters,
}

const WIDTH: usize = 4;
const SIGMA: f64 = 0.5;

/// `sizes[k]` samples close to the `k`-th axis, and the rows of each group.
fn groups(sizes: &[usize], seed: u64) -> (Matrix, Vec<Vec<usize>>) {
    let count = sizes.iter().sum();
    let mut x = random(count, WIDTH, seed);
    x.values.iter_mut().for_each(|value| *value *= 0.1);
    let (mut rows, mut next) = (Vec::new(), 0);
    for (k, &size) in sizes.iter().enumerate() {
        rows.push((next..next + size).collect());
        (next..next + size).for_each(|i| x.values[i * WIDTH + k] += 1.0);
        next += size;
    }
    (x, rows)
}

fn config(clusters: usize) -> HardNegativeSynthesisConfig {
    HardNegativeSynthesisConfig::new()
        .with_clusters(clusters)
        .with_sigma(SIGMA)
}

fn synthesize(
    backend: &Backend,
    config: &HardNegativeSynthesisConfig,
    [image, text]: [&Matrix; 2],
    ids: &[i32],
) -> HardNegatives {
    let [image, text] = [image, text].map(|x| backend.tensor(x, DType::F32));
    let ids = Tensor::<1, Int>::from_data(ids, &backend.device);
    config.init().synthesize(image, text, Some(ids), 3).unwrap()
}

/// The memory of each cluster at each anchor, without the candidates that have the anchor's id.
fn expected(
    anchors: &Matrix,
    candidates: &Matrix,
    clusters: &[Vec<usize>],
    ids: &[i32],
) -> Vec<Vec<Vec<f64>>> {
    let of = |i: usize, cluster: &Vec<usize>| {
        let others = cluster.iter().filter(|&&j| ids[j] != ids[i]);
        let prototypes: Vec<_> = others.map(|&j| normalize(candidates.row(j))).collect();
        synthesis::recall(&normalize(anchors.row(i)), &prototypes, SIGMA, 1e-3)
    };
    let of_anchor = |i| clusters.iter().map(|cluster| of(i, cluster)).collect();
    (0..anchors.rows).map(of_anchor).collect()
}

/// All values, the negatives of each anchor in ascending order: that of the clusters is random.
fn sorted(mut negatives: Vec<Vec<Vec<f64>>>) -> Vec<f64> {
    for negatives in &mut negatives {
        negatives.sort_by(|a, b| a.partial_cmp(b).unwrap());
    }
    negatives.concat().concat()
}

fn read(negatives: Tensor<3>) -> Vec<Vec<Vec<f64>>> {
    let [_, clusters, width] = negatives.dims();
    let rows: Vec<_> = elements(negatives)
        .chunks(width)
        .map(<[f64]>::to_vec)
        .collect();
    rows.chunks(clusters).map(<[Vec<f64>]>::to_vec).collect()
}

fn samples_with_the_anchors_id_are_excluded(backend: &Backend) {
    // Two or three matches of an anchor in one cluster, and a match in another one.
    let ids = [10, 10, -11, 12, 12, 10, 13, 14, 14, 15, 16, 15, 1 << 30];
    let (image, image_groups) = groups(&[4, 5, 4], 320);
    let (text, text_groups) = groups(&[5, 4, 4], 321);
    for per_anchor in [false, true] {
        let config = config(3).with_per_anchor(per_anchor);
        let hard = synthesize(backend, &config, [&image, &text], &ids);
        let texts = expected(&image, &text, &text_groups, &ids);
        let images = expected(&text, &image, &image_groups, &ids);
        assert_close(&sorted(read(hard.text)), &sorted(texts), 1e-3);
        assert_close(&sorted(read(hard.image)), &sorted(images), 1e-3);
    }
}

fn a_cluster_of_matches_alone_is_replaced_by_another(backend: &Backend) {
    // Texts 4 and 5 are a cluster, and match images 4 and 5.
    let ids = [0, 1, 1, 2, 7, 7];
    let (image, _) = groups(&[3, 3], 322);
    let (text, clusters) = groups(&[4, 2], 323);
    let hard = synthesize(backend, &config(2), [&image, &text], &ids);
    let mut all = expected(&image, &text, &clusters[..1], &ids);
    let others = expected(&image, &text, &clusters[1..], &[0, 1, 2, 3, 8, 9]);
    for i in 0..6 {
        let other = if i < 4 { &others[i][0] } else { &all[i][0] };
        let other = other.clone();
        all[i].push(other);
    }
    assert_close(&sorted(read(hard.text)), &sorted(all), 1e-3);
}

fn gradients_of_several_clusters_match_finite_differences(backend: &Backend) {
    let ids = [0, 0, 1, 2, 3, 4, 3];
    let (image, _) = groups(&[3, 4], 324);
    let (text, clusters) = groups(&[4, 3], 325);
    let factors = random(7, WIDTH, 326);
    // The order of the clusters is random: one factor for all negatives of an anchor.
    let oracle = |image: &Matrix, text: &Matrix| -> f64 {
        let hard = expected(image, text, &clusters, &ids);
        let of_anchor = |(i, hard): (usize, &Vec<Vec<f64>>)| -> f64 {
            hard.iter().map(|h| oracle::dot(h, factors.row(i))).sum()
        };
        hard.iter().enumerate().map(of_anchor).sum()
    };
    let device = backend.device.clone().autodiff();
    let tracked = [&image, &text].map(|x| on(&device, x, DType::F32).require_grad());
    let synthesis = config(2).with_gradients(true).init();
    let [by_image, by_text] = tracked.clone();
    let ids_of_batch = Tensor::<1, Int>::from_data(ids, &device);
    let hard = synthesis
        .synthesize(by_image, by_text, Some(ids_of_batch), 3)
        .unwrap()
        .text;
    let factors = on(&device, &factors, DType::F32).unsqueeze_dim::<3>(1);
    let loss = (hard * factors).sum();
    assert_close(&elements(loss.clone()), &[oracle(&image, &text)], 1e-4);

    let gradients = loss.backward();
    let with = |values: &[f64]| Matrix::new(7, WIDTH, values.to_vec());
    let by_image = oracle::gradient(|x| oracle(&with(x), &text), &image.values, 1e-5);
    let by_text = oracle::gradient(|x| oracle(&image, &with(x)), &text.values, 1e-5);
    let [image, text] = tracked.map(|x| elements(x.grad(&gradients).unwrap()));
    assert_close(&image, &by_image, 5e-3);
    assert_close(&text, &by_text, 5e-3);
}

/// A negative is nearer to the anchor than the samples of its cluster are, on average.
fn hard_negatives_are_nearer_than_their_clusters(backend: &Backend) {
    let ids: Vec<i32> = (0..12).collect();
    let (image, _) = groups(&[6, 6], 327);
    let (text, clusters) = groups(&[6, 6], 328);
    let config = config(2).with_sigma(0.1);
    let hard = read(synthesize(backend, &config, [&image, &text], &ids).text);
    let (mut nearer, mut pairs) = (0, 0);
    for (i, hard) in hard.iter().enumerate() {
        for cluster in &clusters {
            let similarity = |x: &[f64]| oracle::cosine(image.row(i), x);
            let others = cluster.iter().filter(|&&j| j != i);
            let others: Vec<_> = others.map(|&j| similarity(text.row(j))).collect();
            let mean = others.iter().sum::<f64>() / others.len() as f64;
            // The negative of this cluster is the one that points to the same axis.
            let axis = |x: &[f64]| usize::from(x[1] > x[0]);
            let own = hard.iter().find(|h| axis(h) == axis(text.row(cluster[0])));
            nearer += usize::from(similarity(own.expect("one a cluster")) > mean);
            pairs += 1;
        }
    }
    assert!(nearer == pairs, "{nearer} of {pairs}");
}
