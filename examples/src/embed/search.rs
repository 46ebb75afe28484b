//! The pictures of a file of embeddings that are most similar to a text.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::retrieval::Shortlist;

use super::model::{self, Model};
use crate::data::CaptionBatch;
use crate::files::{
    self,
    safetensors::{self, Opened},
};
use crate::report::{Hits, SearchPage};
use crate::words::shown;

/// What to search, by what, and how much to show.
pub struct Search {
    /// The file that [`embed`](super::embed) wrote.
    pub embeddings: PathBuf,
    /// The weights that it was embedded by.
    pub weights: PathBuf,
    /// Their tokenizer, unless it lies beside them.
    pub tokenizer: Option<PathBuf>,
    /// What to look for.
    pub texts: Vec<String>,
    /// Pictures to a text.
    pub top: usize,
    /// The device.
    pub device: Device,
}

impl Search {
    /// Searches.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is none that `embed` wrote, or by other weights.
    pub fn run(&self) -> Result<Vec<Hits>> {
        ensure!(self.top > 0, "--top 0: at least one picture is to be shown");
        let Images {
            rows,
            paths,
            weights,
        } = Images::read(&self.embeddings, &self.device)?;
        ensure!(
            model::fingerprint(&self.weights)? == weights,
            "{} was embedded by other weights than {}",
            self.embeddings.display(),
            self.weights.display()
        );
        let model = Model::open(&self.weights, self.tokenizer.as_deref(), &self.device)?;
        let texts = CaptionBatch::read(&self.texts, &model.tokenizer, &self.device)?;
        let queries = model.encoders.captions(texts);
        let ([_, width], [_, own]) = (rows.dims(), queries.dims());
        ensure!(
            width == own,
            "an image has {width} numbers in {}, a text of these weights {own}",
            self.embeddings.display()
        );
        let numbers: Vec<f32> = queries.to_data().iter::<f32>().collect();
        if let Some(bad) = numbers.iter().position(|number| !number.is_finite()) {
            bail!(
                "{} gives {:?} an embedding with {}: nothing is near to that",
                self.weights.display(),
                shown(&self.texts[bad / width]),
                numbers[bad]
            );
        }
        let nearest = Shortlist::new(queries, rows, self.top);
        let hits = |(query, text): (usize, &String)| {
            let similarities = nearest.similarities(query).iter().copied();
            let found = nearest
                .candidates(query)
                .iter()
                .map(|&image| paths[image].clone());
            Hits {
                text: text.clone(),
                pictures: found.zip(similarities).collect(),
            }
        };
        Ok(self.texts.iter().enumerate().map(hits).collect())
    }

    /// The page of what was found: self-contained, with thumbnails.
    pub fn page(&self, hits: &[Hits]) -> String {
        let file = self.embeddings.display().to_string();
        SearchPage { file, hits }.to_html()
    }

    /// Writes that page, all of it or nothing.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_page(&self, hits: &[Hits], file: &Path) -> Result<()> {
        files::write(file, self.page(hits).as_bytes())
    }
}

/// The embeddings of images in a file, and where the images are.
struct Images {
    rows: Tensor<2>,
    paths: Vec<PathBuf>,
    /// The fingerprint of the weights.
    weights: String,
}

impl Images {
    fn read(path: &Path, device: &Device) -> Result<Self> {
        let Opened {
            mut file,
            metadata,
            start,
        } = safetensors::open(path)?;
        let failed = || format!("{} is no file that embed wrote", path.display());
        let notes = metadata.metadata().as_ref().with_context(failed)?;
        let paths = notes.get("paths").with_context(failed)?;
        let paths: Vec<PathBuf> = serde_json::from_str(paths).with_context(failed)?;
        let job = notes.get("job").with_context(failed)?;
        let weights = job.split(' ').next().unwrap_or_default().to_string();
        let image = metadata.info("image").with_context(failed)?;
        let [images, width] = image.shape[..] else {
            return Err(anyhow::anyhow!(failed()));
        };
        ensure!(
            image.dtype == Dtype::F32 && images == paths.len() && images > 0 && width > 0,
            failed()
        );
        let (from, to) = image.data_offsets;
        let mut bytes = vec![0; to - from];
        file.seek(SeekFrom::Start(start + from as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let words = bytes.as_chunks().0.iter();
        let values: Vec<f32> = words.map(|&word| f32::from_le_bytes(word)).collect();
        let rows = TensorData::new(values, [images, width]);
        Ok(Self {
            rows: Tensor::from_data(rows, device),
            paths,
            weights,
        })
    }
}
