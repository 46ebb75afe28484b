//! The file of gradients, written one objective at a time: no more than one objective's are ever
//! held.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{DType, Tensor};
use safetensors::Dtype;
use serde_json::Map;

use crate::files::Partial;
use crate::files::safetensors::header;

/// A safetensors file of `NAME.image` and `NAME.text`, f32, in the making.
pub struct GradientFile {
    file: Partial,
}

impl GradientFile {
    /// Begins the file: its header needs the names, and the shapes of the gradients by image and
    /// text.
    pub fn create<'a>(
        path: &Path,
        names: impl Iterator<Item = &'a str>,
        shapes: [[usize; 2]; 2],
    ) -> Result<Self> {
        let sides = || ["image", "text"].into_iter().zip(&shapes);
        let tensors = names.flat_map(|name| sides().map(move |side| (name, side)));
        let tensors =
            tensors.map(|(name, (side, shape))| (format!("{name}.{side}"), Dtype::F32, &shape[..]));
        let mut file = Partial::create(path)?;
        file.write(&header(tensors, Map::new()))?;
        Ok(Self { file })
    }

    /// Appends the gradients of the next objective, in the order of the names.
    pub fn append(&mut self, gradients: [Tensor<2>; 2]) -> Result<()> {
        for gradient in gradients {
            let data = gradient.cast(DType::F32).into_data();
            let numbers = data.as_slice::<f32>().expect("f32");
            for piece in numbers.chunks(1 << 16) {
                let bytes: Vec<u8> = piece.iter().flat_map(|x| x.to_le_bytes()).collect();
                self.file.write(&bytes)?;
            }
        }
        Ok(())
    }

    /// The file, complete but for its name.
    pub fn finish(self) -> Partial {
        self.file
    }
}
