//! The first half of a block's work: its tiles, each a task.

use rayon::prelude::*;

use super::Inputs;
use super::packed::Packed;
use super::plan::{Stored, Tiling};
use super::product::{Shared, Strips};
use super::states::Both;
use super::tile::{self, Scratch, Tile};
use crate::host::Real;
use crate::pairwise::pass::{Pass, Teacher};

/// The tiles of a block.
pub(super) struct Work<'a, T> {
    pub pass: &'a Pass,
    pub inputs: &'a Inputs<'a, T>,
    /// What matrix units multiply, where they do.
    pub packed: Option<&'a Packed>,
    pub block: &'a Stored,
    /// Where the block's similarities belong, if anywhere.
    pub stored: Option<Shared<T>>,
    /// Whether they are there.
    pub computed: bool,
}

/// A task's part of a block.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub i0: usize,
    pub rows: usize,
    pub j0: usize,
    pub columns: usize,
}

/// A thread's buffers.
struct Buffers<T> {
    scratch: Scratch<T>,
    /// A tile of similarities, where the block stores none, and one of each teacher.
    own: Vec<T>,
    teachers: Vec<T>,
}

impl<T: Real> Work<'_, T> {
    /// Runs all tasks; their reductions, in order.
    pub fn run(&self, tiling: &Tiling) -> Vec<(Task, Both<T>)> {
        let tile = tiling.tile;
        let (rows, columns) = (self.block.rows.len, self.block.columns.len);
        let len = tile[0].min(rows) * tile[1].min(columns);
        let named = self.pass.teachers.iter().filter(|teacher| teacher.named);
        let teachers = named.count();
        let buffers = || Buffers {
            scratch: Scratch::new(self.pass),
            own: vec![T::ZERO; if self.stored.is_none() { len } else { 0 }],
            teachers: vec![T::ZERO; teachers * len],
        };
        self.tasks(tile)
            .into_par_iter()
            .with_min_len(tiling.tasks_each())
            .map_init(buffers, |buffers, task| {
                (task, self.task(task, len, buffers))
            })
            .collect()
    }

    /// All tiles; of a block that is its own transpose those on and above the diagonal.
    fn tasks(&self, [height, width]: [usize; 2]) -> Vec<Task> {
        let (rows, columns) = (self.block.rows, self.block.columns);
        let task = |i: usize, j: usize| Task {
            i0: rows.start + i,
            rows: height.min(rows.len - i),
            j0: columns.start + j,
            columns: width.min(columns.len - j),
        };
        (0..rows.len)
            .step_by(height)
            .flat_map(|i| (0..columns.len).step_by(width).map(move |j| task(i, j)))
            .filter(|task| !self.block.is_own_transpose || task.i0 <= task.j0)
            .collect()
    }

    /// `tile` is the length of the buffers of a tile.
    fn task(&self, task: Task, tile: usize, buffers: &mut Buffers<T>) -> Both<T> {
        let Task {
            i0,
            rows,
            j0,
            columns,
        } = task;
        let (pass, block) = (self.pass, self.block);
        let mut part = Both::new(pass, [rows, columns]);
        let similarities = self.strips(task, self.stored, &mut buffers.own, None);
        let mut others = buffers.teachers.chunks_exact_mut(tile);
        let kept = self.stored.filter(|_| block.kept_at.is_some());
        let teacher = |(k, teacher): (usize, &Teacher)| {
            let buffer = if teacher.named {
                others.next()?
            } else {
                return None;
            };
            let kept = kept.map(|start| start.offset((1 + k) * block.len()));
            Some(self.strips(task, kept, buffer, Some(k)))
        };
        let teachers = pass.teachers.iter().enumerate().map(teacher).collect();
        tile::run(
            pass,
            &self.inputs.context,
            Tile {
                i0,
                j0,
                rows,
                columns,
                similarities,
                teachers,
                count_columns: !(block.is_own_transpose && i0 == j0),
            },
            &mut buffers.scratch,
            &mut part.rows,
            &mut part.columns,
        );
        part
    }

    /// The similarities of a tile, or a teacher's, computed unless they are there: in the block's
    /// matrix, or in a buffer of this thread's.
    fn strips(
        &self,
        task: Task,
        matrix: Option<Shared<T>>,
        own: &mut [T],
        teacher: Option<usize>,
    ) -> Strips<T> {
        let block = self.block;
        let (start, stride) = match matrix {
            Some(start) => {
                let row = (task.i0 - block.rows.start) * block.stride();
                let offset = row + (task.j0 - block.columns.start);
                (start.at(offset), block.stride())
            }
            None => (own.as_mut_ptr(), task.columns),
        };
        if !self.computed {
            let size = [task.rows, task.columns];
            // SAFETY: the tile is this task's, in a buffer of the block's or of a tile's size.
            unsafe {
                match self.packed.and_then(|packed| packed.similarities(teacher)) {
                    Some(similarities) => {
                        let at = [task.i0 - block.rows.start, task.j0 - block.columns.start];
                        similarities.multiply(at, size, (start.cast(), stride));
                    }
                    None => {
                        let teacher = teacher.map(|k| &self.pass.teachers[k]);
                        let factors = self.inputs.plain(teacher);
                        factors.multiply([task.i0, task.j0], size, start, stride);
                    }
                }
            }
        }
        // SAFETY: likewise; nothing else refers to the tile.
        unsafe { Strips::new(start, stride, task.rows, task.columns) }
    }
}
