//! From a backend's tensors to a pass's slices and back, for both CPU backends.

use std::borrow::Cow;

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Element, TensorData, read_sync};

use super::math::Real;
use super::memory::zeros;
use super::{Context, kept_len, run};
use crate::pairwise::form::Pass;
use crate::pairwise::ops::{Inputs, Outputs};

/// A number of tensors and of the engine.
pub(crate) trait Number: Real + Element + bytemuck::Pod {}
impl Number for f32 {}
impl Number for f64 {}

/// A backend whose tensors lie in this program's memory.
pub(crate) trait Readable: Backend {
    /// Row-major; copied only where the tensor's own order is another.
    fn numbers<T: Number>(tensor: &FloatTensor<Self>) -> Cow<'_, [T]>;

    /// One byte each, not 0 for true; copied likewise.
    fn booleans(tensor: &BoolTensor<Self>) -> Cow<'_, [u8]>;
}

pub(super) fn pass<B: Readable>(inputs: Inputs<B>, pass: &Pass) -> Outputs<B> {
    match inputs.a.dtype() {
        DType::F32 => pass_in::<B, f32>(inputs, pass),
        DType::F64 => pass_in::<B, f64>(inputs, pass),
        other => unreachable!("similarities are computed in f32 or f64, not in {other:?}"),
    }
}

fn pass_in<B: Readable, T: Number>(inputs: Inputs<B>, pass: &Pass) -> Outputs<B> {
    let [n, m] = inputs.sizes();
    let d = inputs.a.shape()[1];
    let device = inputs.a.device();
    // A tensor that no expression names is any tensor.
    let numbers = |named: bool, tensor| match named {
        true => B::numbers::<T>(tensor),
        false => Cow::Borrowed(&[][..]),
    };
    let (a, b) = (numbers(true, &inputs.a), numbers(true, &inputs.b));
    let named = &pass.named;
    let with_teacher = pass.teachers.iter().any(|teacher| teacher.named);
    let teacher_a = numbers(with_teacher, &inputs.teacher_a);
    let teacher_b = numbers(with_teacher, &inputs.teacher_b);
    let rows = numbers(named.rows, &inputs.rows);
    let columns = numbers(named.columns && !pass.symmetric, &inputs.columns);
    let scalars = numbers(named.scalars, &inputs.scalars);
    let mask = match named.mask {
        true => B::booleans(&inputs.mask),
        false => Cow::Borrowed(&[][..]),
    };
    let kept_len = kept_len::<T>(pass, n, m);
    let mut kept = match pass.coefficient {
        Some(_) if kept_len > 0 => read_sync(B::float_into_data(inputs.kept))
            .expect("a CPU tensor can be read")
            .try_into_vec::<T>()
            .expect("one dtype for all inputs"),
        _ => zeros(kept_len),
    };
    let outputs = run(
        pass,
        &super::Inputs {
            a: &a,
            b: &b,
            d,
            teachers: [&teacher_a, &teacher_b],
            context: Context {
                n,
                m,
                rows: &rows,
                columns: if pass.symmetric { &rows } else { &columns },
                scalars: &scalars,
                mask: &mask,
            },
        },
        &mut kept,
    );
    let tensor = |numbers: Vec<T>, shape: Vec<usize>| {
        B::float_from_data(TensorData::new(numbers, shape), &device)
    };
    let len = outputs.results.len();
    let results = tensor(outputs.results, vec![len]);
    Outputs {
        left: match pass.left {
            true => tensor(outputs.left, vec![n, d]),
            false => results.clone(),
        },
        right: match pass.right {
            true => tensor(outputs.right, vec![m, d]),
            false => results.clone(),
        },
        kept: match pass.coefficient {
            None if kept_len > 0 => tensor(kept, vec![kept_len]),
            _ => results.clone(),
        },
        results,
    }
}
