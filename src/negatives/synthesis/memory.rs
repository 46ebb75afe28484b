//! The kernel associative memory of a cluster: the weights that reconstruct its prototypes from
//! their kernels, and what it recalls at an anchor.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{HardNegativeSynthesisConfig, Ids, Points};
use crate::pairwise::exact_product;
use crate::tensor::{constant_like, indices_like, select_rows, values_like};

/// The memory of `n` prototypes.
///
/// The weights of the prototypes without a set `G` of them are `w_n − W_G·L_Gn` with
/// `L_G = P_GG⁻¹·P_G`. For the sets of prototypes that share an id, the rows `L_G` of all sets
/// make up one matrix: `L = B⁻¹·P` off the sets, with `B` the blocks `P_GG`.
pub(super) struct Memory {
    /// The ids of the prototypes, `n`.
    ids: Vec<i32>,
    /// `[n, D]`
    prototypes: Tensor<2>,
    /// `‖x‖²/2`, `[1, n]`.
    half_norms: Tensor<2>,
    /// `w`, a row for each prototype, `[n, D]`.
    weights: Tensor<2>,
    /// `L`, 0 where row and column share an id, `[n, n]`.
    leverage: Tensor<2>,
    sigma: f64,
}

impl Memory {
    /// Of the candidates in the rows `members`; `points` and `ids` are those of the candidates.
    pub fn new(
        candidates: &Tensor<2>,
        ids: &Ids,
        points: &Points,
        members: Vec<usize>,
        config: &HardNegativeSynthesisConfig,
    ) -> Self {
        let (n, sigma) = (members.len(), config.sigma);
        let ids: Vec<i32> = members.iter().map(|&i| ids.0[i]).collect();
        let inverse = inverse_gram(points, &members, sigma, config.ridge);
        let blocks = inverse_of_blocks(&inverse, &ids);
        let same = same_id(&ids);
        let rows: Vec<&[f64]> = members.iter().map(|&i| points.row(i)).collect();
        let columns: Vec<&[f64]> = inverse.chunks_exact(n).collect();
        let weights = product(&inverse, &rows);
        let mut leverage = product(&blocks, &columns);
        let zeros = leverage
            .iter_mut()
            .zip(&same)
            .filter(|(_, same)| **same == 1.0);
        zeros.for_each(|(value, _)| *value = 0.0);

        let tensor = |values: Vec<f64>| {
            let columns = values.len() / n;
            values_like(values, [n, columns], candidates)
        };
        let prototypes = select_rows(candidates, members.iter().copied());
        let [mut weights, mut leverage] = [weights, leverage].map(tensor);
        if config.gradients && candidates.is_autodiff() {
            let [by_weights, by_leverage] =
                derivatives(&prototypes, [inverse, blocks, same].map(tensor), sigma);
            weights = weights + by_weights;
            leverage = leverage + by_leverage;
        }
        Self {
            ids,
            half_norms: prototypes.clone().square().sum_dim(1).transpose() * 0.5,
            prototypes,
            weights,
            leverage,
            sigma,
        }
    }

    /// Whether a prototype does not have this id.
    pub fn has_other_id(&self, id: i32) -> bool {
        self.ids.iter().any(|&own| own != id)
    }

    /// What the whole memory recalls at each anchor, `[rows, D]`.
    pub fn recall(&self, anchors: &Tensor<2>) -> Tensor<2> {
        exact_product(softmax(self.exponents(anchors), 1), self.weights.clone())
    }

    /// What the memory recalls at each anchor without the prototypes that have the anchor's id, in
    /// blocks of anchors. If all have it, what the whole memory recalls.
    pub fn recall_without_matches(
        &self,
        anchors: &Tensor<2>,
        ids: &Ids,
        memory_budget: usize,
    ) -> Tensor<2> {
        let (count, n) = (anchors.dims()[0], self.ids.len());
        // Shares, the kernels they come from, and a mask.
        let row = 4 * n * anchors.dtype().size();
        let height = (memory_budget / row).clamp(1, count);
        let blocks = (0..count).step_by(height).map(|start| {
            let height = height.min(count - start);
            let anchors = anchors.clone().narrow(0, start, height);
            let matches = self.matches(&ids.0[start..start + height], &anchors);
            let shares = self.shares_without(&anchors, matches);
            exact_product(shares, self.weights.clone())
        });
        let recalled = Tensor::cat(blocks.collect(), 0);

        // What the matches contribute to the weights of the others is taken off again.
        let matched = |&i: &usize| self.ids.contains(&ids.0[i]) && self.has_other_id(ids.0[i]);
        let matched: Vec<usize> = (0..count).filter(matched).collect();
        matched.chunks(height).fold(recalled, |recalled, rows| {
            let own: Vec<i32> = rows.iter().map(|&i| ids.0[i]).collect();
            let rows = indices_like(rows.iter().copied(), anchors);
            let anchors = anchors.clone().select(0, rows.clone());
            let matches = self.matches(&own, &anchors);
            let shares = self.shares_without(&anchors, matches.clone());
            let matches = matches.float().cast(shares.dtype());
            let shares = exact_product(shares, self.leverage.clone().transpose()) * matches;
            let excess = exact_product(shares, self.weights.clone());
            recalled.select_assign(0, rows, excess.neg(), IndexingUpdateOp::Add)
        })
    }

    /// Where a prototype has the id of the row, `[rows, n]`; nowhere for an id that all prototypes
    /// have.
    fn matches(&self, ids: &[i32], like: &Tensor<2>) -> Tensor<2, Bool> {
        let (rows, n) = (ids.len(), self.ids.len());
        let integers = |ids: Vec<i32>, shape: [usize; 2]| {
            let data = TensorData::new(ids, shape);
            Tensor::<2, Int>::from_data(data, &like.device().inner()).expand([rows, n])
        };
        let own = |&id: &i32| if self.has_other_id(id) { id } else { -1 };
        let own = integers(ids.iter().map(own).collect(), [rows, 1]);
        constant_like(own.equal(integers(self.ids.clone(), [1, n])), like)
    }

    /// `−‖q − x_n‖²/(2σ²)` without the term of `‖q‖²`, which all prototypes share, `[rows, n]`.
    fn exponents(&self, anchors: &Tensor<2>) -> Tensor<2> {
        let product = exact_product(anchors.clone(), self.prototypes.clone().transpose());
        (product - self.half_norms.clone()) * (1.0 / (self.sigma * self.sigma))
    }

    /// `k(q, x_n) / Σ k(q, x_n)` over the prototypes that do not match, `[rows, n]`.
    fn shares_without(&self, anchors: &Tensor<2>, matches: Tensor<2, Bool>) -> Tensor<2> {
        let exponents = self.exponents(anchors);
        softmax(exponents.mask_fill(matches, f64::NEG_INFINITY), 1)
    }
}

/// Zeros whose derivatives are those of weights and leverage by the prototypes.
///
/// `P` and `B⁻¹` are constants. A step of Newton's iteration, `2P − P·K·P`, has the value of `P`
/// and, by `K`, the derivative of the inverse; so has `2B⁻¹ − B⁻¹·B·B⁻¹`.
fn derivatives(
    prototypes: &Tensor<2>,
    [inverse, blocks, same]: [Tensor<2>; 3],
    sigma: f64,
) -> [Tensor<2>; 2] {
    let norms = prototypes.clone().square().sum_dim(1);
    let product = exact_product(prototypes.clone(), prototypes.clone().transpose());
    let distance = norms.clone() + norms.transpose() - product * 2.0;
    let gram = (distance * (-0.5 / (sigma * sigma))).exp();
    let zero = |x: Tensor<2>| x.clone() - x.detach();
    let newton = |inverse: Tensor<2>, matrix: Tensor<2>| {
        let change = exact_product(exact_product(inverse.clone(), matrix), inverse.clone());
        inverse + zero(change.neg())
    };
    let inverse = newton(inverse, gram);
    let blocks = newton(blocks, inverse.clone() * same.clone());
    let leverage = exact_product(blocks, inverse.clone()) * (same * -1.0 + 1.0);
    [exact_product(inverse, prototypes.clone()), leverage].map(zero)
}

/// The product of a matrix of `n` columns with the matrix of these `n` rows.
fn product(matrix: &[f64], rows: &[&[f64]]) -> Vec<f64> {
    let row = |factors: &[f64]| {
        let mut sum = vec![0.0; rows[0].len()];
        let terms = factors.iter().zip(rows);
        for (factor, row) in terms.filter(|(factor, _)| **factor != 0.0) {
            sum.iter_mut()
                .zip(*row)
                .for_each(|(sum, x)| *sum += factor * x);
        }
        sum
    };
    matrix.chunks_exact(rows.len()).flat_map(row).collect()
}

/// 1 where row and column have the same id, else 0.
fn same_id(ids: &[i32]) -> Vec<f64> {
    let row = |a: &i32| ids.iter().map(|b| f64::from(a == b)).collect::<Vec<_>>();
    ids.iter().flat_map(row).collect()
}

/// The inverse of the matrix that has the elements of `matrix` where row and column have the same
/// id, and 0 elsewhere.
fn inverse_of_blocks(matrix: &[f64], ids: &[i32]) -> Vec<f64> {
    let n = ids.len();
    let mut inverse = vec![0.0; n * n];
    for (i, &id) in ids.iter().enumerate() {
        let set: Vec<usize> = (0..n).filter(|&j| ids[j] == id).collect();
        if set[0] < i {
            continue;
        }
        let block = set
            .iter()
            .flat_map(|&a| set.iter().map(move |&b| matrix[a * n + b]));
        let block = invert(block.collect(), set.len());
        for (row, &a) in block.chunks_exact(set.len()).zip(&set) {
            for (value, &b) in row.iter().zip(&set) {
                inverse[a * n + b] = *value;
            }
        }
    }
    inverse
}

/// The inverse of `K + ridge·I`, row by row, with `K` the Gaussian kernels between `members`.
fn inverse_gram(points: &Points, members: &[usize], sigma: f64, ridge: f64) -> Vec<f64> {
    let n = members.len();
    let mut gram = vec![0.0; n * n];
    for (a, &i) in members.iter().enumerate() {
        for (b, &j) in members[..=a].iter().enumerate() {
            let distance = points.squared_distance(i, points.row(j));
            let kernel = (-distance / (2.0 * sigma * sigma)).exp();
            gram[a * n + b] = kernel;
            gram[b * n + a] = kernel;
        }
        // The mean of the diagonal is 1: the ridge is relative.
        gram[a * n + a] += ridge;
    }
    invert(gram, n)
}

/// The inverse of a symmetric positive definite matrix, by Cholesky: `L·Lᵀ = A`, `A⁻¹ = L⁻ᵀ·L⁻¹`.
fn invert(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    for i in 0..n {
        for j in 0..=i {
            let (row, other) = (&a[i * n..][..j], &a[j * n..][..j]);
            let rest = a[i * n + j] - dot(row, other);
            a[i * n + j] = if i == j {
                rest.sqrt()
            } else {
                rest / a[j * n + j]
            };
        }
    }
    // Row `c` of `inverse` is column `c` of L⁻¹: 0 before its diagonal.
    let mut inverse = vec![0.0; n * n];
    for c in 0..n {
        for i in c..n {
            let sum = dot(&a[i * n + c..i * n + i], &inverse[c * n + c..c * n + i]);
            let unit = f64::from(u8::from(i == c));
            inverse[c * n + i] = (unit - sum) / a[i * n + i];
        }
    }
    for i in 0..n {
        for j in 0..=i {
            a[i * n + j] = dot(
                &inverse[i * n + i..][..n - i],
                &inverse[j * n + i..][..n - i],
            );
            a[j * n + i] = a[i * n + j];
        }
    }
    a
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_the_identity() {
        let a = vec![4.0, 1.0, -0.5, 1.0, 3.0, 0.2, -0.5, 0.2, 2.0];
        let inverse = invert(a.clone(), 3);
        for i in 0..3 {
            for j in 0..3 {
                let product: f64 = (0..3).map(|k| a[i * 3 + k] * inverse[k * 3 + j]).sum();
                let unit = f64::from(u8::from(i == j));
                assert!((product - unit).abs() < 1e-14, "{i}, {j}: {product}");
            }
        }
    }

    #[test]
    fn equal_points_share_their_weight() {
        // K is all ones.
        let all = Points {
            width: 1,
            values: vec![5.0, 5.0],
        };
        let inverse = inverse_gram(&all, &[0, 1], 0.1, 0.5);
        // [[1.5, 1], [1, 1.5]]⁻¹ = [[1.2, −0.8], [−0.8, 1.2]].
        for (found, expected) in inverse.iter().zip([1.2, -0.8, -0.8, 1.2]) {
            assert!((found - expected).abs() < 1e-12, "{inverse:?}");
        }
    }
}
