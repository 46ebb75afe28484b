//! The safetensors format: read in pieces, converted to f32 or f64 on the way, checked row by row.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::{Metadata, TensorInfo};
use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};

use crate::files::safetensors::{self, Opened};

/// A file whose header has been read.
pub(super) struct TensorFile {
    reader: BufReader<File>,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: u64,
}

impl TensorFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let Opened {
            file,
            metadata,
            start,
        } = safetensors::open(path)?;
        Ok(Self {
            reader: BufReader::with_capacity(1 << 20, file),
            metadata,
            start,
        })
    }

    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// The names of the tensors, in the order of their bytes.
    pub(super) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Calls `each` with every element's bytes.
    fn elements(&mut self, name: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let info = self
            .info(name)
            .expect("the caller checks that it is present");
        let (begin, end) = info.data_offsets;
        let width = info.dtype.bitsize() / 8;
        let at = self.start + begin as u64;
        let failed = || format!("`{name}` could not be read");
        self.reader.seek(SeekFrom::Start(at)).with_context(failed)?;
        // A multiple of every width.
        let mut piece = vec![0; (1 << 20).min(end - begin)];
        let mut left = end - begin;
        while left > 0 {
            let piece = &mut piece[..left.min(1 << 20)];
            self.reader.read_exact(piece).with_context(failed)?;
            piece.chunks_exact(width).try_for_each(&mut each)?;
            left -= piece.len();
        }
        Ok(())
    }

    /// The values of a tensor, all finite.
    pub(super) fn floats<T: Float>(&mut self, name: &str) -> Result<Vec<T>> {
        let info = self
            .info(name)
            .expect("the caller checks that it is present");
        let (dtype, shape) = (info.dtype, info.shape.clone());
        let read: fn(&[u8]) -> T = match dtype {
            Dtype::F16 => |x| T::from_f32(f16::from_le_bytes(array(x)).to_f32()),
            Dtype::BF16 => |x| T::from_f32(bf16::from_le_bytes(array(x)).to_f32()),
            Dtype::F32 => |x| T::from_f32(f32::from_le_bytes(array(x))),
            Dtype::F64 => |x| T::from_f64(f64::from_le_bytes(array(x))),
            other => bail!("`{name}` is {other:?}, it must be F16, BF16, F32 or F64"),
        };
        let mut values = room(name, shape.iter().product())?;
        self.elements(name, |bytes| {
            let value = read(bytes);
            ensure!(
                value.is_finite(),
                "`{name}` holds {value} in row {}: all numbers must be finite",
                values.len() / shape[1..].iter().product::<usize>()
            );
            values.push(value);
            Ok(())
        })?;
        Ok(values)
    }

    /// Integers, one for each pair.
    pub(super) fn integers(&mut self, name: &str, n: usize) -> Result<Vec<i128>> {
        let info = self
            .info(name)
            .expect("the caller checks that it is present");
        ensure!(
            info.shape == [n],
            "`{name}` has shape {:?}, it must be [{n}]: a number for each pair",
            info.shape
        );
        let read: fn(&[u8]) -> i128 = match info.dtype {
            Dtype::I8 => |x| i8::from_le_bytes(array(x)).into(),
            Dtype::U8 => |x| x[0].into(),
            Dtype::I16 => |x| i16::from_le_bytes(array(x)).into(),
            Dtype::U16 => |x| u16::from_le_bytes(array(x)).into(),
            Dtype::I32 => |x| i32::from_le_bytes(array(x)).into(),
            Dtype::U32 => |x| u32::from_le_bytes(array(x)).into(),
            Dtype::I64 => |x| i64::from_le_bytes(array(x)).into(),
            Dtype::U64 => |x| u64::from_le_bytes(array(x)).into(),
            other => bail!("`{name}` is {other:?}, it must be of whole numbers, such as I64"),
        };
        let mut integers = room(name, n)?;
        self.elements(name, |bytes| {
            integers.push(read(bytes));
            Ok(())
        })?;
        Ok(integers)
    }
}

/// A type to convert floats to.
pub(super) trait Float: Copy + std::fmt::Display {
    fn from_f32(x: f32) -> Self;
    fn from_f64(x: f64) -> Self;
    fn is_finite(self) -> bool;
}

impl Float for f32 {
    fn from_f32(x: f32) -> Self {
        x
    }
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

impl Float for f64 {
    fn from_f32(x: f32) -> Self {
        x.into()
    }
    fn from_f64(x: f64) -> Self {
        x
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as many bytes as the dtype has")
}

/// An empty vector with room for as many values.
fn room<T>(name: &str, count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let reserved = values.try_reserve_exact(count);
    reserved.with_context(|| format!("`{name}` does not fit in memory"))?;
    Ok(values)
}
