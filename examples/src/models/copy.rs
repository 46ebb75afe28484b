//! Copies of a module that train apart from it.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::Tensor;

/// A copy with the same values whose parameters train on their own.
///
/// The parameters of a clone keep their ids and their place in the graph: gradients of both would
/// be added up, and an optimiser would take the two for one.
pub fn independent_copy<M: Module>(module: &M) -> M {
    module.clone().map(&mut OwnParameters)
}

struct OwnParameters;

impl ModuleMapper for OwnParameters {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, value, mapper) = param.consume();
        let trains = value.is_require_grad();
        let value = value.detach().set_require_grad(trains);
        Param::from_mapped_value(ParamId::new(), value, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::list_param_ids;
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    #[test]
    fn a_copy_has_the_values_and_neither_ids_nor_gradients_of_its_source() {
        let device = Device::flex().autodiff();
        let source = LinearConfig::new(2, 3).init(&device);
        let copy = independent_copy(&source);
        assert_eq!(source.weight.to_data(), copy.weight.to_data());
        let ids = list_param_ids(&source);
        assert!(list_param_ids(&copy).iter().all(|id| !ids.contains(id)));

        let gradients = copy
            .forward(Tensor::<2>::ones([1, 2], &device))
            .sum()
            .backward();
        assert!(copy.weight.val().grad(&gradients).is_some());
        assert!(source.weight.val().grad(&gradients).is_none());
    }

    #[test]
    fn what_is_frozen_stays_frozen_in_a_copy() {
        let device = Device::flex().autodiff();
        let source = LinearConfig::new(2, 3).init(&device).no_grad();
        let copy = independent_copy(&source);
        assert!(!copy.weight.is_require_grad());
    }
}
