//! Matrix products of a chosen precision.

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

use crate::pairwise::Precision;

/// The type of the factors of products of f32 matrices, where it is not f32.
pub(super) fn rounded(precision: Precision, like: &CubeTensor) -> Option<DType> {
    let has = |dtype| {
        like.client
            .properties()
            .supports_type(dtype_to_storage_type(dtype))
    };
    (precision == Precision::Bf16 && like.dtype == DType::F32 && has(DType::BF16))
        .then_some(DType::BF16)
}

/// `out = left · right`, accumulated in the type of `out`.
///
/// Burn's own product may round f32 to tf32 unasked, and picks its kernel by timing, so that two
/// runs need not agree to the bit.
pub(super) fn product(left: CubeTensor, right: CubeTensor, out: &CubeTensor, precision: Precision) {
    assert_eq!(left.dtype, right.dtype, "a product of two types");
    let input =
        |x: &CubeTensor| InputBinding::new(x.clone().binding(), dtype_to_storage_type(x.dtype));
    let unit = MultiLevel::SimpleUnit(BlueprintStrategy::Inferred(Default::default())).into();
    let strategies: [Strategy; 2] = match precision {
        Precision::Full => [unit, MultiLevel::Naive.into()],
        // Tensor cores where there are any.
        Precision::Tf32 | Precision::Bf16 => [Strategy::Auto, unit],
    };
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
