//! Matrix products by kernels that are named.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems, MatmulProblem, MatmulSetupError};
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

/// The product of two matrices, or of each two of as many, nothing rounded.
pub(super) fn in_full(left: CubeTensor, right: CubeTensor) -> CubeTensor {
    let out = empty(&left, shape_of([&left, &right]), left.dtype);
    product(left, right, &out);
    out
}

fn shape_of([left, right]: [&CubeTensor; 2]) -> Shape {
    let mut shape = left.shape();
    let last = shape.num_dims() - 1;
    shape[last] = right.shape()[last];
    shape
}

/// `out = left · right`, exact but for the sums, which are in the type of `out`.
///
/// Burn's own product may round f32 to tf32 unasked, and picks its kernel by timing, so that two
/// runs need not agree to the bit.
pub(super) fn product(left: CubeTensor, right: CubeTensor, out: &CubeTensor) {
    assert_eq!(left.dtype, right.dtype, "a product of two types");
    first_that_runs([&left, &right], out.dtype, |strategy| {
        launch(&strategy.clone().into(), [&left, &right, out])
    });
}

/// Runs a product, of which `launch` launches the kernel that it is given, unless that is refused.
pub(super) fn first_that_runs(
    [left, right]: [&CubeTensor; 2],
    out: DType,
    mut launch: impl FnMut(&MultiLevel) -> Result<(), MatmulSetupError>,
) {
    let mut refused = Vec::new();
    for strategy in strategies([left, right], out) {
        match launch(&strategy) {
            Ok(()) => return,
            Err(error) => refused.push(format!("{strategy}: {error:?}")),
        }
    }
    panic!(
        "no matrix product runs {:?} by {:?} on {:?}: {refused:?}",
        left.shape(),
        right.shape(),
        left.device
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
        &mut MatmulElems::from_globals(&types([left, right, out].map(|x| x.dtype))),
    )
}

fn types([left, right, out]: [DType; 3]) -> MatmulGlobalElems {
    let [lhs, rhs, out] = [left, right, out].map(dtype_to_storage_type);
    MatmulGlobalElems { lhs, rhs, out }
}

/// The product of two matrices, with elements of that type, none left out between its rows.
pub(super) fn problem(
    [left, right]: [&CubeTensor; 2],
    out: DType,
) -> Result<MatmulProblem, MatmulSetupError> {
    let shape = shape_of([left, right]);
    let mut strides = vec![1; shape.num_dims()];
    for axis in (1..strides.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let bits = |x: &CubeTensor| x.clone().binding().required_address_type(x.dtype.size());
    MatmulProblem::from_shapes_and_strides(
        left.shape(),
        right.shape(),
        shape,
        left.meta.strides.clone(),
        right.meta.strides.clone(),
        strides.into(),
        types([left.dtype, right.dtype, out]),
        bits(left).max(bits(right)),
        None,
        None,
    )
}

/// Kernels for a product, by decreasing speed.
///
/// cubek's own choice among those that it infers panics where the first is refused for any other
/// reason than a missing instruction.
pub(super) fn strategies([left, right]: [&CubeTensor; 2], out: DType) -> Vec<MultiLevel> {
    if is_processor(left) {
        return vec![MultiLevel::Naive];
    }
    let problem = problem([left, right], out).ok();
    let own = problem.and_then(|problem| blueprint(left, &problem));
    let mut strategies = Vec::new();
    // Of f32 matrix units would round to tf32.
    if [DType::F16, DType::BF16].contains(&left.dtype) {
        strategies
            .extend(own.map(|own| MultiLevel::SimpleCyclicCmma(BlueprintStrategy::Forced(own))));
        strategies.push(MultiLevel::SimpleCyclicCmma(Default::default()));
    } else {
        strategies.extend(own.map(|own| MultiLevel::SimpleUnit(BlueprintStrategy::Forced(own))));
    }
    strategies.push(MultiLevel::SimpleUnit(Default::default()));
    strategies.push(MultiLevel::Naive);
    strategies
}
