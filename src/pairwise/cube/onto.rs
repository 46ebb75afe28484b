//! Matrix products that leave no matrix: what is computed of their elements is.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape, bf16, f16};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim, Float};
use burn_cubecl::cubecl::std::tensor::launch::ViewArg;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{AvailableVectorSizes, MatmulSetupError};
use cubek::matmul::multi_level::components::global::memory::{
    GlobalLayout, GlobalLayoutConfig, GlobalLayoutLaunch,
};
use cubek::matmul::multi_level::definition::Blueprint;
use cubek::matmul::multi_level::routines::batch::simple::SimpleAlgorithm;
use cubek::matmul::multi_level::routines::batch::simple_unit::SimpleUnitAlgorithm;
use cubek::matmul::multi_level::routines::naive::NaiveRoutine;
use cubek::matmul::multi_level::{BatchMatmulRoutine, Strategy, launch_kernel};
use cubek::matmul::routine::BlueprintStrategy;

use super::buffers::{empty, zeros};
use super::kernels::{self, Epilogue, PlaceLaunch};
use super::product::{first_that_runs, problem};

/// What a product is computed into.
pub(super) struct Onto<'a> {
    pub epilogue: Epilogue,
    /// Where its elements are added, or its coefficients written.
    pub to: &'a CubeTensor,
    /// The similarities of teachers, the mask, the bound vectors: where they are not read any.
    pub reads: [&'a CubeTensor; 3],
    pub with_mask: bool,
    pub sums: &'a mut Sums,
}

/// Where the element of the first row and column lies: see [`PlaceLaunch`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    pub rows: usize,
    pub columns: usize,
    pub i0: usize,
    pub j0: usize,
    pub n: usize,
    pub m: usize,
    pub first_row: usize,
    pub columns_at: usize,
    pub scalars_at: usize,
}

impl At {
    pub fn launch(self) -> PlaceLaunch {
        PlaceLaunch::new(
            self.rows,
            self.columns,
            self.i0,
            self.j0,
            self.n,
            self.m,
            self.first_row,
            self.columns_at,
            self.scalars_at,
        )
    }
}

/// Sums over all pairs, `[component, unit]`: each unit of a launch has some of its own, to which
/// it adds from launch to launch.
pub(super) struct Sums {
    components: usize,
    found: Option<CubeTensor>,
}

impl Sums {
    pub fn new(components: usize) -> Self {
        Self {
            components,
            found: None,
        }
    }

    /// Room for a launch of so many units, none larger than the first; and how many it has.
    fn of(&mut self, units: usize, like: &CubeTensor) -> (CubeTensor, usize) {
        if self.components == 0 {
            return (like.clone(), 0);
        }
        let found = self
            .found
            .get_or_insert_with(|| zeros(like, Shape::new([self.components * units]), DType::F32));
        let room = found.shape().num_elements() / self.components;
        assert!(
            units <= room,
            "a block of {units} units follows one of {room}"
        );
        (found.clone(), room)
    }

    /// Results of that length, of each component as many: sums of some units each.
    pub fn results(self, len: usize, (like, dtype): (&CubeTensor, DType)) -> CubeTensor {
        let Some(found) = self.found else {
            return zeros(like, Shape::new([len]), dtype);
        };
        let results = empty(like, [len], dtype);
        let each = len / self.components;
        let units = found.shape().num_elements() / self.components;
        kernels::gather::launch(
            &like.client,
            CubeCount::Static(len.div_ceil(UNITS) as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            found.into_buffer_arg(),
            results.clone().into_buffer_arg(),
            len,
            each,
            units,
            dtype_to_storage_type(dtype),
        );
        results
    }
}

/// Units of a cube that gathers.
const UNITS: usize = 256;

/// Computes `left · right`, of the size that `at` states, into that.
pub(super) fn product_onto([left, right]: [CubeTensor; 2], at: At, onto: &mut Onto) {
    assert_eq!(left.dtype, right.dtype, "a product of two types");
    let acc = sums_in(onto.to.dtype);
    first_that_runs([&left, &right], acc, |strategy| match onto.to.dtype {
        DType::F32 => launch::<f32>(strategy, [&left, &right], at, onto),
        DType::F64 => launch::<f64>(strategy, [&left, &right], at, onto),
        DType::F16 => launch::<f16>(strategy, [&left, &right], at, onto),
        DType::BF16 => launch::<bf16>(strategy, [&left, &right], at, onto),
        other => panic!("no product goes into {other:?}"),
    });
}

/// The type in which products are summed that go into that type.
fn sums_in(to: DType) -> DType {
    match to {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

fn launch<T: Float>(
    strategy: &Strategy,
    [left, right]: [&CubeTensor; 2],
    at: At,
    onto: &mut Onto,
) -> Result<(), MatmulSetupError> {
    let factors = [left, right];
    let any = usize::MAX;
    match strategy {
        Strategy::SimpleCyclicCmma(plan) => {
            let widest = match &onto.epilogue {
                Epilogue::Coefficients(program) => pairs_at_a_time(program.ops.len()),
                Epilogue::Add => any,
            };
            launch_by::<T, SimpleAlgorithm>(plan, factors, at, onto, widest)
        }
        Strategy::SimpleUnit(plan) => {
            launch_by::<T, SimpleUnitAlgorithm>(plan, factors, at, onto, any)
        }
        Strategy::Naive => {
            // A unit reads a row of the one and a column of the other.
            let left = into_contiguous(left.clone());
            let right = into_contiguous(CubeBackend::float_transpose(right.clone()));
            let right = CubeBackend::float_transpose(right);
            let plan = BlueprintStrategy::Inferred(().into());
            launch_by::<T, NaiveRoutine>(&plan, [&left, &right], at, onto, 1)
        }
        other => unreachable!("{other} is not among the strategies"),
    }
}

/// How many pairs of a unit are evaluated side by side. Beside its accumulators it has registers
/// for two of them, or for one where there are many steps, and a multiprocessor then for two cubes.
fn pairs_at_a_time(steps: usize) -> usize {
    const MANY: usize = 48;
    if steps > MANY { 1 } else { 2 }
}

/// With vectors of so many elements of the product at most.
fn launch_by<T: Float, A: BatchMatmulRoutine<()>>(
    strategy: &BlueprintStrategy<(), A>,
    [left, right]: [&CubeTensor; 2],
    at: At,
    onto: &mut Onto,
    widest: usize,
) -> Result<(), MatmulSetupError> {
    let client = &left.client;
    let acc = sums_in(onto.to.dtype);
    let mut problem = problem([left, right], acc)?;
    let bits = onto.to.clone().binding();
    let bits = bits.required_address_type(onto.to.dtype.size());
    problem.address_type = problem.address_type.max(bits);
    let sizes = [left.dtype, right.dtype, acc].map(|dtype| dtype.size());
    let mut sizes = AvailableVectorSizes::from_type_sizes(client, sizes[0], sizes[1], sizes[2])
        .filter_lhs_with_tensor(&problem.lhs_strides, &problem.lhs_shape, problem.lhs_layout)
        .filter_rhs_with_tensor(&problem.rhs_strides, &problem.rhs_shape, problem.rhs_layout)
        .filter_out_with_tensor(&problem.out_strides, &problem.out_shape)
        .pick_max()?;
    sizes.out = sizes.out.min(widest);
    let settings = A::device_settings(client, sizes);
    let expanded = A::expand_blueprint(&problem, &settings, strategy)?;
    let info = A::prepare(&problem, &settings, expanded)?;
    let cubes = match info.cube_count_plan.resolve() {
        CubeCount::Static(x, y, z) => (x * y * z) as usize,
        CubeCount::Dynamic(_) => unreachable!("the cubes of a product are counted"),
    };
    let units = cubes * info.cube_dim.num_elems() as usize;
    let (sums, units) = onto.sums.of(units, onto.reads[2]);
    let view = |x: &CubeTensor, size, config: GlobalLayoutConfig| {
        let binding = x.clone().binding();
        let layout = GlobalLayoutLaunch::from_handle(&binding, size, config);
        ViewArg::new_tensor::<GlobalLayout>(binding.into_tensor_arg(), layout)
    };
    let layouts = [
        info.blueprint.lhs_global_layout_config(),
        info.blueprint.rhs_global_layout_config(),
    ];
    let input = kernels::MultipliedLaunch::new(
        view(left, info.vector_sizes.lhs, layouts[0]),
        view(right, info.vector_sizes.rhs, layouts[1]),
    );
    let [teachers, mask, vectors] = onto.reads.map(|x| x.clone().into_buffer_arg());
    let output = kernels::TargetLaunch::new(
        onto.to.clone().into_buffer_arg(),
        teachers,
        mask,
        vectors,
        sums.into_buffer_arg(),
        at.launch(),
        units,
        f32::INFINITY,
        onto.epilogue.clone(),
        onto.with_mask,
    );
    launch_kernel::<kernels::Onto<T>, A>(client, input, output, (), info)
}
