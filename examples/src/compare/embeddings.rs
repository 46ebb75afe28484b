//! Embeddings in safetensors files, in the form that `audit` reads.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{DType, Device, Tensor};
use safetensors::Dtype;
use serde_json::Map;

use super::trial::Teacher;
use crate::audit::tensors::Embeddings;
use crate::files::safetensors::header;
use crate::files::{self, Partial};

/// Writes matrices and lists of integers, each with its name: all of the file or nothing.
///
/// # Errors
///
/// If it cannot be written.
pub fn write(
    path: &Path,
    matrices: &[(&str, &Tensor<2>)],
    lists: &[(&str, &[usize])],
) -> Result<()> {
    let shapes: Vec<_> = matrices.iter().map(|(_, matrix)| matrix.dims()).collect();
    let lengths: Vec<_> = lists.iter().map(|(_, list)| [list.len()]).collect();
    let floats = matrices.iter().zip(&shapes);
    let floats = floats.map(|((name, _), shape)| (name.to_string(), Dtype::F32, &shape[..]));
    let integers = lists.iter().zip(&lengths);
    let integers = integers.map(|((name, _), length)| (name.to_string(), Dtype::I64, &length[..]));
    let mut file = Partial::create(path)?;
    file.write(&header(floats.chain(integers), Map::new()))?;
    for (_, matrix) in matrices {
        let data = (*matrix).clone().cast(DType::F32).into_data();
        let values = data.iter::<f32>();
        file.write(&values.flat_map(f32::to_le_bytes).collect::<Vec<_>>())?;
    }
    for (_, list) in lists {
        let values = list.iter().map(|&value| value as i64);
        file.write(&values.flat_map(i64::to_le_bytes).collect::<Vec<_>>())?;
    }
    files::commit([file])
}

impl Teacher {
    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(path: &Path, device: &Device) -> Result<Self> {
        let read = Embeddings::read(path, device, false)?;
        Ok(Self {
            images: read.image,
            texts: read.features.text,
        })
    }

    /// Writes the embeddings; `image_of_caption` as in [`Part`](super::data::Part).
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn write(&self, path: &Path, image_of_caption: &[usize]) -> Result<()> {
        let matrices = [("image", &self.images), ("text", &self.texts)];
        write(path, &matrices, &[("image_id", image_of_caption)])
    }
}
