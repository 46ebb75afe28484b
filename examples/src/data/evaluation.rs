//! Every image and every caption of a split, once each: what a retrieval table embeds.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::data::dataset::DatasetError;
use burn::tensor::{Bool, Device, Int, Tensor};

use super::prefetch::Prefetch;
use super::source::failed;
use super::{CaptionTokenizer, Collection, Padding, Split, TransformConfig};

/// Some of an evaluation set's captions as tokens; row `i` of both fields belongs to caption `i` of
/// the batch.
#[derive(Clone, Debug)]
pub struct CaptionBatch {
    /// Token ids, `[batch, length]`, padded at the end.
    pub tokens: Tensor<2, Int>,
    /// True where `tokens` is padding, `[batch, length]`.
    pub padding: Tensor<2, Bool>,
}

impl CaptionBatch {
    /// The tokens of texts.
    ///
    /// # Errors
    ///
    /// If one cannot be tokenized.
    pub fn read(texts: &[String], tokenizer: &CaptionTokenizer, device: &Device) -> Result<Self> {
        let rows = texts.iter().map(|text| tokenizer.encode(text));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(Self::new(&rows, tokenizer.padding(), device))
    }

    /// The tokens of captions, padded to the longest.
    pub(crate) fn new(rows: &[Vec<u32>], padding: Padding, device: &Device) -> Self {
        let (tokens, padding) = padding.pad(rows).into_tensors(rows.len(), device);
        Self { tokens, padding }
    }
}

/// The images of a split in the order of the file, and all their captions, image by image.
#[derive(Clone)]
pub struct EvaluationSet {
    collection: Arc<Collection>,
    tokenizer: Arc<CaptionTokenizer>,
    transform: TransformConfig,
    workers: usize,
    /// Indices into the collection, one per image.
    indices: Vec<usize>,
    image_of_caption: Vec<usize>,
}

impl EvaluationSet {
    /// The images of `split`, decoded by `workers` threads.
    ///
    /// # Errors
    ///
    /// If `transform` is out of range, or `split` has no image.
    pub fn new(
        collection: Arc<Collection>,
        split: Split,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
        workers: usize,
    ) -> Result<Self> {
        Self::of(collection, Some(split), tokenizer, transform, workers)
    }

    /// The images of a split, or all, decoded by `workers` threads.
    ///
    /// # Errors
    ///
    /// If `transform` is out of range, or the split has no image.
    pub fn of(
        collection: Arc<Collection>,
        split: Option<Split>,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
        workers: usize,
    ) -> Result<Self> {
        transform.validate()?;
        let indices = match split {
            Some(split) => collection.indices(split),
            None => (0..collection.examples.len()).collect(),
        };
        ensure!(
            !indices.is_empty(),
            "{} has no image in split {}",
            collection.file.display(),
            split.map_or("all", Split::name)
        );
        let captions = indices
            .iter()
            .map(|&index| collection.examples[index].captions.len());
        let image_of_caption = captions
            .enumerate()
            .flat_map(|(image, count)| std::iter::repeat_n(image, count))
            .collect();
        Ok(Self {
            collection,
            tokenizer,
            transform,
            workers,
            indices,
            image_of_caption,
        })
    }

    /// Number of images.
    pub fn num_images(&self) -> usize {
        self.indices.len()
    }

    /// Number of captions.
    pub fn num_captions(&self) -> usize {
        self.image_of_caption.len()
    }

    /// For each caption, the index of its image, ascending.
    pub fn image_of_caption(&self) -> &[usize] {
        &self.image_of_caption
    }

    /// The path of image `image`; see [`Picture::path`](super::Picture::path).
    pub fn image_path(&self, image: usize) -> &Path {
        self.collection.examples[self.indices[image]].image.path()
    }

    /// For each image, its index in the collection.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// All captions, image by image.
    pub fn captions(&self) -> impl Iterator<Item = &str> {
        self.indices.iter().flat_map(|&index| {
            self.collection.examples[index]
                .captions
                .iter()
                .map(String::as_str)
        })
    }

    /// The collection this is a part of.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    /// All images in order, `[batch, 3, height, width]`; the last batch may be smaller. Ends after
    /// an error.
    ///
    /// # Panics
    ///
    /// If `batch_size` is 0.
    pub fn image_batches(
        &self,
        batch_size: usize,
        device: &Device,
    ) -> impl Iterator<Item = Result<Tensor<4>, DatasetError>> + use<> {
        self.image_batches_from(0, batch_size, device)
    }

    /// The same from the image `first` on.
    ///
    /// # Panics
    ///
    /// If `batch_size` is 0.
    pub fn image_batches_from(
        &self,
        first: usize,
        batch_size: usize,
        device: &Device,
    ) -> impl Iterator<Item = Result<Tensor<4>, DatasetError>> + use<> {
        assert!(batch_size > 0, "image_batches: batch_size is 0");
        let (collection, transform) = (self.collection.clone(), self.transform.clone());
        let indices = self.indices[first..].to_vec();
        let count = indices.len();
        let load = move |image: usize| -> Result<Vec<u8>> {
            Ok(transform.evaluate(&collection.decode(indices[image])?))
        };
        let ahead = self.transform.prefetch(self.workers);
        let mut images = Prefetch::new(count, self.workers, ahead, load);
        let (transform, device) = (self.transform.clone(), device.clone());
        let sizes = (0..count).step_by(batch_size);
        let sizes = sizes.map(move |start| batch_size.min(count - start));
        until_error(sizes.map(move |rows| {
            let mut values = Vec::with_capacity(rows * transform.values());
            for image in images.by_ref().take(rows) {
                match image {
                    Some(Ok(pixels)) => transform.normalise(&pixels, &mut values),
                    failure => return Err(failed(failure.and_then(Result::err))),
                }
            }
            Ok(transform.tensor(values, &device))
        }))
    }

    /// All captions in order as tokens; the last batch may be smaller. Ends after an error.
    ///
    /// # Panics
    ///
    /// If `batch_size` is 0.
    pub fn caption_batches(
        &self,
        batch_size: usize,
        device: &Device,
    ) -> impl Iterator<Item = Result<CaptionBatch, DatasetError>> + '_ {
        self.caption_batches_from(0, batch_size, device)
    }

    /// The same from the caption `first` on.
    ///
    /// # Panics
    ///
    /// If `batch_size` is 0.
    pub fn caption_batches_from(
        &self,
        first: usize,
        batch_size: usize,
        device: &Device,
    ) -> impl Iterator<Item = Result<CaptionBatch, DatasetError>> + '_ {
        assert!(batch_size > 0, "caption_batches: batch_size is 0");
        let device = device.clone();
        let mut captions = self.captions().enumerate().skip(first).peekable();
        until_error(std::iter::from_fn(move || {
            captions.peek()?;
            let encode = |(row, caption): (usize, &str)| {
                let place = || {
                    self.collection
                        .place(self.indices[self.image_of_caption[row]])
                };
                self.tokenizer.encode(caption).with_context(place)
            };
            let rows = captions
                .by_ref()
                .take(batch_size)
                .map(encode)
                .collect::<Result<Vec<_>>>();
            Some(match rows {
                Ok(rows) => Ok(CaptionBatch::new(&rows, self.tokenizer.padding(), &device)),
                Err(error) => Err(failed(Some(error))),
            })
        }))
    }
}

/// Everything up to the first error, that included.
fn until_error<T, E>(
    items: impl Iterator<Item = Result<T, E>>,
) -> impl Iterator<Item = Result<T, E>> {
    let mut over = false;
    let mut items = items;
    std::iter::from_fn(move || {
        let item = if over { None } else { items.next() };
        over = matches!(item, None | Some(Err(_)));
        item
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode;
    use crate::data::testing::{Small, truncate};

    fn set(small: &Small) -> EvaluationSet {
        let (collection, tokenizer) = (small.collection.clone(), small.tokenizer.clone());
        EvaluationSet::new(
            collection,
            Split::Test,
            tokenizer,
            small.transform.clone(),
            2,
        )
        .unwrap()
    }

    #[test]
    fn every_image_and_every_caption_occurs_once_in_order() {
        let small = Small::new();
        let set = set(&small);
        let device = Device::default();
        assert_eq!((set.num_images(), set.num_captions()), (10, 50));
        assert_eq!(set.image_of_caption()[..6], [0, 0, 0, 0, 0, 1]);

        let images: Vec<_> = set.image_batches(4, &device).map(Result::unwrap).collect();
        assert_eq!(
            images
                .iter()
                .map(|batch| batch.dims()[0])
                .collect::<Vec<_>>(),
            [4, 4, 2]
        );
        let images: Vec<f32> = Tensor::cat(images, 0).into_data().try_into_vec().unwrap();
        let mut expected = Vec::new();
        for image in 0..10 {
            let image = decode(set.image_path(image)).unwrap();
            let pixels = small.transform.evaluate(&image);
            small.transform.normalise(&pixels, &mut expected);
        }
        assert_eq!(images, expected);

        let mut lengths = Vec::new();
        let mut captions = set.captions();
        for batch in set.caption_batches(12, &device) {
            let batch = batch.unwrap();
            let [rows, length] = batch.tokens.dims();
            lengths.push(rows);
            let ids: Vec<i64> = batch
                .tokens
                .into_data()
                .convert::<i64>()
                .try_into_vec()
                .unwrap();
            let padding: Vec<bool> = batch
                .padding
                .into_data()
                .convert::<bool>()
                .try_into_vec()
                .unwrap();
            for row in 0..rows {
                let span = row * length..(row + 1) * length;
                let real: Vec<u32> = ids[span.clone()]
                    .iter()
                    .zip(&padding[span])
                    .filter(|(_, pad)| !**pad)
                    .map(|(&id, _)| id as u32)
                    .collect();
                assert_eq!(
                    real,
                    small.tokenizer.encode(captions.next().unwrap()).unwrap()
                );
            }
        }
        assert_eq!(lengths, [12, 12, 12, 12, 2]);
        assert!(captions.next().is_none());
    }

    #[test]
    fn an_image_that_breaks_after_the_collection_was_read_is_an_error_with_its_place() {
        let small = Small::new();
        let set = set(&small);
        truncate(set.image_path(3));
        let results: Vec<_> = set.image_batches(2, &Device::default()).collect();
        let error = results.last().unwrap().as_ref().unwrap_err().to_string();
        assert!(
            error.contains("000050.png") && error.contains("images[50]"),
            "{error}"
        );
        assert_eq!(results.len(), 2);
    }
}
