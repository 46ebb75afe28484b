//! Matrix products by kernels that are named.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems, MatmulSetupError};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as MultiLevel;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

use super::blueprint::blueprint;
use super::buffers::empty;

/// Whether the units of a cube are threads of a processor, and a barrier between them keeps cores
/// busy: of the time of a product with barriers nearly all goes into them.
fn is_processor(x: &CubeTensor) -> bool {
    x.client.properties().hardware.num_cpu_cores.is_some()
}

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
    let mut refused = Vec::new();
    for strategy in strategies([&left, &right, out]) {
        match launch(&strategy, [&left, &right, out]) {
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

pub(super) fn launch(
    strategy: &Strategy,
    [left, right, out]: [&CubeTensor; 3],
) -> Result<(), MatmulSetupError> {
    let input =
        |x: &CubeTensor| InputBinding::new(x.clone().binding(), dtype_to_storage_type(x.dtype));
    launch_ref(
        strategy,
        &out.client,
        input(left),
        input(right),
        out.clone().binding(),
        &mut MatmulElems::from_globals(&types([left, right, out])),
    )
}

fn types([left, right, out]: [&CubeTensor; 3]) -> MatmulGlobalElems {
    MatmulGlobalElems {
        lhs: dtype_to_storage_type(left.dtype),
        rhs: dtype_to_storage_type(right.dtype),
        out: dtype_to_storage_type(out.dtype),
    }
}

/// Kernels for a product, by decreasing speed.
///
/// cubek's own choice among those that it infers panics where the first is refused for any other
/// reason than a missing instruction.
pub(super) fn strategies(tensors: [&CubeTensor; 3]) -> Vec<Strategy> {
    if is_processor(tensors[0]) {
        return vec![MultiLevel::Naive.into()];
    }
    let own = blueprint(tensors, types(tensors));
    let mut strategies = Vec::new();
    // Of f32 matrix units would round to tf32.
    if [DType::F16, DType::BF16].contains(&tensors[0].dtype) {
        let own = own.map(BlueprintStrategy::Forced);
        strategies.extend(own.map(MultiLevel::SimpleCyclicCmma));
        strategies.push(MultiLevel::SimpleCyclicCmma(Default::default()));
    } else {
        let own = own.map(BlueprintStrategy::Forced);
        strategies.extend(own.map(MultiLevel::SimpleUnit));
    }
    strategies.push(MultiLevel::SimpleUnit(Default::default()));
    strategies.push(MultiLevel::Naive);
    strategies.into_iter().map(Strategy::from).collect()
}
