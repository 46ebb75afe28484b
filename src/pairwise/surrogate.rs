//! Gradients on devices whose backend this crate is not built with.
//!
//! The engine's differentiable operations exist for the backends that are compiled in. Elsewhere a scalar
//! loss is computed by plain blocks without autodiff, its gradient `g` by every input `x` likewise,
//! and the loss is returned as `value + (Σ x·g − detached Σ x·g)`: a number with the right value
//! and the right gradient, in `O(N·D)` memory.

use burn::backend::{Dispatch, DispatchTensor, TensorMetadata};
use burn::tensor::Tensor;

use super::autodiff::{append_results, gradients};
use super::chunked;
use super::form::{Form, Wanted};
use super::ops::Inputs;

/// `f` of all results, one after the other, for inputs on an autodiff device, given on the plain one too.
pub(super) fn reduce_to_scalar(
    tracked: Inputs<Dispatch>,
    mut inputs: Inputs<Dispatch>,
    form: &Form,
    f: impl FnOnce(Tensor<1>) -> Tensor<1>,
) -> Tensor<1> {
    let wanted = Wanted {
        left: true,
        right: !form.symmetric,
        rows: form.rows > 0,
        columns: form.columns > 0,
        scalars: form.scalars > 0,
    };
    let sizes = inputs.sizes();
    let results = chunked::pass(inputs.clone(), &form.forward(0)).results;

    // The loss of the results alone, on a graph of its own.
    let leaf = Tensor::<1>::from_inner(Tensor::from_dispatch(results.clone())).require_grad();
    let loss = f(leaf.clone());
    assert!(
        loss.dims() == [1],
        "Pairs: the function of the results gives shape {:?}, a scalar has [1]",
        loss.dims()
    );
    let upstream = leaf
        .grad(&loss.backward())
        .expect("a loss depends on its reductions")
        .into_dispatch();
    append_results(&mut inputs, results, upstream, form);
    let outputs = chunked::pass(inputs, &form.backward(wanted, 0));
    let found = gradients(outputs, 0, sizes, form, wanted);

    let Inputs {
        a,
        b,
        rows,
        columns,
        scalars,
        ..
    } = tracked;
    let surrogate = [a, b, rows, columns, scalars]
        .into_iter()
        .zip(found)
        .filter_map(|(x, g)| Some((flat(x) * flat(g?)).sum()))
        .reduce(|sum, product| sum + product)
        .expect("the gradient by the left side is always wanted");
    surrogate.clone() - surrogate.detach() + loss.inner()
}

fn flat(tensor: DispatchTensor) -> Tensor<1> {
    match tensor.shape().num_dims() {
        1 => Tensor::<1>::from_dispatch(tensor),
        _ => Tensor::<2>::from_dispatch(tensor).flatten(0, 1),
    }
}
