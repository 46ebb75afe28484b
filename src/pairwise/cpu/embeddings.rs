//! Embeddings as the tensors of a backend hold them.

use std::ops::Range;

use burn::tensor::{DType, bf16, f16};
use rayon::prelude::*;

use super::Inputs;
use super::matrix_units::Elements;
use super::panels::{Matrix, Panels, Role};
use super::plan::Tiling;
use crate::host::Real;
use crate::pairwise::pass::Teacher;

/// The embeddings of one side.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a, T> {
    /// In the type of the similarities.
    Own(&'a [T]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a, T: Real> Rows<'a, T> {
    /// In the type of the similarities.
    pub fn own(self) -> &'a [T] {
        match self {
            Self::Own(rows) => rows,
            _ => unreachable!("half precision is multiplied by matrix units"),
        }
    }

    pub fn dtype(self) -> DType {
        match self {
            Self::Own(_) => T::dtype(),
            Self::F16(_) => DType::F16,
            Self::Bf16(_) => DType::BF16,
        }
    }
}

/// Some rows of embeddings, `apart` from one another.
#[derive(Clone, Copy)]
pub(super) struct Embeddings<'a, T> {
    rows: Rows<'a, T>,
    start: usize,
    apart: usize,
}

/// The elements of embeddings.
trait Element: Copy + Send + Sync {
    fn widened(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widened(self) -> f32 {
        self.to_f32()
    }
}

/// Embeddings of one type: what is read of them is known when they are packed.
#[derive(Clone, Copy)]
struct Typed<'a, E> {
    rows: &'a [E],
    apart: usize,
}

impl<E: Element> Matrix for Typed<'_, E> {
    #[inline(always)]
    fn read(&self, row: usize, column: usize, out: &mut [f32]) {
        widen(&self.rows[row * self.apart + column..][..out.len()], out);
    }
}

#[inline(always)]
fn widen<E: Element>(elements: &[E], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(elements) {
        *out = x.widened();
    }
}

impl<'a, T: Real> Embeddings<'a, T> {
    /// Of both sides.
    pub fn own(inputs: &Inputs<'a, T>) -> [Self; 2] {
        [inputs.a, inputs.b].map(|rows| Self {
            rows,
            start: 0,
            apart: inputs.d,
        })
    }

    pub fn of_teacher(inputs: &Inputs<'a, T>, teacher: &Teacher) -> [Self; 2] {
        inputs.teachers.map(|rows| Self {
            rows: Rows::Own(rows),
            start: teacher.at,
            apart: inputs.teachers[0].len() / inputs.context.n,
        })
    }

    pub fn dtype(self) -> DType {
        self.rows.dtype()
    }

    /// Packs so many rows and columns.
    pub fn pack(
        self,
        panels: &mut Panels,
        size: [usize; 2],
        role: Role,
        elements: Elements,
        tiling: &Tiling,
    ) {
        let Self { start, apart, .. } = self;
        match self.rows {
            Rows::Own(rows) => {
                let rows = &bytemuck::cast_slice(rows)[start..];
                panels.pack(Typed::<f32> { rows, apart }, size, role, elements, tiling);
            }
            Rows::F16(rows) => {
                let rows = &rows[start..];
                panels.pack(Typed { rows, apart }, size, role, elements, tiling);
            }
            Rows::Bf16(rows) => {
                let rows = &rows[start..];
                panels.pack(Typed { rows, apart }, size, role, elements, tiling);
            }
        }
    }

    /// The first elements of a row.
    pub fn read(self, row: usize, out: &mut [f32]) {
        let at = self.start + row * self.apart;
        let part = at..at + out.len();
        match self.rows {
            Rows::Own(rows) => out.copy_from_slice(bytemuck::cast_slice(&rows[part])),
            Rows::F16(rows) => widen(&rows[part], out),
            Rows::Bf16(rows) => widen(&rows[part], out),
        }
    }

    /// From a row on.
    pub fn from(self, row: usize) -> Self {
        let start = self.start + row * self.apart;
        Self { start, ..self }
    }

    /// Whether a row is too short for matrix units. Of half precision the backend has looked.
    pub fn has_tiny_row(self, width: usize) -> bool {
        const SIGNLESS: u32 = 0x7fff_ffff;
        let Rows::Own(rows) = self.rows else {
            return false;
        };
        let bits: &[u32] = bytemuck::cast_slice(rows);
        let part = self.start..self.start + width;
        has_tiny_row(bits, self.apart, part, |bits| bits & SIGNLESS)
    }
}

/// Whether a row of bf16 is too short for matrix units.
pub(super) fn has_tiny_row_of_bf16(rows: &[bf16], width: usize) -> bool {
    let bits: &[u16] = bytemuck::cast_slice(rows);
    has_tiny_row(bits, width, 0..width, |bits| u32::from(bits & 0x7fff) << 16)
}

/// Whether a row is so short that its elements, or the small terms of them, are below the normal
/// range, where matrix units have zeros. Bits without their sign are ordered as numbers are.
fn has_tiny_row<E: Copy + Sync>(
    bits: &[E],
    apart: usize,
    part: Range<usize>,
    signless: impl Fn(E) -> u32 + Sync,
) -> bool {
    let tiny = 1..1e-30f32.to_bits();
    let largest = |row: &[E]| row.iter().fold(0, |most, &x| most.max(signless(x)));
    let rows = bits.par_chunks(apart).with_min_len(1024);
    rows.any(|row| tiny.contains(&largest(&row[part.clone()])))
}
