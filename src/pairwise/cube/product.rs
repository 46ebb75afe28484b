//! Matrix products with a say in their precision.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as MultiLevel;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

/// `out = left · right`, accumulated in the type of `out`.
///
/// Not by way of Burn's own product: that may round its operands to tf32, and picks its kernel by
/// timing, so that two runs need not agree to the bit.
pub(super) fn product(left: CubeTensor, right: CubeTensor, out: &CubeTensor) {
    assert_eq!(left.dtype, right.dtype, "a product of two types");
    let input = |x: &CubeTensor| InputBinding::new(x.clone().binding(), dtype_to_storage_type(x.dtype));
    let strategies: [Strategy; 2] = [
        MultiLevel::SimpleUnit(BlueprintStrategy::Inferred(Default::default())).into(),
        MultiLevel::Naive.into(),
    ];
    let mut refused = Vec::new();
    for strategy in strategies {
        let mut types = MatmulElems::from_globals(&MatmulGlobalElems {
            lhs: dtype_to_storage_type(left.dtype),
            rhs: dtype_to_storage_type(right.dtype),
            out: dtype_to_storage_type(out.dtype),
        });
        let launched = launch_ref(
            &strategy,
            &out.client,
            input(&left),
            input(&right),
            out.clone().binding(),
            &mut types,
        );
        match launched {
            Ok(()) => return,
            Err(error) => refused.push(format!("{strategy}: {error:?}")),
        }
    }
    panic!(
        "no matrix product runs {:?} by {:?} on {:?}: {refused:?}",
        left.shape(),
        right.shape(),
        out.device
    );
}
