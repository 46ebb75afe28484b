//! Flex: tensors are read and made without a copy.

use std::borrow::Cow;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;

use super::backend::{Number, Readable, pass};
use crate::pairwise::form::Pass;
use crate::pairwise::ops::{Inputs, Outputs, PairwiseOps, without_autodiff};

impl Readable for Flex {
    fn numbers<T: Number>(tensor: &FlexTensor) -> Cow<'_, [T]> {
        match tensor.as_slice::<T>() {
            Some(numbers) => Cow::Borrowed(numbers),
            None => Cow::Owned(tensor.to_contiguous().storage::<T>().to_vec()),
        }
    }

    fn booleans(tensor: &FlexTensor) -> Cow<'_, [u8]> {
        let len = tensor.layout().num_elements();
        match tensor.is_contiguous() && tensor.layout().start_offset() == 0 {
            true => Cow::Borrowed(&tensor.bytes()[..len]),
            false => Cow::Owned(tensor.to_contiguous().bytes()[..len].to_vec()),
        }
    }
}

impl PairwiseOps for Flex {
    fn pairwise_pass(inputs: Inputs<Self>, form: Arc<Pass>) -> Outputs<Self> {
        pass(inputs, &form)
    }

    without_autodiff!();
}
