//! A pass that [workers](crate::workers) share: each sweeps over its own rows and all columns.
//!
//! Results and gradients of rows are complete and gathered; those of columns are partial and
//! joined. So the outputs are those of the whole pass, on every worker.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, TensorData, read_sync};

use super::form::Form;
use super::ops::{Inputs, Outputs, PairwiseOps};
use super::pass::Pass;
use super::reduction::{Axis, Kind};
use crate::workers::{
    Moved, Workers, all_reduce, collective, gather_values, part, sum_on_devices, sum_values,
};

/// A pass of the backend, divided if there are workers.
pub(super) fn pass<B: PairwiseOps>(
    inputs: Inputs<B>,
    pass: Pass,
    workers: Option<&dyn Workers>,
) -> Outputs<B> {
    let run = |inputs, pass| B::pairwise_pass(inputs, Arc::new(pass));
    pass_by(run, inputs, pass, workers)
}

/// The results of a form, without gradients.
pub(super) fn reduce<B: PairwiseOps>(inputs: Inputs<B>, form: &Arc<Form>) -> FloatTensor<B> {
    match &form.workers {
        Some(workers) => pass(inputs, form.forward(false), Some(&**workers)).results,
        None => B::pairwise_reduce(inputs, form.clone()),
    }
}

/// The sum of all results of a form of sums, without gradients.
pub(super) fn total<B: PairwiseOps>(inputs: Inputs<B>, form: &Arc<Form>) -> FloatTensor<B> {
    match form.workers {
        Some(_) => B::float_sum(reduce(inputs, form)),
        None => B::pairwise_total(inputs, form.clone()),
    }
}

/// A pass that `run` carries out, on this worker's rows if there are workers.
pub(super) fn pass_by<B: Backend>(
    run: impl FnOnce(Inputs<B>, Pass) -> Outputs<B>,
    inputs: Inputs<B>,
    pass: Pass,
    workers: Option<&dyn Workers>,
) -> Outputs<B> {
    match (workers, inputs.dtype()) {
        (None, _) => run(inputs, pass),
        (Some(workers), DType::F64) => divided::<B, f64>(run, inputs, pass, workers),
        (Some(workers), _) => divided::<B, f32>(run, inputs, pass, workers),
    }
}

fn divided<B: Backend, T: Moved>(
    run: impl FnOnce(Inputs<B>, Pass) -> Outputs<B>,
    inputs: Inputs<B>,
    pass: Pass,
    workers: &dyn Workers,
) -> Outputs<B> {
    assert!(
        !pass.symmetric,
        "workers divide rows, which a symmetric pass lacks"
    );
    let sizes @ [n, _] = inputs.sizes();
    let mine = part(n, workers.rank(), workers.count());
    let (device, dtype) = (inputs.a.device(), inputs.dtype());
    let (a_shape, b_shape) = (inputs.a.shape(), inputs.b.shape());
    let tensor = |values: Vec<T>, shape| {
        let data = TensorData::new(values, shape).convert_dtype(dtype);
        B::float_from_data(data, &device)
    };

    // A worker may have no rows.
    let outputs = (!mine.is_empty()).then(|| {
        let own = Pass {
            first_row: mine.start,
            ..pass.clone()
        };
        run(own_rows(inputs, &pass, mine.clone()), own)
    });
    let found = outputs.as_ref().map_or(Vec::new(), |outputs| {
        read::<B, f64>(outputs.results.clone())
    });
    let results = results(&pass, &found, sizes, &mine, workers);
    let shape = [results.len()];
    let results = TensorData::new(results, shape).convert_dtype(dtype);
    let results = B::float_from_data(results, &device);

    let devices = collective(workers);
    let zeros = |shape| B::float_zeros(shape, &device, dtype.into());
    let left = pass.left.then(|| {
        let left = outputs.as_ref().map(|outputs| outputs.left.clone());
        if let Some(devices) = &devices {
            let (rows, all) = ([mine, 0..a_shape[1]].map(Into::into), zeros(a_shape));
            let padded = match left {
                Some(left) => B::float_slice_assign(all, &rows, left),
                None => all,
            };
            return sum_on_devices::<B>(padded, devices);
        }
        let rows = left.map_or(Vec::new(), read::<B, T>);
        tensor(gather_values(workers, &rows).concat(), a_shape)
    });
    let right = pass.right.then(|| {
        let right = outputs.as_ref().map(|outputs| outputs.right.clone());
        let partial = right.unwrap_or_else(|| zeros(b_shape.clone()));
        match &devices {
            Some(devices) => sum_on_devices::<B>(partial, devices),
            None => tensor(sum_values(workers, &read::<B, T>(partial)), b_shape),
        }
    });
    Outputs {
        left: left.unwrap_or_else(|| results.clone()),
        right: right.unwrap_or_else(|| results.clone()),
        // For the pass that follows on this worker.
        kept: outputs.map_or_else(|| results.clone(), |outputs| outputs.kept),
        results,
    }
}

fn read<B: Backend, T: Moved>(tensor: FloatTensor<B>) -> Vec<T> {
    let data = read_sync(B::float_into_data(tensor));
    T::values(data.unwrap_or_else(|error| panic!("a result cannot be read: {error}")))
}

/// The inputs of a pass over some rows.
fn own_rows<B: Backend>(inputs: Inputs<B>, pass: &Pass, rows: Range<usize>) -> Inputs<B> {
    let slice =
        |matrix: FloatTensor<B>, at: [Range<usize>; 2]| B::float_slice(matrix, &at.map(Into::into));
    let some_rows = |matrix: FloatTensor<B>| {
        let width = matrix.shape()[1];
        slice(matrix, [rows.clone(), 0..width])
    };
    // In the place of what is not read there is some tensor.
    let named = pass.named;
    let with_teacher = pass.teachers.iter().any(|teacher| teacher.named);
    Inputs {
        teacher_a: if with_teacher {
            some_rows(inputs.teacher_a)
        } else {
            inputs.teacher_a
        },
        rows: if named.rows {
            let vectors = inputs.rows.shape()[0];
            slice(inputs.rows, [0..vectors, rows.clone()])
        } else {
            inputs.rows
        },
        mask: if named.mask {
            let columns = 0..inputs.b.shape()[0];
            B::bool_slice(inputs.mask, &[rows.clone().into(), columns.into()])
        } else {
            inputs.mask
        },
        a: some_rows(inputs.a),
        ..inputs
    }
}

/// All results of a pass from those over this worker's rows, `found`: none of a worker without
/// rows.
fn results(
    pass: &Pass,
    found: &[f64],
    [n, m]: [usize; 2],
    mine: &Range<usize>,
    workers: &dyn Workers,
) -> Vec<f64> {
    let mut at = 0;
    let mut take = |len: usize| {
        at += len;
        found.get(at - len..at)
    };
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    for (_, reduction) in pass.resulting() {
        for k in 0..reduction.kind.results() {
            match reduction.axis {
                Axis::Rows => rows.extend_from_slice(take(mine.len()).unwrap_or_default()),
                Axis::Columns => columns.push(match take(m) {
                    // Of a maximum the index is that of a row.
                    Some(found) if k == 1 && reduction.kind == Kind::Max => found
                        .iter()
                        .map(|index| index + mine.start as f64)
                        .collect(),
                    Some(found) => found.to_vec(),
                    None if k == 0 => vec![reduction.kind.neutral(); m],
                    None => vec![0.0; m],
                }),
            }
        }
    }
    let vectors: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let kinds = || {
        let along_columns =
            |(_, r): &(usize, &super::reduction::Reduction)| r.axis == Axis::Columns;
        pass.resulting().filter(along_columns).map(|(_, r)| r.kind)
    };
    let columns = all_reduce(workers, &vectors, |joined, next| {
        let mut at = 0;
        for kind in kinds() {
            let vectors = at..at + kind.results();
            at = vectors.end;
            join(kind, &mut joined[vectors.clone()], &next[vectors]);
        }
    });
    let rows = gather_values(workers, &rows);

    let mut columns = columns.into_iter();
    let mut whole = Vec::with_capacity(pass.result_len([n, m]));
    let mut at = 0;
    for (_, reduction) in pass.resulting() {
        for _ in 0..reduction.kind.results() {
            match reduction.axis {
                Axis::Rows => {
                    for (rank, rows) in rows.iter().enumerate() {
                        let len = part(n, rank, workers.count()).len();
                        whole.extend_from_slice(&rows[at * len..][..len]);
                    }
                    at += 1;
                }
                Axis::Columns => whole.extend(columns.next().expect("one for each result")),
            }
        }
    }
    whole
}

/// Takes in the results of the rows that follow.
fn join(kind: Kind, joined: &mut [Vec<f64>], next: &[Vec<f64>]) {
    for i in 0..next[0].len() {
        match kind {
            Kind::Sum => joined[0][i] += next[0][i],
            Kind::LogSumExp => joined[0][i] = log_add_exp(joined[0][i], next[0][i]),
            Kind::SoftmaxMean => {
                let logs = [joined[0][i], next[0][i]];
                let all = log_add_exp(logs[0], logs[1]);
                joined[0][i] = all;
                // Of nothing the mean is 0, and stays.
                if all != f64::NEG_INFINITY {
                    let [old, new] = logs.map(|log| (log - all).exp());
                    joined[1][i] = old * joined[1][i] + new * next[1][i];
                }
            }
            Kind::Max => {
                // Of equals the first, NaN above all.
                let (x, max) = (next[0][i], joined[0][i]);
                if x > max || (x.is_nan() && !max.is_nan()) {
                    (joined[0][i], joined[1][i]) = (x, next[1][i]);
                }
            }
        }
    }
}

/// `log (e^x + e^y)`; −∞ of nothing, NaN of NaN.
fn log_add_exp(x: f64, y: f64) -> f64 {
    let (low, high) = if x > y { (y, x) } else { (x, y) };
    if high == f64::NEG_INFINITY {
        return high;
    }
    high + (low - high).exp().ln_1p()
}
