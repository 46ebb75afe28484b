//! Where forward and backward passes meet, once for all backends.

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::Shape;

use super::form::{Axis, Form, Pass, Wanted};
use super::ops::{Inputs, Outputs, PairwiseOps};

/// The parents of both operations, in this order: `a`, `b`, `rows`, `columns`, `scalars`.
const PARENTS: usize = 5;

/// What the backward pass of [`PairwiseOps::pairwise_reduce`] needs besides `a` and `b`.
#[derive(Clone, Debug)]
struct ReduceState<B: Backend> {
    a: NodeId,
    b: NodeId,
    /// With any tensors in the place of `a` and `b`.
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
}

#[derive(Debug)]
struct Total;

impl<B: PairwiseOps, C: CheckpointStrategy> PairwiseOps for Autodiff<B, C> {
    fn pairwise_pass(_: Inputs<Self>, _: Arc<Pass>) -> Outputs<Self> {
        panic!("pairwise reductions have first derivatives only: the second was asked for")
    }

    fn pairwise_reduce(inputs: Inputs<Self>, form: Arc<Form>) -> FloatTensor<Self> {
        let wanted = wanted(&inputs, &form);
        let nodes = nodes(&inputs);
        match Reduce.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) if wanted.anything() => {
                let (a, b) = (prep.checkpoint(&inputs.a), prep.checkpoint(&inputs.b));
                let inputs = without_autodiff(inputs);
                let pass = form.forward(form.kept(wanted));
                let outputs = B::pairwise_pass(inputs.clone(), Arc::new(pass));
                // Nothing here but `a` and `b` by their nodes holds on to embeddings.
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
                // Only inputs that no expression names are tracked.
                let inputs = without_autodiff(inputs);
                <Self as burn::backend::AutodiffBackend>::from_inner(B::pairwise_reduce(
                    inputs, form,
                ))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::pairwise_reduce(without_autodiff(inputs), form))
            }
        }
    }

    fn pairwise_total(inputs: Inputs<Self>, form: Arc<Form>) -> FloatTensor<Self> {
        let wanted = wanted(&inputs, &form);
        let nodes = nodes(&inputs);
        match Total.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) if wanted.anything() => {
                let inputs = without_autodiff(inputs);
                let sizes = inputs.sizes();
                let pass = form.with_gradient(wanted);
                let outputs = B::pairwise_pass(inputs, Arc::new(pass));
                let len = form.result_len(sizes);
                let total = B::float_sum(slice::<B>(outputs.results.clone(), 0, len));
                let gradients = gradients(outputs, len, sizes, &form, wanted);
                prep.finish(TotalState { gradients }, total)
            }
            OpsKind::Tracked(_) => {
                let inputs = without_autodiff(inputs);
                <Self as burn::backend::AutodiffBackend>::from_inner(B::pairwise_total(
                    inputs, form,
                ))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::pairwise_total(without_autodiff(inputs), form))
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
        let sizes = inputs.sizes();
        append_results(&mut inputs, results, upstream, &form);
        let pass = form.backward(wanted, form.kept(wanted));
        let outputs = B::pairwise_pass(inputs, Arc::new(pass));
        let found = gradients(outputs, 0, sizes, &form, wanted);
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
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
        for (node, gradient) in ops.parents.into_iter().zip(ops.state.gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                let one = Shape::from(vec![1; gradient.shape().num_dims()]);
                let factor = B::float_reshape(upstream.clone(), one);
                grads.register::<B>(node.id, B::float_mul(gradient, factor));
            }
        }
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

pub(super) fn slice<B: Backend>(
    tensor: FloatTensor<B>,
    start: usize,
    len: usize,
) -> FloatTensor<B> {
    B::float_slice(tensor, &[(start..start + len).into()])
}

/// Adds each result and its upstream gradient to the vectors of rows or of columns, in the order that
/// [`Form::backward`] numbers them.
pub(super) fn append_results<B: Backend>(
    inputs: &mut Inputs<B>,
    results: FloatTensor<B>,
    upstream: FloatTensor<B>,
    form: &Form,
) {
    let sizes = inputs.sizes();
    let mut rows = Vec::new();
    let mut columns = Vec::new();
    if form.rows > 0 {
        rows.push(inputs.rows.clone());
    }
    if form.columns > 0 {
        columns.push(inputs.columns.clone());
    }
    let mut at = 0;
    for (axis, is_log_sum_exp) in form.results() {
        let len = axis.len(sizes);
        let vectors = match axis {
            Axis::Rows => &mut rows,
            Axis::Columns => &mut columns,
        };
        let mut result = slice::<B>(results.clone(), at, len);
        if is_log_sum_exp {
            // Over nothing: e^{−∞ − ∞} is 0, where e^{−∞ − −∞} would be NaN.
            let bool_dtype = get_or_init_device_settings::<B>(&result.device()).bool_dtype;
            let nothing = B::float_equal_elem(result.clone(), f64::NEG_INFINITY.into(), bool_dtype);
            result = B::float_mask_fill(result, nothing, f64::INFINITY.into());
        }
        for vector in [result, slice::<B>(upstream.clone(), at, len)] {
            vectors.push(B::float_reshape(vector, Shape::new([1, len])));
        }
        at += len;
    }
    if !rows.is_empty() {
        inputs.rows = B::float_cat(rows, 0);
    }
    if !columns.is_empty() {
        inputs.columns = B::float_cat(columns, 0);
    }
}

/// The gradients by the parents, from a pass with coefficients whose sums begin at `at`.
pub(super) fn gradients<B: Backend>(
    outputs: Outputs<B>,
    mut at: usize,
    [n, m]: [usize; 2],
    form: &Form,
    wanted: Wanted,
) -> [Option<FloatTensor<B>>; PARENTS] {
    let mut take = |len: usize| {
        at += len;
        slice::<B>(outputs.results.clone(), at - len, len)
    };
    let rows = wanted
        .rows
        .then(|| B::float_reshape(take(form.rows * n), Shape::new([form.rows, n])));
    let columns = wanted
        .columns
        .then(|| B::float_reshape(take(form.columns * m), Shape::new([form.columns, m])));
    let scalars = wanted.scalars.then(|| {
        let sums = B::float_reshape(take(form.scalars * n), Shape::new([form.scalars, n]));
        B::float_reshape(B::float_sum_dim(sums, 1), Shape::new([form.scalars]))
    });
    [
        wanted.left.then_some(outputs.left),
        wanted.right.then_some(outputs.right),
        rows,
        columns,
        scalars,
    ]
}
