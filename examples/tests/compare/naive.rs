//! The figures by loops in `f64` over the embeddings of a file.

use std::fs;
use std::path::Path;

use burn_contrastive_examples::compare::data::Part;
use safetensors::SafeTensors;

/// The rows of a matrix of a file, of length one.
pub fn rows(file: &Path, name: &str) -> Vec<Vec<f64>> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let values = tensor.data().chunks(4);
    let values = values.map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())));
    let values: Vec<f64> = values.collect();
    let unit = |row: &[f64]| {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter().map(|x| x / norm).collect()
    };
    values.chunks(tensor.shape()[1]).map(unit).collect()
}

/// The integers of a file.
pub fn integers(file: &Path, name: &str) -> Vec<usize> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = tensors.tensor(name).unwrap().data().chunks(8);
    let values = values.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as usize);
    values.collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The figures of a run in the order of the columns of a table: R@1 of both directions, R@sum, nDCG
/// and R-precision by equality, then by overlap, alignment, uniformity and gap.
pub fn figures(file: &Path, part: &Part) -> Vec<f64> {
    let (images, texts) = (rows(file, "image"), rows(file, "text"));
    let owner = integers(file, "image_id");
    assert_eq!(owner, part.image_of_caption);
    let to_text: Vec<Vec<f64>> = images
        .iter()
        .map(|image| texts.iter().map(|text| dot(image, text)).collect())
        .collect();
    let to_image: Vec<Vec<f64>> = texts
        .iter()
        .map(|text| images.iter().map(|image| dot(text, image)).collect())
        .collect();
    let own = |a: usize, b: usize| f64::from(u8::from(a == b));
    let equal = |a: usize, b: usize| own(part.meanings[a], part.meanings[b]);
    let both = |score: &dyn Fn(&[f64], &[f64]) -> f64, gain: &dyn Fn(usize, usize) -> f64| {
        let of_images = to_text.iter().enumerate().map(|(image, cosines)| {
            let gains: Vec<f64> = owner.iter().map(|&other| gain(image, other)).collect();
            score(cosines, &gains)
        });
        let of_texts = to_image.iter().zip(&owner).map(|(cosines, &image)| {
            let gains: Vec<f64> = (0..images.len()).map(|other| gain(image, other)).collect();
            score(cosines, &gains)
        });
        [
            100.0 * of_images.sum::<f64>() / images.len() as f64,
            100.0 * of_texts.sum::<f64>() / texts.len() as f64,
        ]
    };
    let recalls = [1, 5, 10].map(|k| {
        let found = move |cosines: &[f64], gains: &[f64]| {
            let first = in_order(cosines, gains).into_iter().take(k);
            first.fold(0.0, f64::max)
        };
        both(&found, &own)
    });
    let sum: f64 = recalls.iter().flatten().sum();
    let mean = |[a, b]: [f64; 2]| (a + b) / 2.0;
    let mut figures = vec![recalls[0][0], recalls[0][1], sum];
    figures.push(mean(both(&ndcg, &equal)));
    figures.push(mean(both(
        &|cosines, gains| precision(cosines, gains, 1.0),
        &equal,
    )));
    if let Some(scenes) = &part.scenes {
        let overlap = |a: usize, b: usize| scenes[a].similarity(&scenes[b]);
        figures.push(mean(both(&ndcg, &overlap)));
        figures.push(mean(both(
            &|cosines, gains| precision(cosines, gains, 0.8),
            &overlap,
        )));
    }
    figures.extend(geometry(&images, &texts, &owner));
    figures
}

/// The gains of candidates from the most to the least similar; of those that are equally similar,
/// less gain comes first.
fn in_order(cosines: &[f64], gains: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..cosines.len()).collect();
    order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
    // Cosines in single precision, of eight numbers each: closer ones are equal.
    let tie = 2.0 * f64::from(f32::EPSILON) * 8.0_f64.sqrt();
    let mut sorted = Vec::new();
    let mut rest = order.as_slice();
    while let Some(first) = rest.first() {
        let is_tied = |other: &&usize| cosines[**other] >= cosines[*first] - tie;
        let tied = rest.iter().take_while(is_tied).count();
        let mut equal: Vec<f64> = rest[..tied].iter().map(|&place| gains[place]).collect();
        equal.sort_by(f64::total_cmp);
        sorted.extend(equal);
        rest = &rest[tied..];
    }
    sorted
}

fn ndcg(cosines: &[f64], gains: &[f64]) -> f64 {
    let discounted = |gains: &[f64]| {
        let places = gains.iter().take(10).zip(1..);
        places
            .map(|(gain, rank)| gain / f64::from(rank + 1).log2())
            .sum::<f64>()
    };
    let mut best = gains.to_vec();
    best.sort_by(|a, b| b.total_cmp(a));
    discounted(&in_order(cosines, gains)) / discounted(&best)
}

fn precision(cosines: &[f64], gains: &[f64], relevant: f64) -> f64 {
    let count = gains.iter().filter(|gain| **gain >= relevant).count();
    let first = in_order(cosines, gains).into_iter().take(count);
    first.filter(|gain| *gain >= relevant).count() as f64 / count as f64
}

/// Alignment, uniformity and gap, as `audit` has them: each caption with its image is a pair.
fn geometry(images: &[Vec<f64>], texts: &[Vec<f64>], owner: &[usize]) -> [f64; 3] {
    let count = texts.len() as f64;
    let distance =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let pairs = texts.iter().zip(owner);
    let alignment = pairs
        .map(|(text, &image)| distance(&images[image], text))
        .sum::<f64>()
        / count;
    let mut potential = 0.0;
    for &image in owner {
        for text in texts {
            potential += (-2.0 * distance(&images[image], text)).exp();
        }
    }
    let mut centres = [vec![0.0; texts[0].len()], vec![0.0; texts[0].len()]];
    for (text, &image) in texts.iter().zip(owner) {
        for (centre, row) in centres.iter_mut().zip([&images[image], text]) {
            for (sum, value) in centre.iter_mut().zip(row) {
                *sum += value / count;
            }
        }
    }
    let gap = distance(&centres[0], &centres[1]).sqrt();
    [alignment, (potential / count / count).ln(), gap]
}

/// A text as a negative of an image, and the image as one of the text.
struct Negative {
    is_false: bool,
    /// Of mean one over the negatives of the image, and of the text.
    weights: [f64; 2],
}

/// The negatives of each batch of `size`, whose weights are inverse to `e^{cosine/temperature}`.
fn negatives(file: &Path, sides: [&str; 2], size: usize, temperature: f64) -> Vec<Vec<Negative>> {
    let [images, texts] = sides.map(|side| rows(file, side));
    let labels = integers(file, "label");
    let starts = (0..labels.len()).step_by(size);
    let of_batch = starts.map(|start| {
        let all = start..start + size;
        let weight = |a: usize, b: usize| (-dot(&images[a], &texts[b]) / temperature).exp();
        let mut found = Vec::new();
        for a in all.clone() {
            for b in all.clone().filter(|&b| b != a) {
                let of_image: f64 = all.clone().filter(|&x| x != a).map(|x| weight(a, x)).sum();
                let of_text: f64 = all.clone().filter(|&x| x != b).map(|x| weight(x, b)).sum();
                let own = weight(a, b) * (size - 1) as f64;
                found.push(Negative {
                    is_false: labels[a] == labels[b],
                    weights: [own / of_image, own / of_text],
                });
            }
        }
        found
    });
    of_batch.collect()
}

/// The area under the ROC curve of low weights for pairs of the same label: its mean over the
/// batches.
pub fn area(file: &Path, sides: [&str; 2], size: usize, temperature: f64) -> f64 {
    let batches = negatives(file, sides, size, temperature);
    let areas = batches.iter().map(|batch| {
        let of = |is_false: bool| {
            let these = batch.iter().filter(move |one| one.is_false == is_false);
            these
                .map(|one| one.weights[0] + one.weights[1])
                .collect::<Vec<f64>>()
        };
        let (low, other) = (of(true), of(false));
        let wins = low.iter().flat_map(|low| {
            other
                .iter()
                .map(move |other| f64::from(u8::from(low < other)))
        });
        wins.sum::<f64>() / (low.len() * other.len()) as f64
    });
    areas.sum::<f64>() / batches.len() as f64
}

/// The shares of weights below a threshold, of pairs of the same label and of others.
pub fn removed(file: &Path, size: usize, temperature: f64, threshold: f64) -> [f64; 2] {
    let batches = negatives(file, ["image", "text"], size, temperature);
    [true, false].map(|is_false| {
        let these = batches
            .iter()
            .flatten()
            .filter(|one| one.is_false == is_false);
        let weights: Vec<f64> = these.flat_map(|one| one.weights).collect();
        let below = weights.iter().filter(|weight| **weight < threshold);
        below.count() as f64 / weights.len() as f64
    })
}
