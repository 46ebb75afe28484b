//! The products of a pass on matrix units: what a block multiplies, packed once for all its tiles
//! and bands.

use burn::tensor::DType;

use super::Inputs;
use super::embeddings::Embeddings;
use super::matrix_units::{BLOCK, Elements, Multiplied, Product, Ready, SIDE, STRIP, Units};
use super::panels::{Coefficients, Panels, Role, pack};
use super::plan::Tiling;
use super::product::Shared;
use crate::host::Real;
use crate::pairwise::Precision;
use crate::pairwise::blocks::{Block, Part};
use crate::pairwise::pass::Pass;
use crate::pairwise::terms::Factors;

/// Steps of the sum whose coefficients are packed at a time: with a strip of embeddings they
/// stay in the first cache.
const DEPTH: usize = 16;

/// Columns whose similarities are computed before those of others: what is packed of them stays in
/// the second cache.
const WIDTH: usize = 128;

/// A factor, and which rows of its embeddings it was made of.
#[derive(Default)]
struct Factor {
    panels: Panels,
    rows: Option<Part>,
}

impl Factor {
    fn update(&mut self, rows: Part, pack: impl FnOnce(&mut Panels)) {
        if self.rows != Some(rows) {
            pack(&mut self.panels);
            self.rows = Some(rows);
        }
    }
}

/// How products are computed: by what, of what, and which terms are multiplied.
struct Method {
    units: Units,
    embedding: Elements,
    coefficient: Elements,
    similarity: Multiplied,
    gradient: Multiplied,
}

impl Method {
    /// For embeddings of that dtype; `None` where others take less time, or the level does not
    /// permit it.
    fn new(units: Units, embeddings: DType, precision: Precision) -> Option<Self> {
        if Some(units) == Units::of_f32() {
            return (embeddings == DType::F32).then(|| Self {
                units,
                embedding: Elements::F32,
                coefficient: Elements::F32,
                similarity: Multiplied::new(1, 1, true),
                gradient: Multiplied::new(1, 1, true),
            });
        }
        let factors = Factors::new(embeddings, precision, &[DType::BF16]);
        let coefficient = factors.coefficient?.count;
        let embedding = factors.similarity.count;
        // Of f16 the two terms hold all digits.
        let is_exact = embeddings == DType::F16;
        let method = Self {
            units,
            embedding: Elements::Bf16(embedding),
            coefficient: Elements::Bf16(coefficient),
            similarity: Multiplied::new(embedding, embedding, is_exact),
            gradient: Multiplied::new(coefficient, embedding, false),
        };
        let products = method.similarity.count() + 2 * method.gradient.count();
        (products < 3 * units.rate()).then_some(method)
    }

    fn rounds(&self) -> bool {
        self.coefficient != Elements::F32
    }

    /// The first of some units that multiply these embeddings.
    fn of<T: Real>(
        units: &[Option<Units>],
        sides: [Embeddings<T>; 2],
        width: usize,
        precision: Precision,
    ) -> Option<Self> {
        let dtype = sides[0].dtype();
        let mut methods = units.iter().flatten();
        methods.find_map(|&units| {
            let method = Self::new(units, dtype, precision)?;
            let has_tiny_row = || sides.iter().any(|side| side.has_tiny_row(width));
            (!method.rounds() || !has_tiny_row()).then_some(method)
        })
    }
}

/// Two factors whose products are similarities.
struct Sides {
    factors: [Factor; 2],
    method: Method,
}

impl Sides {
    fn new(method: Method) -> Self {
        Self {
            factors: Default::default(),
            method,
        }
    }

    fn update<T: Real>(
        &mut self,
        (block, tiling): (&Block, &Tiling),
        embeddings: [Embeddings<T>; 2],
        width: usize,
    ) {
        let elements = self.method.embedding;
        for (k, part) in [block.rows, block.columns].into_iter().enumerate() {
            let role = Role {
                is_left: k == 0,
                sums_rows: false,
            };
            let rows = embeddings[k].from(part.start);
            self.factors[k].update(part, |panels| {
                rows.pack(panels, [part.len, width], role, elements, tiling);
            });
        }
    }
}

/// The similarities of a block, to be computed.
pub(super) struct Similarities<'a>(&'a Sides);

impl Similarities<'_> {
    /// Writes those of `[rows, columns]` of the block, from a row and a column on.
    ///
    /// # Safety
    ///
    /// `dst` is the caller's, `rows` rows of `columns` elements, `stride` apart.
    pub unsafe fn multiply(
        &self,
        [row, column]: [usize; 2],
        [rows, columns]: [usize; 2],
        (dst, stride): (*mut f32, usize),
    ) {
        assert!(row.is_multiple_of(SIDE) && column.is_multiple_of(SIDE));
        let Sides { factors, method } = self.0;
        let [left, right] = factors.each_ref().map(|factor| &factor.panels);
        let ready = method.units.ready();
        for j in (0..columns).step_by(WIDTH) {
            for i in (0..rows).step_by(SIDE) {
                // SAFETY: the caller's promise.
                unsafe {
                    multiply(
                        (&ready, &method.similarity, left.steps()),
                        left.strips((row + i) / STRIP, 0),
                        |k| right.strips((column + j + k) / STRIP, 0),
                        [SIDE.min(rows - i), WIDTH.min(columns - j)],
                        (dst.wrapping_add(i * stride + j), stride),
                        false,
                    );
                }
            }
        }
    }
}

/// The products of a pass on matrix units.
pub(super) struct Packed {
    own: Sides,
    /// Of the teachers that the pass reads.
    teachers: Vec<Option<Sides>>,
    /// The rows and the columns of the block, to be multiplied with coefficients.
    gradients: [Factor; 2],
}

impl Packed {
    /// `None` where the level of precision, the embeddings or the processor want other products.
    pub fn new<T: Real>(pass: &Pass, inputs: &Inputs<T>) -> Option<Self> {
        Self::on(&[Units::of_bf16(), Units::of_f32()], pass, inputs)
    }

    /// By the first of some units that multiply what there is.
    pub fn on<T: Real>(units: &[Option<Units>], pass: &Pass, inputs: &Inputs<T>) -> Option<Self> {
        let precision = pass.limits.precision;
        let own = Method::of(units, Embeddings::own(inputs), inputs.d, precision)?;
        // Where its own embeddings are not rounded, nothing is.
        let full = [Some(own.units)];
        let units = if own.rounds() { units } else { &full };
        let teachers = pass.teachers.iter().map(|teacher| {
            let sides = Embeddings::of_teacher(inputs, teacher);
            let named = teacher.named.then_some(sides)?;
            Method::of(units, named, teacher.width, precision).map(Sides::new)
        });
        let teachers = teachers.collect();
        Some(Self {
            own: Sides::new(own),
            teachers,
            gradients: Default::default(),
        })
    }

    /// Whether factors are rounded.
    pub fn rounds(&self) -> bool {
        self.own.method.rounds()
    }

    /// Packs what the products of a block read, unless the block before read it too.
    pub fn prepare<T: Real>(
        &mut self,
        pass: &Pass,
        inputs: &Inputs<T>,
        (block, tiling): (&Block, &Tiling),
        computed: bool,
    ) {
        let (d, embeddings) = (inputs.d, Embeddings::own(inputs));
        if !computed {
            self.own.update((block, tiling), embeddings, d);
            for (sides, teacher) in self.teachers.iter_mut().zip(&pass.teachers) {
                if let Some(sides) = sides {
                    let embeddings = Embeddings::of_teacher(inputs, teacher);
                    sides.update((block, tiling), embeddings, teacher.width);
                }
            }
        }
        // The gradient of either side is a product with the other.
        let transposed = pass.right || (pass.left && block.is_mirrored);
        let wanted = [transposed, pass.left];
        for (k, part) in [block.rows, block.columns].into_iter().enumerate() {
            if pass.coefficient.is_none() || !wanted[k] {
                continue;
            }
            let role = Role {
                is_left: false,
                sums_rows: true,
            };
            let elements = self.own.method.embedding;
            let rows = embeddings[k].from(part.start);
            self.gradients[k].update(part, |panels| {
                rows.pack(panels, [part.len, d], role, elements, tiling);
            });
        }
    }

    /// The similarities of the pass's own embeddings, or of a teacher, where these are rounded too.
    pub fn similarities(&self, teacher: Option<usize>) -> Option<Similarities<'_>> {
        let sides = match teacher {
            None => &self.own,
            Some(k) => self.teachers[k].as_ref()?,
        };
        Some(Similarities(sides))
    }

    /// Adds `G·B` to rows of the left gradient, or `Gᵀ·A` to rows of the right one: those of the
    /// block from `start` on, `len`. `dst` is the first of them. The [diagonal](Diagonal) of the
    /// block has been taken out of it.
    ///
    /// # Safety
    ///
    /// The coefficients of the block are the caller's to read, and the rows of the gradient, `d`
    /// elements each, to write.
    pub unsafe fn add(
        &self,
        block: &Block,
        is_left: bool,
        [start, len]: [usize; 2],
        (coefficients, stride): (Shared<f32>, usize),
        (dst, d): (*mut f32, usize),
    ) {
        // SAFETY: the caller's promise.
        let coefficients = unsafe { Coefficients::new(coefficients, stride) };
        let role = Role {
            is_left: true,
            sums_rows: !is_left,
        };
        let (others, sum) = if is_left {
            (&self.gradients[1].panels, block.columns.len)
        } else {
            (&self.gradients[0].panels, block.rows.len)
        };
        let method = &self.own.method;
        let (elements, step) = (method.coefficient, method.coefficient.in_step());
        let ready = method.units.ready();
        let mut words = vec![0u32; 2 * DEPTH * elements.terms() * BLOCK];
        for first in (0..sum).step_by(DEPTH * step) {
            let depth = (DEPTH * step).min(sum - first);
            let steps = depth.div_ceil(step);
            let of_strip = steps * elements.terms() * BLOCK;
            for row in (0..len).step_by(SIDE) {
                let strips = words[..2 * of_strip].chunks_exact_mut(of_strip);
                for (words, at) in strips.zip([row, row + STRIP]) {
                    let rows = STRIP.min(len.saturating_sub(at));
                    pack(
                        coefficients,
                        [start + at, rows],
                        [first, depth],
                        role,
                        elements,
                        words,
                    );
                }
                let (left, right) = words.split_at(of_strip);
                // SAFETY: the caller's promise.
                unsafe {
                    multiply(
                        (&ready, &method.gradient, steps),
                        [left, &right[..of_strip]],
                        |column| others.strips(column / STRIP, first / step),
                        [SIDE.min(len - row), d],
                        (dst.wrapping_add(row * d), d),
                        true,
                    );
                }
            }
        }
    }
}

/// Whether products of similarities in that type have packed factors, whatever the level.
pub(super) fn is_packed<T: Real>() -> bool {
    T::dtype() == DType::F32 && Units::of_f32().is_some()
}

/// Whether embeddings of that dtype are multiplied as bf16: half precision as it is.
pub(in crate::pairwise) fn multiplies_as_bf16(dtype: DType, precision: Precision) -> bool {
    Units::of_bf16().is_some_and(|units| Method::new(units, dtype, precision).is_some())
}

/// `dst = left · right`, or `dst += left · right`, of at most 32 rows and any count of columns;
/// `right` gives the strips from a column on.
///
/// # Safety
///
/// `dst` is the caller's, `rows` rows of `columns` elements, `stride` apart.
unsafe fn multiply<'a>(
    (ready, multiplied, steps): (&Ready, &Multiplied, usize),
    left: [&[u32]; 2],
    right: impl Fn(usize) -> [&'a [u32]; 2],
    [rows, columns]: [usize; 2],
    (dst, stride): (*mut f32, usize),
    accumulate: bool,
) {
    for j in (0..columns).step_by(SIDE) {
        let (dst, width) = (dst.wrapping_add(j), SIDE.min(columns - j));
        let product = Product {
            multiplied,
            steps,
            left,
            right: right(j),
            dst,
            stride,
            accumulate,
            rows,
        };
        if [rows, width] == [SIDE; 2] {
            // SAFETY: the caller's promise.
            unsafe { ready.multiply(&product) };
            continue;
        }
        let mut sums = [0f32; SIDE * SIDE];
        let whole = Product {
            dst: sums.as_mut_ptr(),
            stride: SIDE,
            accumulate: false,
            ..product
        };
        // SAFETY: the array has 32 rows of 32 elements.
        unsafe { ready.multiply(&whole) };
        for (i, sums) in sums.chunks_exact(SIDE).take(rows).enumerate() {
            // SAFETY: the caller's promise.
            let dst = unsafe { std::slice::from_raw_parts_mut(dst.add(i * stride), width) };
            for (dst, sum) in dst.iter_mut().zip(sums) {
                *dst = if accumulate { *dst + sum } else { *sum };
            }
        }
    }
}
