//! Matrix products whose results are used where they are computed: added to a sum, or taken for
//! similarities, of which only the coefficients reach memory.

use std::marker::PhantomData;

use burn_cubecl::cubecl::prelude::barrier::BarrierExpand;
use burn_cubecl::cubecl::std::tensor::{
    View, ViewMut, ViewOperations, ViewOperationsExpand, ViewOperationsMut, ViewOperationsMutExpand,
};
use burn_cubecl::cubecl::{self, prelude::*};
use cubek::matmul::multi_level::args::{BatchedCoords, MatmulArgs};
use cubek::matmul::multi_level::components::global::memory::GlobalLayoutConfig;

use super::expr::{Pair, Place, evaluate};
use super::{PLANE, Program};

/// The type of similarities.
type Real = f32;

/// What becomes of the elements of a product.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Epilogue {
    /// They are added to rows of a matrix from the first row of [`Place`] on.
    Add,
    /// They are the similarities of a block, whose expressions are computed; coefficients are
    /// written in terms, one at least, and sums along rows are added up by each unit.
    Coefficients(Program),
}

/// The factors of a product.
#[derive(CubeType, CubeLaunch, Clone)]
#[expand(derive(Clone))]
pub(crate) struct Multiplied<L: CubePrimitive, R: CubePrimitive> {
    left: View<'static, L, BatchedCoords>,
    right: View<'static, R, BatchedCoords>,
}

/// Where a product goes, and what is computed of it: see [`block`](super::block).
///
/// - `sums`: `[component, unit of the launch]`
#[derive(CubeType, CubeLaunch, Clone)]
#[expand(derive(Clone))]
pub(crate) struct Target<EO: CubePrimitive, T: Float> {
    to: Box<[Vector<T, EO::Size>]>,
    teachers: Box<[f32]>,
    mask: Box<[f32]>,
    vectors: Box<[f32]>,
    sums: Box<[f32]>,
    place: Place,
    units: usize,
    infinity: f32,
    #[cube(comptime)]
    epilogue: Epilogue,
    #[cube(comptime)]
    with_mask: bool,
}

/// A product into a [`Target`], whose elements are of type `T`.
#[derive(Clone)]
pub(crate) struct Onto<T>(PhantomData<T>);

#[cube]
impl<T: Float> MatmulArgs for Onto<T> {
    type Input<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive> = Multiplied<L, R>;
    type Output<EO: CubePrimitive> = Target<EO, T>;
    type Config = ();
    type State<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive> =
        (Multiplied<L, R>, Target<EO, T>);

    fn init_state<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        input: &Self::Input<L, R, EO>,
        output: &mut Self::Output<EO>,
        _config: (),
        #[comptime] _left: GlobalLayoutConfig,
        #[comptime] _right: GlobalLayoutConfig,
        #[comptime] _out: GlobalLayoutConfig,
    ) -> Self::State<L, R, EO> {
        (input.clone(), output.clone())
    }

    fn view_lhs<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        state: &Self::State<L, R, EO>,
    ) -> View<'_, L, BatchedCoords> {
        state.0.left
    }

    fn batch_lhs<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<L, R, EO>,
        batch: usize,
    ) -> usize {
        batch
    }

    fn view_rhs<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        state: &Self::State<L, R, EO>,
    ) -> View<'_, R, BatchedCoords> {
        state.0.right
    }

    fn batch_rhs<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<L, R, EO>,
        batch: usize,
    ) -> usize {
        batch
    }

    fn view_acc<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<L, R, EO>,
    ) -> ComptimeOption<View<'_, EO, BatchedCoords>> {
        ComptimeOption::new_None()
    }

    fn batch_acc<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<L, R, EO>,
        batch: usize,
    ) -> usize {
        batch
    }

    fn view_out<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        state: &Self::State<L, R, EO>,
    ) -> ViewMut<'_, EO, BatchedCoords> {
        view_of::<EO, T>(&state.1)
    }

    fn batch_out<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<L, R, EO>,
        batch: usize,
    ) -> usize {
        batch
    }

    fn runtime_config<L: CubePrimitive, R: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<L, R, EO>,
    ) -> Self::Config {
    }
}

#[cube]
#[allow(unused_variables)]
fn view_of<EO: CubePrimitive, T: Float>(
    target: &Target<EO, T>,
) -> ViewMut<'static, EO, BatchedCoords> {
    intrinsic!(|scope| cubecl::std::tensor::ViewMutExpand::new(scope, target.clone()))
}

/// Uses a vector of elements of the product.
#[allow(unused_mut)] // A kernel must declare so what it assigns to, even where Rust does not.
#[cube]
fn use_elements<EO: CubePrimitive, T: Float>(
    target: &mut Target<EO, T>,
    row: u32,
    column: u32,
    elements: Vector<T, EO::Size>,
    similarities: Vector<f32, EO::Size>,
) {
    let lanes = similarities.vector_size();
    let (r, first) = (row as usize, column as usize);
    let columns = target.place.columns;
    match comptime!(target.epilogue.clone()) {
        Epilogue::Add => {
            let at = ((target.place.i0 + r) * columns + first) / lanes;
            target.to[at] += elements;
        }
        Epilogue::Coefficients(program) => {
            let mut rest = Vector::<f32, EO::Size>::empty();
            let sums = comptime!(program.rows.len());
            let mut found = Sequence::<f32>::new();
            #[unroll]
            for _ in 0..sums {
                let mut nothing = Real::new(0.0);
                found.push(nothing);
            }
            #[unroll]
            for l in 0..lanes {
                let here = r * columns + first + l;
                let pair = Pair::<Real> {
                    similarity: similarities.extract(l),
                    mask: if comptime!(target.with_mask) {
                        target.mask[here]
                    } else {
                        Real::new(0.0)
                    },
                    here,
                    i: target.place.i0 + r,
                    j: target.place.j0 + first + l,
                    infinity: target.infinity,
                };
                let values = evaluate::<Real>(
                    &pair,
                    &target.teachers,
                    &target.vectors,
                    &target.place,
                    comptime!(program.ops.clone()),
                );
                rest.insert(
                    l,
                    *values.index(comptime!(program.coefficient.expect("there is one"))),
                );
                #[unroll]
                for k in 0..sums {
                    *found.index_mut(k) += *values.index(comptime!(program.rows[k].steps[0]));
                }
            }
            let plane = (target.place.rows * columns).div_ceil(PLANE) * PLANE;
            let at = (r * columns + first) / lanes;
            #[unroll]
            for k in 0..comptime!(program.terms.max(1)) {
                let term = Vector::<T, EO::Size>::cast_from(rest);
                target.to[k * plane / lanes + at] = term;
                rest -= Vector::<f32, EO::Size>::cast_from(term);
            }
            let unit = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
            #[unroll]
            for k in 0..sums {
                let at = comptime!(program.rows[k].component) * target.units + unit;
                target.sums[at] += *found.index(k);
            }
        }
    }
}

impl<EO: CubePrimitive, T: Float> Vectorized for Target<EO, T> {}
impl<EO: CubePrimitive, T: Float> VectorizedExpand for TargetExpand<EO, T> {
    fn __expand_vector_size_method(&self, scope: &Scope) -> VectorSize {
        EO::__expand_vector_size(scope)
    }
}

/// Only written to.
const NO_READ: &str = "a product reads nothing of where it goes";

impl<EO: CubePrimitive, T: Float> ViewOperations<EO, BatchedCoords> for Target<EO, T> {}
impl<EO: CubePrimitive, T: Float> ViewOperationsExpand<EO, BatchedCoords> for TargetExpand<EO, T> {
    fn __expand_read_method(&self, _: &Scope, _: Position) -> EO::ExpandType {
        panic!("{NO_READ}")
    }

    fn __expand_read_checked_method(&self, _: &Scope, _: Position) -> EO::ExpandType {
        panic!("{NO_READ}")
    }

    fn __expand_read_masked_method(
        &self,
        _: &Scope,
        _: Position,
        _: EO::ExpandType,
    ) -> EO::ExpandType {
        panic!("{NO_READ}")
    }

    fn __expand_read_unchecked_method(&self, _: &Scope, _: Position) -> EO::ExpandType {
        panic!("{NO_READ}")
    }

    fn __expand_as_linear_slice_method(
        &self,
        _: &Scope,
        _: Position,
        _: Position,
    ) -> &SliceExpand<EO> {
        panic!("{NO_READ}")
    }

    fn __expand_tensor_map_load_method(
        &self,
        _: &Scope,
        _: &BarrierExpand,
        _: &mut SliceExpand<EO>,
        _: Position,
    ) {
        panic!("{NO_READ}")
    }

    fn __expand_shape_method(&self, scope: &Scope) -> Position {
        shape_of::expand(scope, &self.place)
    }

    fn __expand_is_in_bounds_method(&self, scope: &Scope, at: Position) -> NativeExpand<bool> {
        is_within::expand(scope, &self.place, at.1, at.2)
    }
}

type Position = <BatchedCoords as CubeType>::ExpandType;

#[cube]
fn shape_of(place: &Place) -> BatchedCoords {
    (1usize, place.rows as u32, place.columns as u32)
}

#[cube]
fn is_within(place: &Place, row: u32, column: u32) -> bool {
    (row as usize) < place.rows && (column as usize) < place.columns
}

impl<EO: CubePrimitive, T: Float> ViewOperationsMut<EO, BatchedCoords> for Target<EO, T> {}
impl<EO: CubePrimitive, T: Float> ViewOperationsMutExpand<EO, BatchedCoords>
    for TargetExpand<EO, T>
{
    fn __expand_write_method(&self, scope: &Scope, at: Position, value: EO::ExpandType) {
        let elements = Vector::<T, EO::Size>::__expand_cast_from(scope, value);
        let similarities = Vector::<f32, EO::Size>::__expand_cast_from(scope, value);
        let mut target = self.clone();
        use_elements::expand::<EO, T>(scope, &mut target, at.1, at.2, elements, similarities);
    }

    fn __expand_write_checked_method(&self, scope: &Scope, at: Position, value: EO::ExpandType) {
        let is_within = self.__expand_is_in_bounds_method(scope, at);
        if_expand(scope, is_within, |scope| {
            self.__expand_write_method(scope, at, value)
        });
    }

    fn __expand_as_linear_slice_mut_method(
        &self,
        _: &Scope,
        _: Position,
        _: Position,
    ) -> &mut SliceExpand<EO> {
        panic!("{NO_READ}")
    }

    fn __expand_tensor_map_store_method(&self, _: &Scope, _: &SliceExpand<EO>, _: Position) {
        panic!("{NO_READ}")
    }
}
