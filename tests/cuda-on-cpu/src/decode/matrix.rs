//! Products of small matrices by a warp: `wmma`.

use super::{Opcode, Operands, Type};
use crate::memory::{Kind, Space, place, read, write};
use crate::number::{Bf16, F16, Float, Lane, Rounding};
use crate::program::Decoder;
use crate::warp::{Action, Exec, LANES, Reg, Warp};

/// How the elements of a matrix lie in the registers of a warp. PTX leaves that open; here each
/// lane has as many, one after another by row or by column. A product that takes a layout for
/// another one is wrong, as on hardware.
#[derive(Clone, Debug)]
struct Fragment {
    registers: Vec<Reg>,
    rows: usize,
    columns: usize,
    by_row: bool,
    kind: Type,
}

impl Fragment {
    fn new(
        registers: Vec<Reg>,
        [rows, columns]: [usize; 2],
        by_row: bool,
        kind: Type,
    ) -> Result<Self, String> {
        let fragment = Self {
            registers,
            rows,
            columns,
            by_row,
            kind,
        };
        let [held, needed] = [
            fragment.registers.len() * fragment.packed(),
            fragment.each(),
        ];
        // Of f16, A and B have each element twice.
        if held != needed && !(kind == Type::F16 && held == 2 * needed) {
            return Err(format!(
                "{held} elements in the registers of a lane, not {needed}"
            ));
        }
        Ok(fragment)
    }

    /// Elements of a register, and of a lane.
    fn packed(&self) -> usize {
        if self.kind.bits() == 16 { 2 } else { 1 }
    }

    fn each(&self) -> usize {
        self.rows * self.columns / LANES
    }

    /// Where the elements of a lane are: its first, by row or by column.
    fn place_of(&self, element: usize) -> [usize; 2] {
        if self.by_row {
            [element / self.columns, element % self.columns]
        } else {
            [element % self.rows, element / self.rows]
        }
    }

    fn get(&self, warp: &Warp, lane: usize, k: usize) -> u64 {
        let packed = self.packed();
        warp.registers[self.registers[k / packed]][lane] >> (16 * (k % packed))
    }

    fn set(&self, warp: &mut Warp, lane: usize, k: usize, value: u64) {
        let packed = self.packed();
        let registers = self.registers.len() * packed;
        for k in (k..registers).step_by(self.each()) {
            let register = &mut warp.registers[self.registers[k / packed]][lane];
            *register = match k % packed {
                0 => value,
                _ => *register & 0xffff | (value & 0xffff) << 16,
            };
        }
    }

    /// Its elements by row.
    fn elements(&self, warp: &Warp) -> Vec<f32> {
        let mut elements = vec![0.0; self.rows * self.columns];
        let each = self.each();
        for lane in 0..LANES {
            for k in 0..each {
                let [row, column] = self.place_of(lane * each + k);
                let bits = self.get(warp, lane, k);
                elements[row * self.columns + column] = match self.kind {
                    Type::F16 => F16::get(bits).single(),
                    Type::Bf16 => Bf16::get(bits).single(),
                    // The unit does not see what tf32 has not.
                    Type::Tf32 => f32::from_bits(bits as u32 & !0x1fff),
                    _ => f32::get(bits),
                };
            }
        }
        elements
    }

    fn keep(&self, warp: &mut Warp, elements: &[f32]) {
        let each = self.each();
        for lane in 0..LANES {
            for k in 0..each {
                let [row, column] = self.place_of(lane * each + k);
                let x = elements[row * self.columns + column];
                let bits = match self.kind {
                    Type::F16 => F16::rounded(x.into(), Rounding::Nearest).put(),
                    _ => x.put(),
                };
                self.set(warp, lane, k, bits);
            }
        }
    }
}

pub fn action(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Action, String> {
    let exec = match (op.name, op.parts.first().copied()) {
        ("wmma", Some("load")) => access(d, op, x, Kind::Read)?,
        ("wmma", Some("store")) => access(d, op, x, Kind::Write)?,
        ("wmma", Some("mma")) => product(d, op, x)?,
        _ => return Err("matrices by other instructions than wmma".into()),
    };
    Ok(Action::Together(None, exec))
}

/// The sides of `m16n16k16`.
fn shape(op: &Opcode) -> Result<[usize; 3], String> {
    let shape = op.parts.iter().find_map(|part| {
        let (m, rest) = part.strip_prefix('m')?.split_once('n')?;
        let (n, k) = rest.split_once('k')?;
        Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
    });
    shape.ok_or_else(|| "no shape".into())
}

/// Whether each matrix lies by row, of those that say so.
fn layouts(op: &Opcode) -> Vec<bool> {
    let parts = op.parts.iter().filter(|part| ["row", "col"].contains(part));
    parts.map(|part| *part == "row").collect()
}

fn of_vector(d: &mut Decoder, x: &Operands, k: usize) -> Result<Vec<Reg>, String> {
    x.vector(k)?
        .into_iter()
        .map(|name| d.register(name))
        .collect()
}

/// `wmma.load.a.sync.aligned.row.shape.space.type {registers}, [address], stride`, and the store.
fn access(d: &mut Decoder, op: &Opcode, x: &Operands, kind: Kind) -> Result<Exec, String> {
    let [m, n, k] = shape(op)?;
    let sides = match op.parts.get(1).copied() {
        Some("a") => [m, k],
        Some("b") => [k, n],
        _ => [m, n],
    };
    let [by_row] = layouts(op)[..] else {
        return Err("other than one layout".into());
    };
    let reads = kind == Kind::Read;
    let registers = of_vector(d, x, usize::from(!reads))?;
    // What is accumulated is the same in either layout.
    let of_result = !matches!(op.parts.get(1), Some(&"a" | &"b"));
    let fragment = Fragment::new(registers, sides, by_row || of_result, op.last_type()?)?;
    let (base, offset, _) = d.address(x.get(usize::from(reads))?)?;
    let stride = match x.len() {
        3 => d.operand(x.get(2)?)?,
        _ => d.constant(sides[usize::from(by_row)] as u64),
    };
    let space = match () {
        () if op.has("shared") => Space::Shared,
        () if op.has("global") => Space::Global,
        () => Space::Generic,
    };
    let bytes = op.last_type()?.bytes();
    Ok(Box::new(move |warp, block, mask| {
        let first = warp.registers[base][0].wrapping_add(offset);
        let stride = warp.registers[stride][0] as u32 as usize;
        let same = |lane: usize| warp.registers[base][lane].wrapping_add(offset) == first;
        if mask.count_ones() < 32 || !(0..LANES).all(same) {
            return Err("lanes of a warp have different matrices".into());
        }
        // Each row or column must be aligned to the bytes of a lane's registers.
        let aligned = 4 * fragment.registers.len();
        if ![first as usize, stride * bytes]
            .iter()
            .all(|x| x.is_multiple_of(aligned))
        {
            return Err(
                format!("a matrix at {first:x}, in steps of {stride}, is misaligned").into(),
            );
        }
        let each = fragment.each();
        for lane in 0..LANES {
            for k in 0..each {
                let [row, column] = fragment.place_of(lane * each + k);
                let at = if by_row {
                    row * stride + column
                } else {
                    column * stride + row
                };
                let address = (space, first + (at * bytes) as u64, lane);
                let there = place((warp, block), address, bytes, kind)?;
                if reads {
                    fragment.set(warp, lane, k, read(there, bytes));
                } else {
                    write(there, bytes, fragment.get(warp, lane, k));
                }
            }
        }
        Ok(())
    }))
}

/// `wmma.mma.sync.aligned.row.col.shape.types {d}, {a}, {b}, {c}`.
fn product(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let [m, n, k] = shape(op)?;
    let [a_by_row, b_by_row] = layouts(op)[..] else {
        return Err("other than two layouts".into());
    };
    if op.has("satfinite") {
        return Err("finite results alone".into());
    }
    // Of f16 factors the types of results are named alone.
    let [to, factor, from] = match op.types()[..] {
        [to, from] => [to, Type::F16, from],
        [to, a, b, from] if a == b => [to, a, from],
        _ => return Err("types".into()),
    };
    if !matches!(factor, Type::F16 | Type::Bf16 | Type::Tf32) {
        return Err(format!("factors of {factor:?}"));
    }
    let result = Fragment::new(of_vector(d, x, 0)?, [m, n], true, to)?;
    let a = Fragment::new(of_vector(d, x, 1)?, [m, k], a_by_row, factor)?;
    let b = Fragment::new(of_vector(d, x, 2)?, [k, n], b_by_row, factor)?;
    let c: Vec<Reg> = x
        .vector(3)?
        .into_iter()
        .map(|name| d.operand(name))
        .collect::<Result<_, _>>()?;
    let c = Fragment::new(c, [m, n], true, from)?;
    Ok(Box::new(move |warp, _, _| {
        let (a, b) = (a.elements(warp), b.elements(warp));
        let mut sums = c.elements(warp);
        multiply([m, n, k], &a, &b, &mut sums);
        result.keep(warp, &sums);
        Ok(())
    }))
}

/// Products that are summed before the sum is rounded.
const TOGETHER: usize = 8;

/// Adds a product to sums. Products are exact; eight of them and the sum so far are added, and the
/// result is rounded towards zero, as the units of GPUs are found to do it. (They also drop digits
/// of addends that are much smaller than the largest.)
fn multiply([m, n, k]: [usize; 3], a: &[f32], b: &[f32], sums: &mut [f32]) {
    let mut wide = vec![0f64; n];
    for i in 0..m {
        let sums = &mut sums[i * n..][..n];
        for start in (0..k).step_by(TOGETHER) {
            for (wide, sum) in wide.iter_mut().zip(sums.iter()) {
                *wide = f64::from(*sum);
            }
            for l in start..k.min(start + TOGETHER) {
                let factor = f64::from(a[i * k + l]);
                for (wide, b) in wide.iter_mut().zip(&b[l * n..][..n]) {
                    *wide += factor * f64::from(*b);
                }
            }
            for (sum, wide) in sums.iter_mut().zip(&wide) {
                *sum = towards_zero(*wide);
            }
        }
    }
}

fn towards_zero(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest).abs() > x.abs() && nearest.is_finite() {
        return f32::from_bits(nearest.to_bits() - 1);
    }
    nearest
}
