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

/// `f` of all results of each group, one after the other. Inputs are given on an autodiff device, and on the
/// plain one too.
pub(super) fn reduce_to_scalar(
    groups: Vec<(Inputs<Dispatch>, Inputs<Dispatch>, Form)>,
    f: impl FnOnce(Vec<Tensor<1>>) -> Tensor<1>,
) -> Tensor<1> {
    let results: Vec<_> = groups
        .iter()
        .map(|(_, inputs, form)| chunked::pass(inputs.clone(), &form.forward(0)).results)
        .collect();

    // The loss of the results alone, on a graph of its own.
    let leaf = |results: &DispatchTensor| {
        Tensor::<1>::from_inner(Tensor::from_dispatch(results.clone())).require_grad()
    };
    let leaves: Vec<_> = results.iter().map(leaf).collect();
    let loss = f(leaves.clone());
    assert!(
        loss.dims() == [1],
        "Pairs: the function of the results gives shape {:?}, a scalar has [1]",
        loss.dims()
    );
    let upstream = loss.backward();
    let surrogate = groups
        .into_iter()
        .zip(results)
        .zip(leaves)
        .filter_map(|(((tracked, inputs, form), results), leaf)| {
            Some(products(
                tracked,
                inputs,
                &form,
                results,
                leaf.grad(&upstream)?,
            ))
        })
        .reduce(|sum, group| sum + group)
        .expect("a loss depends on its reductions");
    surrogate.clone() - surrogate.detach() + loss.inner()
}

/// `Σ x·g` over the inputs `x` of one group and the loss's gradients by them.
fn products(
    tracked: Inputs<Dispatch>,
    mut inputs: Inputs<Dispatch>,
    form: &Form,
    results: DispatchTensor,
    upstream: Tensor<1>,
) -> Tensor<1> {
    let wanted = Wanted {
        left: true,
        right: !form.symmetric,
        rows: form.rows > 0,
        columns: form.columns > 0,
        scalars: form.scalars > 0,
    };
    let sizes = inputs.sizes();
    append_results(&mut inputs, results, upstream.into_dispatch(), form);
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
    [a, b, rows, columns, scalars]
        .into_iter()
        .zip(found)
        .filter_map(|(x, g)| Some((flat(x) * flat(g?)).sum()))
        .reduce(|sum, product| sum + product)
        .expect("the gradient by the left side is always wanted")
}

fn flat(tensor: DispatchTensor) -> Tensor<1> {
    match tensor.shape().num_dims() {
        1 => Tensor::<1>::from_dispatch(tensor),
        _ => Tensor::<2>::from_dispatch(tensor).flatten(0, 1),
    }
}
