//! Passes in plain backend operations over blocks: right on every backend.
//!
//! Backends without kernels of their own run [`pass`], and all backends do where rows consist of
//! several tokens (see [`tokens`]). With one block that covers the whole matrix it is the
//! reference, [`dense`], which Burn's autodiff records.

mod block;
mod states;
mod tokens;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use self::block::Values;
use self::states::States;
pub(super) use self::tokens::pool;
use super::blocks::{self, Block, Part, Side, Sweep};
use super::form::Form;
use super::ops::{Inputs, Outputs, PairwiseOps};
use super::pass::{Pass, Steps};
use super::reduction::Axis;

/// A product of two matrices.
pub(super) type Product<B> = fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>;

/// Runs a pass, with the backend's own products. Keeps no similarities.
pub(super) fn pass<B: Backend>(inputs: Inputs<B>, pass: &Pass) -> Outputs<B> {
    pass_by(inputs, pass, B::float_matmul)
}

/// Runs a pass with these products.
pub(super) fn pass_by<B: Backend>(
    inputs: Inputs<B>,
    pass: &Pass,
    product: Product<B>,
) -> Outputs<B> {
    let inputs = inputs.widened();
    // The temporaries of a block share the memory.
    let elements = pass.limits.block / inputs.a.dtype().size() / 8;
    let size = block_size(pass, inputs.sizes(), elements);
    run(inputs, pass, size, product)
}

/// Rows and columns of a block of at most `elements` products, or of the smallest block there is:
/// 64 rows and columns; one pair where rows consist of several tokens.
fn block_size(pass: &Pass, [n, m]: [usize; 2], elements: usize) -> [usize; 2] {
    let side = (elements as f64).sqrt() as usize;
    if !pass.has_tokens() {
        return [(side / 64).max(1) * 64; 2];
    }
    let [p, t] = pass.tokens;
    // As many tokens of rows as of columns, unless a side has fewer.
    let rows = (side / p).clamp(1, n);
    let columns = (elements / (rows * p * t)).clamp(1, m);
    let rows = (elements / (columns * p * t)).clamp(1, n);
    [rows, columns]
}

/// All results, one after the other, with the whole matrix at once and Burn's autodiff: the
/// reference. O(N·M) memory.
pub(super) fn dense<B: PairwiseOps>(inputs: Inputs<B>, form: &Form) -> FloatTensor<B> {
    let sizes = inputs.sizes();
    run(inputs, &form.forward(false), sizes, B::exact_product).results
}

/// What the only reduction of `form`, a sum, would add up in a block.
pub(super) fn values<B: PairwiseOps>(
    inputs: &Inputs<B>,
    form: &Form,
    block: &Block,
) -> FloatTensor<B> {
    let pass = form.forward(false);
    let steps = pass.anywhere();
    let inputs = &inputs.clone().widened();
    let values = Values::new(inputs, &pass, &steps.tape, block, B::exact_product);
    match steps.reductions[0] {
        Some([step, _]) => values.full(step),
        None => values.zeros(),
    }
}

fn run<B: Backend>(
    inputs: Inputs<B>,
    pass: &Pass,
    size: [usize; 2],
    product: Product<B>,
) -> Outputs<B> {
    let sizes @ [n, m] = inputs.sizes();
    let states = |axis: Axis| -> Vec<_> {
        let parts = Part::all(axis.len(sizes), axis.len(size));
        parts.map(|part| States::new(axis, part.len)).collect()
    };
    let mut chunks = Chunks {
        pass,
        rows: states(Axis::Rows),
        columns: if pass.symmetric {
            Vec::new()
        } else {
            states(Axis::Columns)
        },
        left: vec![None; n.div_ceil(size[0])],
        right: vec![None; m.div_ceil(size[1])],
        inputs: &inputs,
        product,
    };
    blocks::run(pass, sizes, size, &mut chunks);
    let results = chunks.results();
    let gradient = |wanted: bool, parts: Vec<Option<FloatTensor<B>>>| {
        if wanted {
            cat::<B>(parts.into_iter().flatten().collect())
        } else {
            results.clone()
        }
    };
    Outputs {
        left: gradient(pass.left, chunks.left),
        right: gradient(pass.right, chunks.right),
        kept: results.clone(),
        results,
    }
}

/// A pass under way: running reductions and sums of gradients, by parts of the rows and columns.
struct Chunks<'a, B: Backend> {
    inputs: &'a Inputs<B>,
    pass: &'a Pass,
    product: Product<B>,
    rows: Vec<States<B>>,
    /// None in a symmetric pass, whose columns are rows.
    columns: Vec<States<B>>,
    left: Vec<Option<FloatTensor<B>>>,
    right: Vec<Option<FloatTensor<B>>>,
}

impl<B: Backend> Sweep for Chunks<'_, B> {
    type Coefficients = FloatTensor<B>;

    fn reduce(&mut self, block: &Block, steps: &Steps) -> Option<FloatTensor<B>> {
        let mut values = Values::new(self.inputs, self.pass, &steps.tape, block, self.product);
        for (k, reduction) in self.pass.reductions.iter().enumerate() {
            let Some(read) = steps.reductions[k] else {
                continue;
            };
            let state = || states::of_block(reduction, &values, read);
            match reduction.axis {
                Axis::Rows => self.rows[block.rows.index].merge(k, reduction.kind, state()),
                Axis::Columns if block.is_own_transpose => {}
                Axis::Columns if block.is_mirrored => {
                    // The columns of this block are rows below the diagonal.
                    let state = state().into_iter().map(B::float_transpose).collect();
                    self.rows[block.columns.index].merge(k - 1, reduction.kind, state);
                }
                Axis::Columns => {
                    self.columns[block.columns.index].merge(k, reduction.kind, state());
                }
            }
        }
        let step = steps.coefficient?;
        Some(values.coefficients(self.inputs, self.pass, step))
    }

    fn transposed(coefficients: FloatTensor<B>) -> FloatTensor<B> {
        B::float_transpose(coefficients)
    }

    fn add(
        &mut self,
        (to, part): (Side, Part),
        coefficients: FloatTensor<B>,
        (from, others): (Side, Part),
    ) {
        let [p, t] = self.pass.tokens;
        let (embeddings, count) = match from {
            Side::Left => (&self.inputs.a, p),
            Side::Right => (&self.inputs.b, t),
        };
        let sums = match to {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        };
        let others = tokens::rows::<B>(embeddings, others, count);
        let product = (self.product)(coefficients, others);
        let width = product.shape().num_elements() / part.len;
        let product = B::float_reshape(product, Shape::new([part.len, width]));
        let sum = &mut sums[part.index];
        *sum = Some(match sum.take() {
            Some(sum) => B::float_add(sum, product),
            None => product,
        });
    }
}

impl<B: Backend> Chunks<'_, B> {
    /// All results, one after the other.
    fn results(&self) -> FloatTensor<B> {
        let mut results = Vec::new();
        for (k, reduction) in self.pass.resulting() {
            let parts = match reduction.axis {
                Axis::Rows => &self.rows,
                Axis::Columns => &self.columns,
            };
            for result in 0..reduction.kind.results() {
                let like = &self.inputs.a;
                results.extend(
                    parts
                        .iter()
                        .map(|part| part.result(k, reduction.kind, result, like)),
                );
            }
        }
        cat::<B>(results)
    }
}

fn cat<B: Backend>(mut tensors: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    match tensors.len() {
        1 => tensors.remove(0),
        _ => B::float_cat(tensors, 0),
    }
}

/// Some rows of a matrix.
fn slice_rows<B: Backend>(tensor: &FloatTensor<B>, rows: Part) -> FloatTensor<B> {
    let width = tensor.shape()[1];
    if rows.len == tensor.shape()[0] {
        return tensor.clone();
    }
    let rows = rows.start..rows.end();
    B::float_slice(tensor.clone(), &[rows.into(), (0..width).into()])
}
