//! Matrix products by kernels that are named.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as MultiLevel;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

use super::buffers::empty;

/// The product of two matrices, nothing rounded.
pub(super) fn in_full(left: CubeTensor, right: CubeTensor) -> CubeTensor {
    let out = empty(&left, [left.shape()[0], right.shape()[1]], left.dtype);
    product(left, right, &out);
    out
}

/// `out = left · right`, exact but for the sums, which are in the type of `out`.
///
/// Burn's own product may round f32 to tf32 unasked, and picks its kernel by timing, so that two
/// runs need not agree to the bit.
pub(super) fn product(left: CubeTensor, right: CubeTensor, out: &CubeTensor) {
    assert_eq!(left.dtype, right.dtype, "a product of two types");
    let input =
        |x: &CubeTensor| InputBinding::new(x.clone().binding(), dtype_to_storage_type(x.dtype));
    // By decreasing speed. cubek's own choice among the same kernels panics where the first is
    // refused for any other reason than a missing instruction.
    let mut strategies = vec![
        MultiLevel::SimpleUnit(BlueprintStrategy::Inferred(Default::default())),
        MultiLevel::Naive,
    ];
    // Of f32 they would round to tf32.
    if [DType::F16, DType::BF16].contains(&left.dtype) {
        let matrix_units = BlueprintStrategy::Inferred(Default::default());
        strategies.insert(0, MultiLevel::SimpleCyclicCmma(matrix_units));
    }
    let mut refused = Vec::new();
    for strategy in strategies.into_iter().map(Strategy::from) {
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
