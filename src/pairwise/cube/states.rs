//! The running states of a pass's reductions along one axis.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::tensor::CubeTensor;

use super::buffers::empty;
use super::kernels::{self, Reducing};
use crate::pairwise::blocks::Part;
use crate::pairwise::pass::{Pass, Steps};
use crate::pairwise::reduction::Axis;

/// The reductions of a pass along one axis, and their states for all rows (or columns).
pub(super) struct States {
    /// Indices of the reductions in the pass, and how each accumulates.
    reductions: Vec<(usize, Reducing)>,
    pub components: usize,
    len: usize,
    states: CubeTensor,
    /// Of each part of the rows (or columns), whether its states have begun.
    begun: Vec<bool>,
    /// Units of a cube.
    units: usize,
}

/// Where in `partials` the states of some cubes are: from `from` on, `parts` for each component.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub from: usize,
    pub parts: usize,
}

impl States {
    /// For sides of so many rows and columns, in blocks of so many.
    pub fn new(
        pass: &Pass,
        axis: Axis,
        sizes: [usize; 2],
        block: [usize; 2],
        (like, dtype): (&CubeTensor, DType),
        units: usize,
    ) -> Self {
        let mut components = 0;
        let mut reductions = Vec::new();
        for (k, reduction) in pass.reductions.iter().enumerate() {
            if reduction.axis == axis {
                let reducing = Reducing {
                    kind: reduction.kind,
                    steps: [0; 2],
                    component: components,
                };
                reductions.push((k, reducing));
                components += reduction.kind.components();
            }
        }
        let len = axis.len(sizes);
        Self {
            reductions,
            components,
            len,
            states: empty(like, [components.max(1) * len], dtype),
            begun: vec![false; len.div_ceil(axis.len(block))],
            units,
        }
    }

    /// The reductions that these steps change.
    pub fn reducing(&self, steps: &Steps) -> Vec<Reducing> {
        let changed = |&(k, reducing): &(usize, Reducing)| {
            Some(Reducing {
                steps: steps.reductions[k]?,
                ..reducing
            })
        };
        self.reductions.iter().filter_map(changed).collect()
    }

    /// Takes in what cubes found of some rows (or columns).
    pub fn merge(&mut self, part: Part, changed: &[Reducing], partials: &CubeTensor, found: Found) {
        let is_first = !std::mem::replace(&mut self.begun[part.index], true);
        if self.reductions.is_empty() || (changed.is_empty() && !is_first) {
            return;
        }
        let reductions = self.reductions.iter().map(|&(_, reducing)| {
            let is_changed = changed.iter().any(|c| c.component == reducing.component);
            (reducing, is_changed)
        });
        kernels::merge::launch(
            &self.states.client,
            CubeCount::Static(part.len.div_ceil(self.units) as u32, 1, 1),
            CubeDim::new_1d(self.units as u32),
            partials.clone().into_buffer_arg(),
            self.states.clone().into_buffer_arg(),
            found.from,
            found.parts,
            part.len,
            part.start,
            self.len,
            u32::from(is_first),
            f32::INFINITY,
            reductions.collect(),
            dtype_to_storage_type(self.states.dtype),
        );
    }

    /// Writes the results of these states among those of the pass.
    fn finish(&self, pass: &Pass, [n, m]: [usize; 2], results: &CubeTensor) {
        // How many vectors of rows and of columns come before a reduction's results.
        let mut before = [0; 2];
        let mut reductions = Vec::new();
        for (k, reduction) in pass.resulting() {
            if let Some(&(_, reducing)) = self.reductions.iter().find(|(own, _)| *own == k) {
                reductions.push((reducing, before));
            }
            before[match reduction.axis {
                Axis::Rows => 0,
                Axis::Columns => 1,
            }] += reduction.kind.results();
        }
        if reductions.is_empty() {
            return;
        }
        kernels::finish::launch(
            &self.states.client,
            CubeCount::Static(self.len.div_ceil(self.units) as u32, 1, 1),
            CubeDim::new_1d(self.units as u32),
            self.states.clone().into_buffer_arg(),
            results.clone().into_buffer_arg(),
            self.len,
            n,
            m,
            f32::INFINITY,
            reductions,
            dtype_to_storage_type(self.states.dtype),
        );
    }
}

/// All results of a pass, one after the other.
pub(super) fn results(pass: &Pass, sizes: [usize; 2], sides: [&States; 2]) -> CubeTensor {
    let like = &sides[0].states;
    let results = empty(like, [pass.result_len(sizes)], like.dtype());
    for side in sides {
        side.finish(pass, sizes, &results);
    }
    results
}
