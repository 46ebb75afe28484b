//! Flex.

use std::borrow::Cow;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Element;
use bytemuck::Pod;

use super::HostBackend;

impl HostBackend for Flex {
    fn elements<T: Element + Pod>(tensor: &FlexTensor) -> Cow<'_, [T]> {
        match tensor.as_slice::<T>() {
            Some(elements) => Cow::Borrowed(elements),
            None => Cow::Owned(tensor.to_contiguous().storage::<T>().to_vec()),
        }
    }

    fn booleans(tensor: &FlexTensor) -> Cow<'_, [u8]> {
        let len = tensor.layout().num_elements();
        if tensor.is_contiguous() && tensor.layout().start_offset() == 0 {
            Cow::Borrowed(&tensor.bytes()[..len])
        } else {
            Cow::Owned(tensor.to_contiguous().bytes()[..len].to_vec())
        }
    }
}
