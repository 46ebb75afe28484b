//! From a backend's tensors to a pass's slices and back, for both CPU backends.
#![allow(deprecated)] // Burn retires NdArray; this crate keeps it.

use std::borrow::Cow;
use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, TensorData, bf16, f16, read_sync};

use super::embeddings::{Rows, has_tiny_row_of_bf16};
use super::evaluate::Context;
use super::memory::zeros;
use super::{kept_len, run};
use crate::host::{HostBackend, Real};
use crate::pairwise::chunked;
use crate::pairwise::ops::{Inputs, Outputs, PairwiseOps, without_autodiff};
use crate::pairwise::pass::Pass;

macro_rules! implement {
    ($backend:ty, $feature:literal) => {
        #[cfg(feature = $feature)]
        impl PairwiseOps for $backend {
            fn pairwise_pass(inputs: Inputs<Self>, form: Arc<Pass>) -> Outputs<Self> {
                pass(inputs, &form)
            }

            without_autodiff!();
        }
    };
}
implement!(burn::backend::Flex, "flex");
implement!(burn::backend::NdArray, "ndarray");

pub(super) fn pass<B: HostBackend>(inputs: Inputs<B>, pass: &Pass) -> Outputs<B> {
    if pass.has_tokens() {
        return chunked::pass(inputs, pass);
    }
    match inputs.a.dtype() {
        DType::F64 => pass_in::<B, f64>(inputs, pass),
        _ => pass_in::<B, f32>(inputs, pass),
    }
}

/// Embeddings as their tensor holds them.
enum Held<'a, T: Real> {
    Own(Cow<'a, [T]>),
    F16(Cow<'a, [f16]>),
    Bf16(Cow<'a, [bf16]>),
}

impl<'a, T: Real> Held<'a, T> {
    fn of<B: HostBackend>(tensor: &'a FloatTensor<B>) -> Self {
        match tensor.dtype() {
            DType::F16 => Self::F16(B::elements(tensor)),
            DType::BF16 => Self::Bf16(B::elements(tensor)),
            _ => Self::Own(B::elements(tensor)),
        }
    }

    /// Whether half precision has a row that matrix units take for zeros.
    fn has_tiny_row(&self, width: usize) -> bool {
        match self {
            Self::Bf16(rows) => has_tiny_row_of_bf16(rows, width),
            _ => false,
        }
    }

    /// In the type of the similarities: a copy of half precision.
    fn widened(self) -> Self {
        match self {
            Self::Own(_) => self,
            Self::F16(rows) => Self::Own(rows.iter().map(|x| T::of(x.to_f64())).collect()),
            Self::Bf16(rows) => Self::Own(rows.iter().map(|x| T::of(x.to_f64())).collect()),
        }
    }

    fn rows(&self) -> Rows<'_, T> {
        match self {
            Self::Own(rows) => Rows::Own(rows),
            Self::F16(rows) => Rows::F16(rows),
            Self::Bf16(rows) => Rows::Bf16(rows),
        }
    }
}

fn pass_in<B: HostBackend, T: Real>(inputs: Inputs<B>, pass: &Pass) -> Outputs<B> {
    let [n, m] = inputs.sizes();
    let d = inputs.a.shape()[1];
    let device = inputs.a.device();
    // In the place of an input that no expression reads there may be any tensor.
    let elements = |named: bool, tensor| {
        if named {
            B::elements::<T>(tensor)
        } else {
            Cow::Borrowed(&[][..])
        }
    };
    let named = &pass.named;
    let with_teacher = pass.teachers.iter().any(|teacher| teacher.named);
    let mut sides = [&inputs.a, &inputs.b].map(Held::<T>::of::<B>);
    if sides.iter().any(|side| side.has_tiny_row(d)) {
        sides = sides.map(Held::widened);
    }
    let [a, b] = sides;
    let teachers = [&inputs.teacher_a, &inputs.teacher_b].map(|x| elements(with_teacher, x));
    let rows = elements(named.rows, &inputs.rows);
    let columns = elements(named.columns, &inputs.columns);
    let scalars = elements(named.scalars, &inputs.scalars);
    let mask = if named.mask {
        B::booleans(&inputs.mask)
    } else {
        Cow::Borrowed(&[][..])
    };
    let kept_len = kept_len::<T>(pass, [n, m, d]);
    let mut kept = match pass.coefficient {
        Some(_) if kept_len > 0 => into_vec::<B, T>(inputs.kept),
        _ => zeros(kept_len),
    };
    let context = Context {
        n,
        m,
        rows: &rows,
        columns: &columns,
        scalars: &scalars,
        mask: &mask,
    };
    let inputs = super::Inputs {
        a: a.rows(),
        b: b.rows(),
        d,
        teachers: teachers.each_ref().map(|teacher| &**teacher),
        context,
    };
    let outputs = run(pass, &inputs, &mut kept);
    let keeps = pass.coefficient.is_none() && kept_len > 0;
    let kept = keeps.then_some(kept);
    tensors(pass, outputs, kept, [n, m, d], &device)
}

/// Without copies.
fn tensors<B: HostBackend, T: Real>(
    pass: &Pass,
    outputs: super::Outputs<T>,
    kept: Option<Vec<T>>,
    [n, m, d]: [usize; 3],
    device: &B::Device,
) -> Outputs<B> {
    let tensor = |elements: Vec<T>, shape: Vec<usize>| {
        B::float_from_data(TensorData::new(elements, shape), device)
    };
    let len = outputs.results.len();
    let results = tensor(outputs.results, vec![len]);
    let or_results = |found: Option<FloatTensor<B>>| found.unwrap_or_else(|| results.clone());
    let kept_len = kept.as_ref().map_or(0, Vec::len);
    Outputs {
        left: or_results(pass.left.then(|| tensor(outputs.left, vec![n, d]))),
        right: or_results(pass.right.then(|| tensor(outputs.right, vec![m, d]))),
        kept: or_results(kept.map(|kept| tensor(kept, vec![kept_len]))),
        results: results.clone(),
    }
}

fn into_vec<B: HostBackend, T: Real>(tensor: FloatTensor<B>) -> Vec<T> {
    read_sync(B::float_into_data(tensor))
        .expect("a CPU tensor can be read")
        .try_into_vec::<T>()
        .expect("one dtype for all inputs")
}
