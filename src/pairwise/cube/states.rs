//! The running states of a pass's reductions.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::tensor::CubeTensor;

use super::buffers::empty;
use super::kernels::{self, FoundLaunch, Merging, Program, Reducing, Resulting, Tiling};
use crate::pairwise::blocks::{Block, Part};
use crate::pairwise::pass::{Pass, Steps};
use crate::pairwise::reduction::Axis;

/// The reductions of a pass, and their states for all rows and columns.
pub(super) struct States {
    rows: Along,
    columns: Along,
    /// Those of rows, then those of columns, `[component, len]` each. Where one block is all, its
    /// results instead.
    states: CubeTensor,
    is_alone: bool,
    tiling: Tiling,
}

/// The reductions along one axis.
struct Along {
    reductions: Vec<Known>,
    components: usize,
    /// Where the states begin, and how many elements there are.
    at: usize,
    len: usize,
    /// Of each part of the rows (or columns), whether its states have begun.
    begun: Vec<bool>,
}

/// A reduction, its index in the pass, and whether it has results.
struct Known {
    index: usize,
    of: Resulting,
    has_results: bool,
}

impl States {
    /// For sides of so many rows and columns, in blocks of so many.
    pub fn new(
        pass: &Pass,
        sizes: [usize; 2],
        block: [usize; 2],
        (like, dtype): (&CubeTensor, DType),
        tiling: Tiling,
    ) -> Self {
        let rows = Along::new(pass, Axis::Rows, 0, sizes, block);
        let after_rows = rows.components * rows.len;
        let columns = Along::new(pass, Axis::Columns, after_rows, sizes, block);
        let is_alone = rows.begun.len() == 1 && columns.begun.len() == 1;
        let len = if is_alone {
            pass.result_len(sizes)
        } else {
            after_rows + columns.components * columns.len
        };
        Self {
            rows,
            columns,
            states: empty(like, [len.max(1)], dtype),
            is_alone,
            tiling,
        }
    }

    /// The components of all states along the rows.
    pub fn row_components(&self) -> usize {
        self.rows.components
    }

    /// The reductions along the rows, and along the columns, that these steps change.
    pub fn reducing(&self, steps: &Steps) -> [Vec<Reducing>; 2] {
        [&self.rows, &self.columns].map(|along| {
            let changed = |known: &Known| {
                Some(Reducing {
                    steps: steps.reductions[known.index]?,
                    ..known.of.reducing
                })
            };
            along.reductions.iter().filter_map(changed).collect()
        })
    }

    /// Room for what so many cubes along rows, and along columns, find of a block.
    pub fn partials(&self, block: &Block, [splits, strips]: [usize; 2]) -> CubeTensor {
        let of_rows = self.rows.components * splits * block.rows.len;
        let of_columns = if block.is_own_transpose {
            0
        } else {
            self.columns.components * strips * block.columns.len
        };
        let len = (of_rows + of_columns).max(1);
        empty(&self.states, [len], self.states.dtype())
    }

    /// Takes in what the cubes of a block found.
    pub fn merge(
        &mut self,
        block: &Block,
        program: &Program,
        partials: CubeTensor,
        [splits, strips]: [usize; 2],
    ) {
        let after_rows = self.rows.components * splits * block.rows.len;
        let found = [(0, splits), (after_rows, strips)];
        let (rows, by_row) = self
            .rows
            .merging(block.rows, &program.rows, found[0], self.is_alone);
        let (columns, by_column) = if block.is_own_transpose {
            (Vec::new(), none())
        } else {
            // The columns of a mirrored block are rows below the diagonal.
            let along = if block.is_mirrored {
                &mut self.rows
            } else {
                &mut self.columns
            };
            along.merging(block.columns, &program.columns, found[1], self.is_alone)
        };
        if rows.is_empty() && columns.is_empty() {
            return;
        }
        let most = block.rows.len.max(block.columns.len);
        let axes = if columns.is_empty() { 1 } else { 2 };
        kernels::merge::launch(
            &self.states.client,
            CubeCount::Static(most.div_ceil(self.tiling.lanes) as u32, axes, 1),
            CubeDim::new_2d(self.tiling.lanes as u32, self.tiling.lines as u32),
            partials.into_buffer_arg(),
            self.states.clone().into_buffer_arg(),
            by_row,
            by_column,
            self.rows.len,
            self.columns.len,
            f32::INFINITY,
            Merging {
                tiling: self.tiling,
                rows,
                columns,
                is_alone: self.is_alone,
            },
            dtype_to_storage_type(self.states.dtype),
        );
    }

    /// All results of the pass, one after the other.
    pub fn results(self, pass: &Pass, sizes: [usize; 2]) -> CubeTensor {
        if self.is_alone {
            return self.states;
        }
        let results = empty(&self.states, [pass.result_len(sizes)], self.states.dtype());
        let (rows, columns) = (self.rows.resulting(), self.columns.resulting());
        let most = self.rows.len.max(self.columns.len);
        let axes = if columns.is_empty() { 1 } else { 2 };
        kernels::finish::launch(
            &self.states.client,
            CubeCount::Static(most.div_ceil(self.tiling.units()) as u32, axes, 1),
            CubeDim::new_1d(self.tiling.units() as u32),
            self.states.clone().into_buffer_arg(),
            results.clone().into_buffer_arg(),
            self.rows.len,
            self.columns.len,
            self.columns.at,
            f32::INFINITY,
            rows,
            columns,
            dtype_to_storage_type(self.states.dtype),
        );
        results
    }
}

impl Along {
    fn new(pass: &Pass, axis: Axis, at: usize, sizes: [usize; 2], block: [usize; 2]) -> Self {
        let mut components = 0;
        let mut reductions = Vec::new();
        // How many vectors of rows and of columns come before a reduction's results.
        let mut before = [0; 2];
        for (index, reduction) in pass.reductions.iter().enumerate() {
            let has_results = pass.resulting().any(|(k, _)| k == index);
            if reduction.axis == axis {
                let reducing = Reducing {
                    kind: reduction.kind,
                    steps: [0; 2],
                    component: components,
                };
                reductions.push(Known {
                    index,
                    of: Resulting { reducing, before },
                    has_results,
                });
                components += reduction.kind.components();
            }
            if has_results {
                before[reduction.axis as usize] += reduction.kind.results();
            }
        }
        let len = axis.len(sizes);
        Self {
            reductions,
            components,
            at,
            len,
            begun: vec![false; len.div_ceil(axis.len(block))],
        }
    }

    /// What a kernel is to merge for some rows (or columns), with whether the block changed it, and
    /// where; of what cubes found from `from` on, `parts` for each component.
    fn merging(
        &mut self,
        part: Part,
        changed: &[Reducing],
        (from, parts): (usize, usize),
        is_alone: bool,
    ) -> (Vec<(Resulting, bool)>, FoundLaunch) {
        let is_first = !std::mem::replace(&mut self.begun[part.index], true);
        if changed.is_empty() && !is_first {
            return (Vec::new(), none());
        }
        let merging = self.reductions.iter().map(|known| {
            let component = known.of.reducing.component;
            let is_changed = changed.iter().any(|c| c.component == component);
            // Kernels that write states need not know where results are.
            let before = if is_alone { known.of.before } else { [0; 2] };
            let of = Resulting { before, ..known.of };
            (of, is_changed)
        });
        let at = self.at + part.start;
        let is_first = u32::from(is_first);
        let found = FoundLaunch::new(from, parts, part.len, at, self.len, is_first);
        (merging.collect(), found)
    }

    fn resulting(&self) -> Vec<Resulting> {
        let known = self.reductions.iter();
        known.filter(|k| k.has_results).map(|k| k.of).collect()
    }
}

/// Nothing found.
fn none() -> FoundLaunch {
    FoundLaunch::new(0, 0, 0, 0, 0, 0)
}
