//! Made-up pairs behind Burn's `DataLoader`, and a page for progress lines.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Interrupter;
use burn_contrastive_examples::data::Batch;
use burn_contrastive_examples::training::checkpoint::Cursor;

/// Batches an epoch.
pub const BATCHES: usize = 5;
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
    pub device: Device,
}

impl Pairs {
    pub fn new(device: &Device) -> Self {
        Self {
            next: Arc::default(),
            varied: true,
            event: Event::None,
            device: device.clone(),
        }
    }

    fn batch(&self, at: Cursor) -> Result<Batch, DatasetError> {
        let served = at.epoch * BATCHES + at.batch;
        let mut brightness = 1.0;
        match &self.event {
            Event::Interrupt(n, interrupter) if served == *n => interrupter.stop(Some("test")),
            Event::NotANumber(n) if served == *n => brightness = f32::NAN,
            Event::Unreadable(n) if served == *n => {
                return Err(DatasetError::new(io::Error::other(
                    "scene-17.png is damaged",
                )));
            }
            _ => {}
        }
        let pairs = 8;
        let shift = if self.varied { served } else { 0 };
        let words = |pair: usize| [(pair + shift) % 8, (3 * pair + 5 * shift) % 8];
        let mut pixels = Vec::new();
        let mut tokens = Vec::new();
        for pair in 0..pairs {
            let [a, b] = words(pair);
            for channel in 0..3 {
                for y in 0..SIZE {
                    for _ in 0..SIZE {
                        let word = if y < SIZE / 2 { a } else { b };
                        pixels.push(brightness * ((word >> channel) & 1) as f32);
                    }
                }
            }
            tokens.extend([1, 10 + a as i32, 20 + b as i32, 0]);
        }
        Ok(Batch {
            images: Tensor::from_data(
                TensorData::new(pixels, [pairs, 3, SIZE, SIZE]),
                &self.device,
            ),
            tokens: Tensor::from_data(TensorData::new(tokens, [pairs, 4]), &self.device),
            padding: Tensor::from_data(
                TensorData::new([false, false, false, true].repeat(pairs), [pairs, 4]),
                &self.device,
            ),
            image_ids: (0..pairs).collect(),
        })
    }
}

struct Epoch<'a> {
    pairs: &'a Pairs,
    at: Cursor,
}

impl Iterator for Epoch<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at.batch < BATCHES).then(|| {
            self.at.batch += 1;
            self.pairs.batch(Cursor {
                batch: self.at.batch - 1,
                ..self.at
            })
        })
    }
}

impl DataLoaderIterator<Batch> for Epoch<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.at.batch * 8, BATCHES * 8, None)
    }
}

impl DataLoader<Batch> for Pairs {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let mut next = self.next.lock().unwrap();
        let at = *next;
        *next = Cursor {
            epoch: at.epoch + 1,
            batch: 0,
        };
        Box::new(Epoch { pairs: self, at })
    }

    fn num_items(&self) -> usize {
        BATCHES * 8
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<Batch>> {
        unimplemented!("training does not slice")
    }
}

/// One batch, the same each time.
pub struct Validation(pub Pairs);

impl DataLoader<Batch> for Validation {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(Epoch {
            pairs: &self.0,
            at: Cursor {
                epoch: 0,
                batch: BATCHES - 1,
            },
        })
    }

    fn num_items(&self) -> usize {
        8
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self(Pairs {
            device: device.clone(),
            ..self.0.clone()
        }))
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<Batch>> {
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
