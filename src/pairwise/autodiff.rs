//! The two differentiable operations: which passes run when, once for all backends.

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::Shape;

use super::backward::{Finish, append_results, gradients, slice};
use super::divided;
use super::form::{Form, Wanted};
use super::ops::{Inputs, Outputs, PairwiseOps};
use super::pass::Pass;

/// The parents of both operations, in this order: `a`, `b`, `rows`, `columns`, `scalars`.
const PARENTS: usize = 5;

/// What the backward pass of [`PairwiseOps::pairwise_reduce`] needs besides `a` and `b`.
#[derive(Clone, Debug)]
struct ReduceState<B: Backend> {
    a: NodeId,
    b: NodeId,
    /// With the results in the place of `a` and `b`.
    inputs: Inputs<B>,
    results: FloatTensor<B>,
    form: Arc<Form>,
    wanted: Wanted,
}

#[derive(Debug)]
struct Reduce;

#[derive(Clone, Debug)]
struct TotalState<B: Backend> {
    gradients: [Option<FloatTensor<B>>; PARENTS],
    finish: [Finish<B>; 2],
}

#[derive(Debug)]
struct Total;

#[derive(Debug)]
struct Product;

impl<B: PairwiseOps, C: CheckpointStrategy> PairwiseOps for Autodiff<B, C> {
    fn pairwise_pass(_: Inputs<Self>, _: Arc<Pass>) -> Outputs<Self> {
        panic!("pairwise reductions have no second derivative")
    }

    fn exact_product(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [left.node(), right.node()];
        match Product.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = [
                    left.is_tracked().then(|| prep.checkpoint(&right)),
                    right.is_tracked().then(|| prep.checkpoint(&left)),
                ];
                let product = B::exact_product(left.into_primitive(), right.into_primitive());
                prep.finish(state, product)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::exact_product(
                left.into_primitive(),
                right.into_primitive(),
            )),
        }
    }

    fn pairwise_reduce(inputs: Inputs<Self>, form: Arc<Form>) -> FloatTensor<Self> {
        let wanted = wanted(&inputs, &form);
        let nodes = nodes(&inputs);
        match Reduce.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) if wanted.anything() => {
                let (a, b) = (prep.checkpoint(&inputs.a), prep.checkpoint(&inputs.b));
                let inputs = without_autodiff(inputs);
                let pass = form.forward(wanted.coefficients());
                flush(&inputs);
                let outputs = divided::pass(inputs.clone(), pass, form.workers.as_deref());
                // Embeddings are held by their nodes alone, which may recompute them.
                let results = outputs.results;
                let state = ReduceState {
                    a,
                    b,
                    inputs: Inputs {
                        a: results.clone(),
                        b: results.clone(),
                        kept: outputs.kept,
                        ..inputs
                    },
                    results: results.clone(),
                    form,
                    wanted,
                };
                prep.finish(state, results)
            }
            OpsKind::Tracked(_) => {
                // Only inputs that no expression reads are tracked.
                let inputs = without_autodiff(inputs);
                <Self as burn::backend::AutodiffBackend>::from_inner(divided::reduce::<B>(
                    inputs, &form,
                ))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(divided::reduce::<B>(without_autodiff(inputs), &form))
            }
        }
    }

    fn pairwise_total(inputs: Inputs<Self>, form: Arc<Form>) -> FloatTensor<Self> {
        let wanted = wanted(&inputs, &form);
        let nodes = nodes(&inputs);
        match Total.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) if wanted.anything() => {
                let inputs = without_autodiff(inputs);
                let pass = form.with_gradient(wanted);
                let (sizes, finish) = (inputs.sizes(), Finish::sides(&inputs, &form));
                let outputs = divided::pass(inputs, pass, form.workers.as_deref());
                let len = form.result_len(sizes);
                let total = B::float_sum(slice::<B>(outputs.results.clone(), 0, len));
                let gradients = gradients(outputs, len, sizes, &form, wanted);
                prep.finish(TotalState { gradients, finish }, total)
            }
            OpsKind::Tracked(_) => {
                let inputs = without_autodiff(inputs);
                <Self as burn::backend::AutodiffBackend>::from_inner(divided::total::<B>(
                    inputs, &form,
                ))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(divided::total::<B>(without_autodiff(inputs), &form))
            }
        }
    }
}

impl<B: PairwiseOps> Backward<B, PARENTS> for Reduce {
    type State = ReduceState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, PARENTS>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let upstream = grads.consume::<B>(&ops.node);
        let ReduceState {
            a,
            b,
            inputs,
            results,
            form,
            wanted,
        } = ops.state;
        let mut inputs = Inputs {
            a: checkpointer.retrieve_node_output(a),
            b: checkpointer.retrieve_node_output(b),
            ..inputs
        };
        append_results(&mut inputs, results, upstream, &form);
        let pass = form.backward(wanted);
        let (sizes, finish) = (inputs.sizes(), Finish::sides(&inputs, &form));
        flush(&inputs);
        // Moved, not shared: what was kept is written over.
        let outputs = divided::pass(inputs, pass, form.workers.as_deref());
        let found = gradients(outputs, 0, sizes, &form, wanted);
        let parents = ops.parents.map(|node| Some(node?.id));
        register(grads, parents, found, finish, None);
    }
}

impl<B: PairwiseOps> Backward<B, PARENTS> for Total {
    type State = TotalState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, PARENTS>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let upstream = grads.consume::<B>(&ops.node);
        let TotalState { gradients, finish } = ops.state;
        let parents = ops.parents.map(|node| Some(node?.id));
        register(grads, parents, gradients, finish, Some(upstream));
    }
}

/// Hands what is queued before a pass to the device: Burn fuses of a queue all or nothing, and most
/// often all where it ends here (counted).
fn flush<B: PairwiseOps>(inputs: &Inputs<B>) {
    // A device that is lost says so to whoever reads from it.
    let _ = B::flush(&inputs.a.device());
}

impl<B: PairwiseOps> Backward<B, 2> for Product {
    /// For the gradient by each factor the other one.
    type State = [Option<NodeId>; 2];

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let upstream = grads.consume::<B>(&ops.node);
        let [left, right] = ops.parents;
        let mut other = |k: usize| {
            let factor = ops.state[k].map(|id| checkpointer.retrieve_node_output(id));
            factor.map(B::float_transpose)
        };
        if let (Some(node), Some(right)) = (left, other(0)) {
            grads.register::<B>(node.id, B::exact_product(upstream.clone(), right));
        }
        if let (Some(node), Some(left)) = (right, other(1)) {
            grads.register::<B>(node.id, B::exact_product(left, upstream));
        }
    }
}

/// Registers the gradients of a pass, times that of its result, with the parents, the first two of
/// which are embeddings.
fn register<B: PairwiseOps>(
    grads: &mut Gradients,
    parents: [Option<NodeId>; PARENTS],
    gradients: [Option<FloatTensor<B>>; PARENTS],
    finish: [Finish<B>; 2],
    factor: Option<FloatTensor<B>>,
) {
    let mut finish = finish.into_iter();
    for (node, gradient) in parents.into_iter().zip(gradients) {
        let finish = finish.next();
        let (Some(node), Some(gradient)) = (node, gradient) else {
            continue;
        };
        let one = Shape::from(vec![1; gradient.shape().num_dims()]);
        let factor = factor.clone().map(|factor| B::float_reshape(factor, one));
        let gradient = match (finish, factor) {
            (Some(finish), factor) => finish.run(gradient, factor),
            (None, Some(factor)) => B::float_mul(gradient, factor),
            (None, None) => gradient,
        };
        grads.register::<B>(node, gradient);
    }
}

fn nodes<B: Backend, C: CheckpointStrategy>(
    inputs: &Inputs<Autodiff<B, C>>,
) -> [burn::backend::autodiff::ops::NodeGuard; PARENTS] {
    [
        &inputs.a,
        &inputs.b,
        &inputs.rows,
        &inputs.columns,
        &inputs.scalars,
    ]
    .map(|t| t.node())
}

fn wanted<B: Backend, C: CheckpointStrategy>(
    inputs: &Inputs<Autodiff<B, C>>,
    form: &Form,
) -> Wanted {
    Wanted {
        left: inputs.a.is_tracked(),
        right: inputs.b.is_tracked() && !form.symmetric,
        rows: form.rows > 0 && inputs.rows.is_tracked(),
        columns: form.columns > 0 && inputs.columns.is_tracked(),
        scalars: form.scalars > 0 && inputs.scalars.is_tracked(),
    }
}

fn without_autodiff<B: Backend, C: CheckpointStrategy>(
    inputs: Inputs<Autodiff<B, C>>,
) -> Inputs<B> {
    Inputs {
        a: inputs.a.into_primitive(),
        b: inputs.b.into_primitive(),
        teacher_a: inputs.teacher_a.into_primitive(),
        teacher_b: inputs.teacher_b.into_primitive(),
        rows: inputs.rows.into_primitive(),
        columns: inputs.columns.into_primitive(),
        scalars: inputs.scalars.into_primitive(),
        mask: inputs.mask,
        kept: inputs.kept.into_primitive(),
    }
}
