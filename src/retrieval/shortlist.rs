//! The candidates nearest to each query, and their order by a slower, better judge.

use burn::tensor::Tensor;

use super::Ranks;
use super::cosines::{BLOCK, Cosines};

/// The k candidates most similar to each query, best first, to be re-ranked by other scores.
///
/// An encoder of pairs, such as the matching head of ALBEF, is too slow to judge all pairs of a
/// test set. So the cosines choose k candidates for each query, and the scores of the encoder alone
/// order those: Li et al. 2021 (ALBEF), section 5, with k = 128 for Flickr30K and 256 for MS-COCO.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::retrieval::{Shortlist, cross_modal};
///
/// let device = Device::default();
/// let images = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
/// let texts = Tensor::<2>::from_data([[0.6, 0.8], [0.5, 0.9], [0.9, 0.1]], &device);
/// let image_of_text = [0, 1, 1];
/// let by_cosine = cross_modal(images.clone(), texts.clone(), &image_of_text).image_to_text;
/// assert_eq!(by_cosine.as_slice(), [Some(2), Some(1)]);
///
/// let shortlist = Shortlist::new(images, texts, 2);
/// assert_eq!(shortlist.candidates(0), [2, 0]);
/// // What a model says of image 0 with texts 2 and 0, and of image 1 with texts 1 and 0.
/// let scores = [-1.5, 3.0, 2.0, -0.5];
/// let is_match = |image, text: usize| image_of_text[text] == image;
/// let by_score = shortlist.reranked(&scores, is_match, &by_cosine);
/// assert_eq!(by_score.as_slice(), [Some(1), Some(1)]);
/// ```
#[derive(Debug, Clone)]
pub struct Shortlist {
    k: usize,
    /// k of each query, one query after the other.
    candidates: Vec<usize>,
    similarities: Vec<f64>,
    /// For each query, whether neither it nor any candidate holds a NaN or an infinity.
    defined: Vec<bool>,
}

impl Shortlist {
    /// Compares all queries with all candidates in blocks, and keeps `k` candidates for each query:
    /// all of them, if there are no more.
    ///
    /// Of equally similar candidates, those with the lowest indices are listed, in their order and
    /// with one similarity; which cosines are equal says [the module](super). The similarity of a
    /// query or candidate that holds a NaN or an infinity is NaN: it stands behind all others.
    ///
    /// # Shapes
    ///
    /// - `queries`: `[N, D]`, any norm
    /// - `candidates`: `[M, D]`, any norm, on the same device
    ///
    /// # Panics
    ///
    /// If `k` is 0, an input is empty or has more than 2²⁴ rows, or widths, dtypes or devices
    /// differ.
    #[track_caller]
    pub fn new(queries: Tensor<2>, candidates: Tensor<2>, k: usize) -> Self {
        let name = "Shortlist";
        assert!(
            k > 0,
            "{name}: `k` is 0: it needs at least the nearest candidate"
        );
        let sides = (("queries", queries), ("candidates", candidates));
        Self::from_cosines(&Cosines::new(name, sides.0, sides.1), k, BLOCK)
    }

    fn from_cosines(cosines: &Cosines, k: usize, block: [usize; 2]) -> Self {
        let [_, candidate_count] = cosines.dims();
        let k = k.min(candidate_count);
        let [finite_queries, finite_candidates] = &cosines.finite;
        let all_finite = finite_candidates.iter().all(|&finite| finite);
        let defined = finite_queries.iter().map(|own| *own && all_finite);
        let mut list = Self::empty(k, defined.collect());
        let cosine = cosines.pairs.similarity();
        for (queries, spans) in cosines.blocks(block) {
            let mut nearest = vec![Nearest::default(); queries.len()];
            for candidates in spans {
                let block = cosines
                    .pairs
                    .block(&cosine, queries.clone(), candidates.clone())
                    .into_data();
                let mut values = block.iter::<f64>();
                for (query, nearest) in queries.clone().zip(&mut nearest) {
                    for (candidate, value) in candidates.clone().zip(values.by_ref()) {
                        let finite = finite_queries[query] && finite_candidates[candidate];
                        let value = if finite { value } else { f64::NEG_INFINITY };
                        nearest.offer(candidate, value, k, cosines.tie);
                    }
                }
            }
            for nearest in nearest {
                list.push(nearest, cosines.tie);
            }
        }
        list
    }

    /// A list to which the candidates of each query are to be pushed.
    pub(super) fn empty(k: usize, defined: Vec<bool>) -> Self {
        Self {
            k,
            candidates: Vec::with_capacity(defined.len() * k),
            similarities: Vec::with_capacity(defined.len() * k),
            defined,
        }
    }

    /// Adds the candidates of the next query.
    pub(super) fn push(&mut self, nearest: Nearest, tie: f64) {
        for (candidate, similarity) in nearest.sorted(tie) {
            self.candidates.push(candidate);
            self.similarities.push(similarity);
        }
    }

    /// How many candidates are listed for each query: that of [`new`](Self::new), or the number of
    /// candidates if that is less.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The number of queries.
    pub fn queries(&self) -> usize {
        self.defined.len()
    }

    /// The indices of a query's [`k`](Self::k) candidates, the most similar first.
    ///
    /// # Panics
    ///
    /// If there is no such query.
    #[track_caller]
    pub fn candidates(&self, query: usize) -> &[usize] {
        &self.candidates[self.places(query)]
    }

    /// The cosines of [`candidates`](Self::candidates), in their order.
    ///
    /// # Panics
    ///
    /// If there is no such query.
    #[track_caller]
    pub fn similarities(&self, query: usize) -> &[f64] {
        &self.similarities[self.places(query)]
    }

    /// The rank of each query's best match when the listed candidates are ordered by `scores`,
    /// greatest first, and the others stay behind them in the order of their similarities.
    ///
    /// It is one more than the number of listed candidates that do not match and whose score is not
    /// below the best score of a match: other matches do not count, and ties never help. A query
    /// keeps its rank of `before` if none of its matches is listed. It also does if its best match
    /// is listed and a candidate that does not match and is as similar is not: their indices
    /// decided that tie at the end of the list, which must not help.
    ///
    /// NaN never helps either. A candidate that does not match and whose score is NaN comes before
    /// every match; a match whose score is NaN is not looked at, and if no other match is listed,
    /// the query has no rank. Nor has one where `before` has none, or where the query or any
    /// candidate holds a NaN or an infinity.
    ///
    /// # Shapes
    ///
    /// - `scores`: N·k values, query by query, each in the order of
    ///   [`candidates`](Self::candidates)
    /// - `is_match`: whether a query, the first argument, and a candidate belong together
    /// - `before`: the ranks of the N queries by similarity, with the same embeddings and matches,
    ///   as from [`cross_modal`](super::cross_modal())
    ///
    /// # Panics
    ///
    /// If the number of scores or of ranks is another.
    #[track_caller]
    pub fn reranked(
        &self,
        scores: &[f64],
        is_match: impl Fn(usize, usize) -> bool,
        before: &Ranks,
    ) -> Ranks {
        let (queries, k) = (self.queries(), self.k);
        assert!(
            scores.len() == queries * k,
            "Shortlist: `scores` has {} values: it needs {}, {k} for each of the {queries} queries",
            scores.len(),
            queries * k
        );
        let before = before.as_slice();
        assert!(
            before.len() == queries,
            "Shortlist: `before` has {} ranks: it needs one for each of the {queries} queries",
            before.len()
        );
        let rank = |(query, scores): (usize, &[f64])| {
            let before = before[query].filter(|_| self.defined[query])?;
            let listed = self.candidates(query).iter().zip(scores);
            let (own, others): (Vec<_>, Vec<_>) =
                listed.partition(|(candidate, _)| is_match(query, **candidate));
            let last = 1 + others.len();
            // In the second case not all that are as similar as the best match are listed.
            if own.is_empty() || before > last {
                return Some(before.max(last));
            }
            let best = own
                .iter()
                .map(|(_, score)| **score)
                .filter(|score| !score.is_nan())
                .reduce(f64::max)?;
            let behind = others.iter().filter(|(_, score)| **score < best).count();
            Some(last - behind)
        };
        Ranks::new(scores.chunks(k).enumerate().map(rank).collect())
    }

    /// Where the values of a query are.
    #[track_caller]
    fn places(&self, query: usize) -> std::ops::Range<usize> {
        let queries = self.queries();
        assert!(
            query < queries,
            "Shortlist: there is no query {query}: it must be below {queries}"
        );
        query * self.k..(query + 1) * self.k
    }
}

/// Candidates of one query and their similarities, in descending order of these.
#[derive(Default, Clone)]
pub(super) struct Nearest(Vec<(usize, f64)>);

impl Nearest {
    /// Keeps a candidate, whose index is above all before, if it is one of the `k` nearest so far:
    /// in the place of one of lower index only if it is not equal to it.
    pub(super) fn offer(&mut self, candidate: usize, value: f64, k: usize, tie: f64) {
        let kept = &mut self.0;
        if kept.len() == k {
            let least = kept[k - 1].1 + tie;
            if value <= least {
                return;
            }
            let first = kept.partition_point(|(_, value)| *value > least);
            let newest = (first..k).max_by_key(|&place| kept[place].0);
            kept.remove(newest.expect("the least is equal to itself"));
        }
        let place = kept.partition_point(|(_, other)| *other >= value);
        kept.insert(place, (candidate, value));
    }

    /// Equal candidates with one similarity and in the order of their indices.
    fn sorted(mut self, tie: f64) -> impl Iterator<Item = (usize, f64)> {
        let mut equal = f64::INFINITY;
        for (_, value) in &mut self.0 {
            if *value < equal - tie {
                equal = *value;
            }
            *value = equal;
        }
        self.0
            .sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        let shown = |value: f64| if value.is_finite() { value } else { f64::NAN };
        self.0
            .into_iter()
            .map(move |(candidate, value)| (candidate, shown(value)))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    const TIE: f64 = 1e-6;

    /// Small integers, so that many cosines are equal and others are far apart.
    fn rows(count: usize, seed: usize) -> Vec<[f32; 3]> {
        let value = |place: usize| ((place * place + 3 * place / 2 + seed) % 5) as f32 - 2.0;
        (0..count)
            .map(|row| [0, 1, 2].map(|column| value(7 * row + 11 * column + row / 5)))
            .collect()
    }

    fn tensor(rows: &[[f32; 3]]) -> Tensor<2> {
        let data = TensorData::new(rows.as_flattened().to_vec(), [rows.len(), 3]);
        Tensor::from_data(data, &Device::default())
    }

    fn cosine(a: &[f32; 3], b: &[f32; 3]) -> f64 {
        let dot = |a: &[f32; 3], b: &[f32; 3]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-9)
    }

    #[test]
    fn blocks_of_any_size_give_the_list_of_naive_loops() {
        let (queries, candidates) = (rows(11, 1), rows(41, 2));
        let sides = || {
            let sides = [&queries, &candidates].map(|side| tensor(side));
            let [queries, candidates] = sides;
            Cosines::new("test", ("queries", queries), ("candidates", candidates))
        };
        for k in [1, 2, 7, 40, 41, 1000] {
            for block in [[1, 1], [2, 3], [11, 5], [4, 40], [64, 64]] {
                let found = Shortlist::from_cosines(&sides(), k, block);
                assert_eq!((found.k(), found.queries()), (k.min(41), 11));
                for (place, query) in queries.iter().enumerate() {
                    let all: Vec<f64> = candidates.iter().map(|one| cosine(query, one)).collect();
                    let mut order: Vec<usize> = (0..41).collect();
                    order.sort_by_key(|&one| (-1e6 * all[one]).round() as i64);
                    order.truncate(k);
                    assert_eq!(found.candidates(place), order, "{k} of {place}, {block:?}");
                    for (similarity, one) in found.similarities(place).iter().zip(order) {
                        assert!((similarity - all[one]).abs() < 1e-6);
                    }
                }
            }
        }
    }

    fn nearest(values: &[f64], k: usize) -> Vec<(usize, f64)> {
        let mut nearest = Nearest::default();
        for (candidate, &value) in values.iter().enumerate() {
            nearest.offer(candidate, value, k, TIE);
        }
        nearest.sorted(TIE).collect()
    }

    #[test]
    fn equal_but_for_rounding_is_equal() {
        let near = 0.5 + 1e-8;
        assert_eq!(nearest(&[0.5, near, near], 2), [(0, near), (1, near)]);
        assert_eq!(nearest(&[near, 0.1, 0.5, 0.9], 2), [(3, 0.9), (0, near)]);
        assert_eq!(nearest(&[0.5, near, 0.9, 0.1], 2), [(2, 0.9), (0, 0.5)]);
        assert_eq!(nearest(&[near, 0.5, 0.9, 0.9], 2), [(2, 0.9), (3, 0.9)]);
        // Small steps do not add up to a large one.
        let steps: Vec<f64> = (0..100).map(|step| 0.4 * TIE * f64::from(step)).collect();
        assert!(nearest(&steps, 1)[0].1 >= steps[99] - TIE);
        let all = nearest(&steps, 100);
        assert!(all.is_sorted_by(|(_, a), (_, b)| a >= b));
        assert!(
            all.iter()
                .all(|&(one, value)| (value - steps[one]).abs() <= TIE)
        );
    }

    #[test]
    fn what_has_no_similarity_stands_last() {
        let none = f64::NEG_INFINITY;
        let found = nearest(&[none, -1.0, none, none, 0.0], 3);
        assert_eq!(found[..2], [(4, 0.0), (1, -1.0)]);
        assert!(found[2].0 == 0 && found[2].1.is_nan());
        let found = nearest(&[none; 5], 2);
        assert_eq!([found[0].0, found[1].0], [0, 1]);
    }

    /// One query whose three listed candidates are 4, 2 and 9.
    fn of_one_query(scores: [f64; 3], matches: &[usize], before: Option<usize>) -> Option<usize> {
        let list = Shortlist {
            k: 3,
            candidates: vec![4, 2, 9],
            similarities: vec![0.9, 0.8, 0.7],
            defined: vec![true],
        };
        let is_match = |query, candidate| {
            assert_eq!(query, 0);
            matches.contains(&candidate)
        };
        let ranks = list.reranked(&scores, is_match, &Ranks::new(vec![before]));
        ranks.as_slice()[0]
    }

    #[test]
    fn hand_worked_ranks() {
        assert_eq!(of_one_query([0.0, 5.0, 1.0], &[9], Some(3)), Some(2));
        assert_eq!(of_one_query([0.0, 5.0, 1.0], &[2], Some(2)), Some(1));
        assert_eq!(of_one_query([0.0, 5.0, 1.0], &[4], Some(1)), Some(3));
        // A tie.
        assert_eq!(of_one_query([1.0, 5.0, 1.0], &[9], Some(3)), Some(3));
        assert_eq!(of_one_query([1.0; 3], &[4], Some(1)), Some(3));
        // Other matches do not count, listed or not.
        assert_eq!(of_one_query([1.0, 1.0, 0.0], &[4, 2], Some(1)), Some(1));
        assert_eq!(of_one_query([3.0, 2.0, 1.0], &[2, 9, 7], Some(2)), Some(2));
        assert_eq!(of_one_query([0.0; 3], &[4, 2, 9], Some(1)), Some(1));
        // None is listed.
        assert_eq!(of_one_query([3.0, 2.0, 1.0], &[7], Some(4)), Some(4));
        assert_eq!(of_one_query([3.0, 2.0, 1.0], &[7], Some(50)), Some(50));
        // Some candidate that is not listed is as similar.
        assert_eq!(of_one_query([1.0, 2.0, 3.0], &[9], Some(4)), Some(4));
        assert_eq!(of_one_query([1.0, 2.0, 3.0], &[4, 2, 9], Some(2)), Some(2));
        // Scores at the limits.
        let most = f64::INFINITY;
        assert_eq!(of_one_query([most, most, 1.0], &[2], Some(2)), Some(2));
        assert_eq!(of_one_query([-most, -most, 1.0], &[2], Some(2)), Some(3));
    }

    #[test]
    fn nan_never_helps() {
        let nan = f64::NAN;
        assert_eq!(of_one_query([nan, 2.0, 1.0], &[2], Some(2)), Some(2));
        assert_eq!(of_one_query([nan, nan, 1.0], &[9], Some(3)), Some(3));
        assert_eq!(of_one_query([0.0, nan, 1.0], &[2], Some(2)), None);
        assert_eq!(of_one_query([nan; 3], &[4, 2, 9], Some(1)), None);
        // Another match has a score.
        assert_eq!(of_one_query([2.0, nan, 1.0], &[2, 9], Some(2)), Some(2));
        // None is listed: no score of a match is missing.
        assert_eq!(of_one_query([nan; 3], &[7], Some(8)), Some(8));
        assert_eq!(of_one_query([0.0, 5.0, 1.0], &[2], None), None);
    }
}
