//! The features of the last batches, as negatives of the next.

use burn::config::Config;
use burn::module::{Module, Param, ParamId};
use burn::tensor::kind::{Autodiff, Basic};
use burn::tensor::{Device, Int, Tensor};

use crate::check::{self, ConfigError};
use crate::tensor::{constant_in, constant_like};

/// Configuration of a [`FeatureQueue`].
#[derive(Config, Debug, PartialEq)]
pub struct FeatureQueueConfig {
    /// Width D of the features.
    pub width: usize,
    /// Number of pairs that the queue can hold. Default 65,536 (MoCo, ALBEF).
    #[config(default = 65_536)]
    pub capacity: usize,
    /// Width E of a teacher's features, if the queue holds them too. Default: it does not.
    #[config(default = "None")]
    pub teacher_width: Option<usize>,
}

impl FeatureQueueConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// If `capacity` or a width is 0.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("width", self.width),
            ("capacity", self.capacity),
            ("teacher_width", self.teacher_width.unwrap_or(1)),
        ] {
            check::range("FeatureQueueConfig", field, value as f64, 1.0, f64::MAX)?;
        }
        Ok(())
    }

    /// Builds an empty queue on `device`.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) returns an error.
    #[track_caller]
    pub fn init(&self, device: &Device) -> FeatureQueue {
        check::or_panic(self.check());
        let features = |width| {
            let zeros = Tensor::<2>::zeros([self.capacity, width], device);
            Param::from_tensor(zeros).set_require_grad(false)
        };
        let integers = |values| Param::initialized(ParamId::new(), values);
        FeatureQueue {
            image: features(self.width),
            text: features(self.width),
            teacher_image: self.teacher_width.map(features),
            teacher_text: self.teacher_width.map(features),
            ids: integers(Tensor::full([self.capacity], NO_ID, device)),
            cursor: integers(Tensor::zeros([2], device)),
        }
    }
}

/// The id of a pair that was pushed without one.
const NO_ID: i32 = -1;

/// Features of pairs, with their ids and a teacher's features where there are any: what a queue
/// takes and gives.
#[derive(Clone, Debug)]
pub struct PairFeatures {
    /// Features of the images, `[N, D]`.
    pub image: Tensor<2>,
    /// Features of the texts, `[N, D]`.
    pub text: Tensor<2>,
    /// Pairs with equal ids match each other, such as captions of one image, `[N]`; not negative.
    /// A queue gives −1 for pairs that were pushed without ids.
    pub ids: Option<Tensor<1, Int>>,
    /// A teacher's features of the images, `[N, E]`.
    pub teacher_image: Option<Tensor<2>>,
    /// A teacher's features of the texts, `[N, E]`.
    pub teacher_text: Option<Tensor<2>>,
}

impl PairFeatures {
    /// Features without ids and without a teacher's.
    pub fn new(image: Tensor<2>, text: Tensor<2>) -> Self {
        Self {
            image,
            text,
            ids: None,
            teacher_image: None,
            teacher_text: None,
        }
    }

    /// With ids, `[N]`.
    pub fn with_ids(self, ids: Tensor<1, Int>) -> Self {
        Self {
            ids: Some(ids),
            ..self
        }
    }

    /// With a teacher's features, `[N, E]` each.
    pub fn with_teacher(self, image: Tensor<2>, text: Tensor<2>) -> Self {
        Self {
            teacher_image: Some(image),
            teacher_text: Some(text),
            ..self
        }
    }

    /// The same values as constants that can be compared with `embeddings`: in their dtype, and on
    /// an autodiff device if they are.
    pub fn like(self, embeddings: &Tensor<2>) -> Self {
        let dtype = embeddings.dtype();
        let like = |x: Tensor<2>| constant_like(x.without_autodiff().cast(dtype), embeddings);
        Self {
            image: like(self.image),
            text: like(self.text),
            ids: self.ids.map(|ids| constant_like(ids, embeddings)),
            teacher_image: self.teacher_image.map(like),
            teacher_text: self.teacher_text.map(like),
        }
    }
}

/// The features of the last batches, as negatives of the next; built by
/// [`FeatureQueueConfig::init`].
///
/// A ring: new pairs overwrite the oldest. Batches may have any size, also more pairs than the
/// queue can hold. Everything, the position of the next row included, is kept in parameters that
/// are not trained, so that a record restores the queue exactly.
///
/// Features are constants on the queue's device: an autodiff device if the queue was built on one,
/// so that objectives take them beside tracked features; without autodiff in `queue.valid()`.
///
/// Source: He et al. 2020 (MoCo); Li et al. 2021 (ALBEF).
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::negatives::{FeatureQueueConfig, PairFeatures};
/// use burn_contrastive::objective::{InfoNceConfig, Negatives};
///
/// let device = Device::default();
/// let mut queue = FeatureQueueConfig::new(3).with_capacity(5).init(&device);
/// assert!(queue.features().is_none());
/// for _ in 0..3 {
///     let batch = Tensor::<2>::ones([2, 3], &device);
///     queue = queue.push(PairFeatures::new(batch.clone(), batch));
/// }
/// assert_eq!(queue.len(), 5);
///
/// let queued = queue.features().unwrap();
/// let negatives = Negatives::queue(queued.image, queued.text);
/// let batch = Tensor::<2>::ones([2, 3], &device);
/// let objective = InfoNceConfig::new().init(&device);
/// let loss = objective.forward_with(batch.clone(), batch, negatives);
/// assert!((loss.into_scalar::<f32>() - 7f32.ln()).abs() < 1e-5);
/// ```
#[derive(Module, Debug)]
pub struct FeatureQueue {
    image: Param<Tensor<2>>,
    text: Param<Tensor<2>>,
    teacher_image: Option<Param<Tensor<2>>>,
    teacher_text: Option<Param<Tensor<2>>>,
    ids: Param<Tensor<1, Int>>,
    /// The index of the next row, and the number of rows that are filled.
    cursor: Param<Tensor<1, Int>>,
}

impl FeatureQueue {
    /// The number of pairs that it can hold.
    pub fn capacity(&self) -> usize {
        self.image.dims()[0]
    }

    /// The width of the features.
    pub fn width(&self) -> usize {
        self.image.dims()[1]
    }

    /// The width of a teacher's features, if it holds them too.
    pub fn teacher_width(&self) -> Option<usize> {
        self.teacher_image
            .as_ref()
            .map(|features| features.dims()[1])
    }

    /// The number of pairs that it holds. Reads two integers back from the device.
    pub fn len(&self) -> usize {
        self.read_cursor()[1]
    }

    /// Whether it holds no pair.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pairs that it holds, `[len, …]` each; `None` if it is empty.
    ///
    /// Features are in the queue's dtype: [`PairFeatures::like`] casts them. Rows are ordered from
    /// the oldest to the newest until the queue is full, and rotated from then on.
    pub fn features(&self) -> Option<PairFeatures> {
        let len = self.len();
        let filled = |x: &Param<Tensor<2>>| x.val().narrow(0, 0, len);
        (len > 0).then(|| PairFeatures {
            image: filled(&self.image),
            text: filled(&self.text),
            ids: Some(self.ids.val().narrow(0, 0, len)),
            teacher_image: self.teacher_image.as_ref().map(filled),
            teacher_text: self.teacher_text.as_ref().map(filled),
        })
    }

    /// The queue with a batch added, which overwrites the oldest pairs if there is no room. Of a
    /// batch with more pairs than the queue can hold the last ones remain.
    ///
    /// The batch may be tracked or on the device without autodiff. It is stored without its graph,
    /// in the queue's dtype.
    ///
    /// # Panics
    ///
    /// If numbers of rows differ, widths or the device are not the queue's, or a teacher's features
    /// are given to a queue without them or missing for a queue with them.
    #[track_caller]
    pub fn push(self, batch: PairFeatures) -> Self {
        self.check(&batch);
        let (rows, capacity) = (batch.image.dims()[0], self.capacity());
        let [position, len] = self.read_cursor();
        let kept = rows.min(capacity);
        let cursor = [(position + kept) % capacity, (len + kept).min(capacity)];
        let ids = batch
            .ids
            .unwrap_or_else(|| Tensor::full([rows], NO_ID, &batch.image.device()));
        let float = |queue: Param<Tensor<2>>, batch: Tensor<2>| {
            queue.map(|queue| {
                let batch = batch.cast(queue.dtype());
                write(queue, batch, position)
            })
        };
        let teacher = |queue: Option<_>, batch| queue.zip(batch).map(|(q, b)| float(q, b));
        Self {
            image: float(self.image, batch.image),
            text: float(self.text, batch.text),
            teacher_image: teacher(self.teacher_image, batch.teacher_image),
            teacher_text: teacher(self.teacher_text, batch.teacher_text),
            ids: self.ids.map(|queue| {
                let ids = ids.cast(queue.dtype());
                write(queue, ids, position)
            }),
            cursor: self.cursor.map(|old| {
                let new = cursor.map(|x| x as i32);
                let new = Tensor::<1, Int>::from_data(new, &old.device().inner());
                constant_like(new.cast(old.dtype()), &old)
            }),
        }
    }

    /// The batch fits into the queue.
    #[track_caller]
    fn check(&self, batch: &PairFeatures) {
        let name = "FeatureQueue";
        check::paired(name, ("image", &batch.image), ("text", &batch.text));
        let rows = batch.image.dims()[0];
        let pairs = [
            ("image", Some(&batch.image), Some(&self.image)),
            ("text", Some(&batch.text), Some(&self.text)),
            (
                "teacher_image",
                batch.teacher_image.as_ref(),
                self.teacher_image.as_ref(),
            ),
            (
                "teacher_text",
                batch.teacher_text.as_ref(),
                self.teacher_text.as_ref(),
            ),
        ];
        for (field, given, queue) in pairs {
            let (given, queue) = match (given, queue) {
                (Some(given), Some(queue)) => (given, queue),
                (None, None) => continue,
                (Some(_), None) => {
                    panic!(
                        "{name}: `{field}` is given, the queue was built without `teacher_width`"
                    )
                }
                (None, Some(_)) => {
                    panic!("{name}: `{field}` is missing, the queue was built with `teacher_width`")
                }
            };
            let (shape, width) = (given.dims(), queue.dims()[1]);
            assert!(
                shape == [rows, width],
                "{name}: `{field}` has shape {shape:?}, it needs {rows} rows of width {width}"
            );
            let (own, theirs) = (queue.device().inner(), given.device().inner());
            assert!(
                own == theirs,
                "{name}: `{field}` is on {theirs:?}, the queue is on {own:?}: move one of them"
            );
        }
        if let Some(ids) = &batch.ids {
            check::labelled(name, ("ids", ids), ("image", &batch.image));
        }
    }

    fn read_cursor(&self) -> [usize; 2] {
        let cursor = self.cursor.val().into_data().convert::<i64>();
        let cursor = cursor.try_to_vec::<i64>().expect("two integers");
        [cursor[0] as usize, cursor[1] as usize]
    }
}

/// `queue` with the last rows of `batch` written from row `position` on, wrapping around its end.
fn write<const D: usize, K: Basic + Autodiff>(
    queue: Tensor<D, K>,
    batch: Tensor<D, K>,
    position: usize,
) -> Tensor<D, K> {
    // There must be no other reference to the queue, so that it is written in place.
    let context = queue.gradient_checkpointing_strategy();
    let (mut queue, batch) = (queue.without_autodiff(), batch.without_autodiff());
    let [capacity, rows] = [&queue, &batch].map(|x| x.dims()[0]);
    let kept = rows.min(capacity);
    let before_end = kept.min(capacity - position);
    for (start, from, count) in [
        (position, rows - kept, before_end),
        (0, rows - kept + before_end, kept - before_end),
    ] {
        if count > 0 {
            let mut ranges: [_; D] = queue.dims().map(|size| 0..size);
            ranges[0] = start..start + count;
            queue = queue.slice_assign(ranges, batch.clone().narrow(0, from, count));
        }
    }
    constant_in(queue, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "`capacity` is 0, it must be finite and at least 1")]
    fn a_capacity_of_zero_is_refused() {
        FeatureQueueConfig::new(4)
            .with_capacity(0)
            .init(&Device::default());
    }

    #[test]
    #[should_panic(
        expected = "`teacher_image` is missing, the queue was built with `teacher_width`"
    )]
    fn missing_features_of_the_teacher_are_refused() {
        let device = Device::default();
        let x = Tensor::<2>::ones([2, 4], &device);
        let queue = FeatureQueueConfig::new(4).with_teacher_width(Some(3));
        queue.init(&device).push(PairFeatures::new(x.clone(), x));
    }
}
