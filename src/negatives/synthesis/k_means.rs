//! k-means on the host: some thousand points, a handful of clusters.

use super::Points;
use crate::random::Random;

/// A cluster: its points, ascending, and their mean.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub members: Vec<usize>,
    pub center: Vec<f64>,
}

/// `count` clusters of `points`, none of them empty (there must be at least `count` points):
/// seeded by k-means++, then updated until nothing changes, `iterations` times at most. A point
/// that is equally near to several centres goes to the first.
pub fn k_means(
    all: &Points,
    points: &[usize],
    count: usize,
    iterations: usize,
    random: &mut Random,
) -> Vec<Cluster> {
    assert!(0 < count && count <= points.len());
    let mut centers = seeds(all, points, count, random);
    let mut nearest = Vec::new();
    for _ in 0..iterations.max(1) {
        let assigned = assign(all, points, &centers);
        if assigned == nearest {
            break;
        }
        nearest = assigned;
        centers = means(all, points, &nearest, count);
    }
    let members = |k| {
        let own = points.iter().zip(&nearest).filter(move |&(_, &n)| n == k);
        own.map(|(&i, _)| i).collect()
    };
    let clusters = centers.into_iter().enumerate();
    clusters
        .map(|(k, center)| Cluster {
            members: members(k),
            center,
        })
        .collect()
}

/// Initial centres, drawn far from each other: Arthur and Vassilvitskii (2007).
fn seeds(all: &Points, points: &[usize], count: usize, random: &mut Random) -> Vec<Vec<f64>> {
    let mut centers = vec![all.row(points[random.below(points.len())]).to_vec()];
    let mut distances = vec![f64::INFINITY; points.len()];
    while centers.len() < count {
        let newest = &centers[centers.len() - 1];
        for (distance, &i) in distances.iter_mut().zip(points) {
            *distance = distance.min(all.squared_distance(i, newest));
        }
        let mut share = random.uniform() * distances.iter().sum::<f64>();
        // If all points are equal, or some are NaN, any point.
        let drawn = distances.iter().position(|distance| {
            share -= distance;
            share < 0.0
        });
        let drawn = drawn.unwrap_or_else(|| random.below(points.len()));
        centers.push(all.row(points[drawn]).to_vec());
    }
    centers
}

/// The nearest centre of each point. A centre that is nearest to no point gets the point that is
/// furthest from its centre, of those whose cluster has other points.
fn assign(all: &Points, points: &[usize], centers: &[Vec<f64>]) -> Vec<usize> {
    let (mut nearest, mut distances) = (Vec::new(), Vec::new());
    let mut sizes = vec![0; centers.len()];
    for &i in points {
        let mut best = (0, f64::INFINITY);
        for (k, center) in centers.iter().enumerate() {
            let distance = all.squared_distance(i, center);
            if distance < best.1 {
                best = (k, distance);
            }
        }
        nearest.push(best.0);
        distances.push(best.1);
        sizes[best.0] += 1;
    }
    while let Some(empty) = sizes.iter().position(|&size| size == 0) {
        let furthest = (0..points.len())
            .filter(|&p| sizes[nearest[p]] > 1)
            .reduce(|a, b| if distances[b] > distances[a] { b } else { a })
            .expect("as many points as clusters");
        sizes[nearest[furthest]] -= 1;
        sizes[empty] = 1;
        (nearest[furthest], distances[furthest]) = (empty, 0.0);
    }
    nearest
}

fn means(all: &Points, points: &[usize], nearest: &[usize], count: usize) -> Vec<Vec<f64>> {
    let mut centers = vec![vec![0.0; all.width]; count];
    let mut sizes = vec![0.0; count];
    for (&i, &k) in points.iter().zip(nearest) {
        sizes[k] += 1.0;
        for (sum, x) in centers[k].iter_mut().zip(all.row(i)) {
            *sum += x;
        }
    }
    for (center, size) in centers.iter_mut().zip(sizes) {
        center.iter_mut().for_each(|sum| *sum /= size);
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn clusters(values: &[f64], count: usize, seed: u64) -> Vec<Vec<usize>> {
        let all = Points {
            width: 1,
            values: values.to_vec(),
        };
        let points: Vec<_> = (0..values.len()).collect();
        let mut random = Random::new(seed, 0, Purpose::ClustersOfTexts);
        let mut found: Vec<_> = k_means(&all, &points, count, 10, &mut random)
            .into_iter()
            .map(|cluster| cluster.members)
            .collect();
        found.sort();
        found
    }

    #[test]
    fn separated_groups_are_the_clusters() {
        let values = [0.0, 10.0, 0.1, 20.0, 10.2, 0.2, 19.9];
        for seed in 0..10 {
            assert_eq!(
                clusters(&values, 3, seed),
                [vec![0, 2, 5], vec![1, 4], vec![3, 6]]
            );
        }
    }

    #[test]
    fn no_cluster_is_empty() {
        for (values, count) in [
            (vec![1.0; 5], 4),
            (vec![f64::NAN; 3], 3),
            (vec![1.0, 2.0], 2),
        ] {
            let found = clusters(&values, count, 1);
            assert_eq!(found.len(), count);
            assert!(found.iter().all(|members| !members.is_empty()), "{found:?}");
            assert_eq!(found.iter().map(Vec::len).sum::<usize>(), values.len());
        }
    }
}
