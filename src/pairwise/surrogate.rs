//! Gradients on devices whose backend this crate is not built with.
//!
//! The engine's differentiable operations exist for the backends that are compiled in. Elsewhere a scalar
//! loss is computed by plain blocks without autodiff, its gradient `g` by every input `x` likewise,
//! and the loss is returned as `value + (Σ x·g − detached Σ x·g)`: a number with the right value
//! and the right gradient, in `O(N·D)` memory.

use burn::tensor::Tensor;

use super::autodiff::{append_results, gradients};
use super::chunked;
use super::form::{Form, Wanted};
use super::pairs::{Pairs, split};

pub(super) fn reduce_to_scalar(
    pairs: Pairs,
    form: Form,
    f: impl Fn(Vec<Tensor<1>>) -> Tensor<1>,
) -> Tensor<1> {
    let [n, m] = pairs.sizes();
    let wanted = Wanted {
        left: true,
        right: !pairs.is_symmetric(),
        rows: !pairs.rows.is_empty(),
        columns: !pairs.columns.is_empty(),
        scalars: !pairs.scalars.is_empty(),
    };
    let tracked = pairs.clone().inputs();
    let tracked = [
        &tracked.a,
        &tracked.b,
        &tracked.rows,
        &tracked.columns,
        &tracked.scalars,
    ]
    .map(|t| t.clone());
    let mut inputs = pairs.without_autodiff().inputs();
    let results = chunked::pass(inputs.clone(), &form.forward(0)).results;

    // The loss of the results alone, on a graph of its own.
    let leaf = Tensor::<1>::from_inner(Tensor::from_dispatch(results.clone())).require_grad();
    let loss = f(split(leaf.clone(), &form, n, m));
    assert!(
        loss.dims() == [1],
        "Pairs: the function of the results gives shape {:?}, a scalar has [1]",
        loss.dims()
    );
    let upstream = leaf
        .grad(&loss.backward())
        .expect("a loss depends on its reductions")
        .into_dispatch();
    append_results(&mut inputs, results, upstream, &form);
    let outputs = chunked::pass(inputs, &form.backward(wanted, 0));
    let found = gradients(outputs, 0, [n, m], &form, wanted);

    let mut surrogate: Option<Tensor<1>> = None;
    for (x, g) in tracked.into_iter().zip(found) {
        let Some(g) = g else { continue };
        let x = flat(x);
        let product = (x * flat(g)).sum();
        surrogate = Some(match surrogate {
            Some(sum) => sum + product,
            None => product,
        });
    }
    let surrogate = surrogate.expect("the gradient by the left side is always wanted");
    surrogate.clone() - surrogate.detach() + loss.inner()
}

fn flat(tensor: burn::backend::DispatchTensor) -> Tensor<1> {
    use burn::backend::TensorMetadata;
    match tensor.shape().num_dims() {
        1 => Tensor::<1>::from_dispatch(tensor),
        _ => Tensor::<2>::from_dispatch(tensor).flatten(0, 1),
    }
}
