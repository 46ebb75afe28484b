//! Made-up pairs behind Burn's `DataLoader`, and a page for progress lines.

use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive_examples::data::{
    FeaturePair, LabelledImage, Padding, Pair, RegionPair, Regions, Shard, SpecialTokens,
    TransformConfig,
};
use burn_contrastive_examples::training::checkpoint::Cursor;

/// Batches an epoch.
pub const BATCHES: usize = 5;
/// Pairs a batch.
pub const PAIRS: usize = 8;
const SIZE: usize = 16;

/// What happens when the loader serves its n-th batch, counted over all epochs from 0.
#[derive(Clone)]
pub enum Event {
    None,
    Interrupt(usize, Interrupter),
    NotANumber(usize),
    Unreadable(usize),
}

/// Batches that depend on epoch and index only. Each pair is a caption of two words and an image in
/// the colours of these words.
#[derive(Clone)]
pub struct Pairs {
    pub next: Arc<Mutex<Cursor>>,
    pub varied: bool,
    pub event: Event,
    /// Pairs of a shard.
    pub shard: usize,
    /// The tokens that stand for no word.
    pub specials: SpecialTokens,
}

impl Pairs {
    pub fn new(shard: usize) -> Self {
        Self {
            next: Arc::default(),
            varied: true,
            event: Event::None,
            shard,
            specials: SpecialTokens {
                first: Some(1),
                last: None,
                mask: Some(3),
            },
        }
    }

    /// The batch at a place, counted over all epochs from 0.
    pub fn batch(&self, at: Cursor) -> Result<Vec<Shard>, DatasetError> {
        let served = at.epoch * BATCHES + at.batch;
        // Pixels are their values.
        let mut transform = TransformConfig {
            size: SIZE as u32,
            mean: [0.0; 3],
            std: [1.0 / 255.0; 3],
            ..TransformConfig::default()
        };
        match &self.event {
            Event::Interrupt(n, interrupter) if served == *n => interrupter.stop(Some("test")),
            Event::NotANumber(n) if served == *n => transform.mean = [f32::NAN; 3],
            Event::Unreadable(n) if served == *n => {
                return Err(DatasetError::new(io::Error::other(
                    "scene-17.png is damaged",
                )));
            }
            _ => {}
        }
        let shift = if self.varied { served } else { 0 };
        let words = |pair: usize| [(pair + shift) % 8, (3 * pair + 5 * shift) % 8];
        let pair = |image_id: usize| {
            let [a, b] = words(image_id);
            let rows = (0..3).flat_map(|channel| (0..SIZE).map(move |y| (channel, y)));
            let pixels = rows.flat_map(|(channel, y)| {
                let word = if y < SIZE / 2 { a } else { b };
                [((word >> channel) & 1) as u8; SIZE]
            });
            let mut tokens = vec![1, 10 + a as u32, 20 + b as u32];
            if image_id == 0 {
                // Its shard is padded to sixteen tokens, the others to eight.
                tokens.resize(9, 2);
            }
            Pair {
                pixels: pixels.collect(),
                tokens,
                image_id,
                meaning: image_id,
            }
        };
        let pairs: Vec<_> = (0..PAIRS).map(pair).collect();
        let shard = |pairs: &[Pair]| Shard {
            items: pairs.to_vec(),
            transform: transform.clone(),
            padding: Padding {
                id: 0,
                context_length: 16,
                specials: self.specials,
            },
        };
        Ok(pairs.chunks(self.shard).map(shard).collect())
    }
}

struct Epoch<'a, T> {
    pairs: &'a Pairs,
    at: Cursor,
    items: PhantomData<T>,
}

impl<T: OfPair> Iterator for Epoch<'_, T> {
    type Item = Result<Vec<Shard<T>>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at.batch < BATCHES).then(|| {
            self.at.batch += 1;
            let shards = self.pairs.batch(Cursor {
                batch: self.at.batch - 1,
                ..self.at
            })?;
            Ok(shards.into_iter().map(of_items).collect())
        })
    }
}

/// The item of a system that a made-up pair becomes.
pub trait OfPair {
    fn of_pair(pair: Pair) -> Self;
}

impl OfPair for Pair {
    fn of_pair(pair: Pair) -> Self {
        pair
    }
}

impl OfPair for FeaturePair {
    fn of_pair(pair: Pair) -> Self {
        pair.into()
    }
}

/// Each half of the image is a region, whose feature is its colour; of the first image only the
/// upper one.
impl OfPair for RegionPair {
    fn of_pair(pair: Pair) -> Self {
        let halves = if pair.image_id == 0 { 1 } else { 2 };
        let colour = |half: usize| {
            let first = half * SIZE * SIZE / 2;
            (0..3).map(move |channel| channel * SIZE * SIZE + first)
        };
        let pixels = (0..halves).flat_map(colour);
        let sides = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0]];
        Self {
            regions: Regions {
                features: pixels.map(|at| pair.pixels[at].into()).collect(),
                boxes: sides[..halves].to_vec(),
            },
            tags: Vec::new(),
            room: 2,
            tokens: pair.tokens,
            image_id: pair.image_id,
            meaning: pair.meaning,
        }
    }
}

/// The classes of an image are the colours that its first word has; of the first image the last is
/// unknown.
impl OfPair for LabelledImage {
    fn of_pair(pair: Pair) -> Self {
        let word = pair.tokens[1] - 10;
        let label = |class: usize| {
            let is_known = pair.image_id > 0 || class < 2;
            is_known.then_some((word >> class) & 1 == 1)
        };
        Self {
            labels: (0..3).map(label).collect(),
            pixels: pair.pixels,
            index: pair.image_id,
        }
    }
}

/// The same shard with its pairs as the items of a system.
pub fn of_items<T: OfPair>(shard: Shard) -> Shard<T> {
    Shard {
        items: shard.items.into_iter().map(T::of_pair).collect(),
        transform: shard.transform,
        padding: shard.padding,
    }
}

impl<T: OfPair> DataLoaderIterator<Vec<Shard<T>>> for Epoch<'_, T> {
    fn progress(&self) -> Progress {
        Progress::new(self.at.batch * PAIRS, BATCHES * PAIRS, None)
    }
}

impl<T: OfPair + Send + Sync + 'static> DataLoader<Vec<Shard<T>>> for Pairs {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Vec<Shard<T>>> + 'a> {
        let mut next = self.next.lock().unwrap();
        let at = *next;
        *next = Cursor {
            epoch: at.epoch + 1,
            batch: 0,
        };
        Box::new(Epoch {
            pairs: self,
            at,
            items: PhantomData,
        })
    }

    fn num_items(&self) -> usize {
        BATCHES * PAIRS
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<Vec<Shard<T>>>> {
        Arc::new(self.clone())
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<Vec<Shard<T>>>> {
        unimplemented!("training does not slice")
    }
}

/// One batch, the same each time.
pub struct Validation(pub Pairs);

impl<T: OfPair + Send + Sync + 'static> DataLoader<Vec<Shard<T>>> for Validation {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Vec<Shard<T>>> + 'a> {
        Box::new(Epoch {
            pairs: &self.0,
            at: Cursor {
                epoch: 0,
                batch: BATCHES - 1,
            },
            items: PhantomData,
        })
    }

    fn num_items(&self) -> usize {
        PAIRS
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<Vec<Shard<T>>>> {
        Arc::new(Self(self.0.clone()))
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<Vec<Shard<T>>>> {
        unimplemented!("training does not slice")
    }
}

/// What the progress lines were written to.
#[derive(Clone, Default)]
pub struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}
