//! The features of the last batches, as negatives of the next.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::kind::Basic;
use burn::tensor::{Device, Int, Tensor};

use crate::check;
use crate::tensor::{constant_in, constant_like};

/// Configuration of a [`FeatureQueue`].
#[derive(Config, Debug, PartialEq)]
pub struct FeatureQueueConfig {
    /// Width D of the features.
    pub width: usize,
    /// How many pairs it holds. Default 65,536 (MoCo, ALBEF).
    #[config(default = 65_536)]
    pub capacity: usize,
    /// Width E of a teacher's features, where they are kept beside. Default: none are.
    #[config(default = "None")]
    pub teacher_width: Option<usize>,
}

impl FeatureQueueConfig {
    /// Builds an empty queue on `device`.
    ///
    /// # Panics
    ///
    /// Where `capacity` or a width is 0.
    #[track_caller]
    pub fn init(&self, device: &Device) -> FeatureQueue {
        let positive = |field: &str, value: usize| {
            assert!(
                value > 0,
                "FeatureQueueConfig: `{field}` is 0, it must be at least 1"
            );
        };
        positive("width", self.width);
        positive("capacity", self.capacity);
        positive("teacher_width", self.teacher_width.unwrap_or(1));
        let features = |width| {
            let zeros = Tensor::<2>::zeros([self.capacity, width], device);
            Param::from_tensor(zeros).set_require_grad(false)
        };
        let teacher = || self.teacher_width.map(features);
        FeatureQueue {
            image: features(self.width),
            text: features(self.width),
            teacher_image: teacher(),
            teacher_text: teacher(),
            ids: integers(Tensor::full([self.capacity], NO_ID, device)),
            cursor: integers(Tensor::zeros([2], device)),
        }
    }
}

/// The id of a pair that was pushed without one.
const NO_ID: i32 = -1;

fn integers(values: Tensor<1, Int>) -> Param<Tensor<1, Int>> {
    Param::initialized(burn::module::ParamId::new(), values)
}

/// The features of some pairs: pushed into a queue, or read from it.
#[derive(Clone, Debug)]
pub struct Features {
    /// `[N, D]`
    pub image: Tensor<2>,
    /// `[N, D]`
    pub text: Tensor<2>,
    /// Which pairs are positives of each other, `[N]`: equal numbers, not negative. Pairs pushed
    /// without ids are read with id −1.
    pub ids: Option<Tensor<1, Int>>,
    /// A teacher's features of the images, `[N, E]`.
    pub teacher_image: Option<Tensor<2>>,
    /// A teacher's features of the texts, `[N, E]`.
    pub teacher_text: Option<Tensor<2>>,
}

impl Features {
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

    /// The same, as a batch of `embeddings` can meet them: in its dtype, with autodiff where it has it.
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
}

/// The features of the last batches, as negatives of the next; built by [`FeatureQueueConfig::init`].
///
/// A ring: what is pushed overwrites what is oldest. Batches may be of any size, also larger than the
/// queue, and need not divide its length. All of it, where the next row goes included, is in
/// parameters that are not trained, so that a record holds it exactly.
///
/// Features are constants, kept on the queue's device: with autodiff where the queue was built with it,
/// ready to meet tracked features there, and without in `queue.valid()`.
///
/// Source: He et al. 2020 (MoCo); Li et al. 2021 (ALBEF).
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::negatives::{FeatureQueueConfig, Features};
/// use burn_contrastive::objective::{InfoNceConfig, Negatives};
///
/// let device = Device::default();
/// let mut queue = FeatureQueueConfig::new(3).with_capacity(5).init(&device);
/// assert!(queue.features().is_none());
/// for _ in 0..3 {
///     let batch = Tensor::<2>::ones([2, 3], &device);
///     queue = queue.push(Features::new(batch.clone(), batch));
/// }
/// assert_eq!(queue.len(), 5);
///
/// let queued = queue.features().unwrap();
/// let negatives = Negatives {
///     image: Some(queued.image),
///     text: Some(queued.text),
///     ..Negatives::default()
/// };
/// let batch = Tensor::<2>::ones([2, 3], &device);
/// let objective = InfoNceConfig::new().init(&device);
/// let loss = objective.forward_with_negatives(batch.clone(), batch, negatives);
/// assert!((loss.into_scalar::<f32>() - 7f32.ln()).abs() < 1e-5);
/// ```
#[derive(Module, Debug)]
pub struct FeatureQueue {
    image: Param<Tensor<2>>,
    text: Param<Tensor<2>>,
    teacher_image: Option<Param<Tensor<2>>>,
    teacher_text: Option<Param<Tensor<2>>>,
    ids: Param<Tensor<1, Int>>,
    /// Where the next row goes, and how many rows are filled.
    cursor: Param<Tensor<1, Int>>,
}

impl FeatureQueue {
    /// How many pairs it can hold.
    pub fn capacity(&self) -> usize {
        self.image.dims()[0]
    }

    /// How many pairs it holds. Reads two integers back from the device.
    pub fn len(&self) -> usize {
        self.read_cursor()[1]
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it holds, `[len, …]` each; `None` for an empty queue.
    ///
    /// In the queue's dtype: [`Features::like`] casts them. Rows of all tensors correspond. They are in the order of their age until the queue is full, and
    /// in the ring's order afterwards, the newest anywhere.
    pub fn features(&self) -> Option<Features> {
        let len = self.len();
        let filled = |x: &Param<Tensor<2>>| x.val().narrow(0, 0, len);
        (len > 0).then(|| Features {
            image: filled(&self.image),
            text: filled(&self.text),
            ids: Some(self.ids.val().narrow(0, 0, len)),
            teacher_image: self.teacher_image.as_ref().map(filled),
            teacher_text: self.teacher_text.as_ref().map(filled),
        })
    }

    /// The queue with a batch in it, the oldest out where there was no room. Of a batch larger than
    /// the queue the last rows remain.
    ///
    /// What is pushed may be tracked, or on the plain device: it is kept without its graph, in the queue's
    /// dtype.
    ///
    /// # Panics
    ///
    /// Where the numbers of rows differ, the widths or the device are not the queue's, or the teacher's features are
    /// given to a queue without or missing in a queue with them.
    #[track_caller]
    pub fn push(self, batch: Features) -> Self {
        check::paired(
            "FeatureQueue",
            ("image", &batch.image),
            ("text", &batch.text),
        );
        let (rows, capacity) = (batch.image.dims()[0], self.capacity());
        let fits = |name: &str, x: &Tensor<2>, queue: &Param<Tensor<2>>| {
            let (shape, width) = (x.dims(), queue.dims()[1]);
            assert!(
                shape == [rows, width],
                "FeatureQueue: `{name}` has shape {shape:?}, it needs {rows} rows of width {width}"
            );
            let (own, theirs) = (queue.device().inner(), x.device().inner());
            assert!(
                own == theirs,
                "FeatureQueue: `{name}` is on {theirs:?}, the queue is on {own:?}: move one of them"
            );
        };
        fits("image", &batch.image, &self.image);
        fits("text", &batch.text, &self.text);
        let given = [
            ("teacher_image", &batch.teacher_image, &self.teacher_image),
            ("teacher_text", &batch.teacher_text, &self.teacher_text),
        ];
        for (name, features, queue) in given {
            match (features, queue) {
                (Some(features), Some(queue)) => fits(name, features, queue),
                (None, None) => {}
                _ => panic!(
                    "FeatureQueue: `{name}` is {}, the queue was built {} `teacher_width`",
                    if features.is_some() {
                        "given"
                    } else {
                        "missing"
                    },
                    if queue.is_some() { "with" } else { "without" }
                ),
            }
        }
        let ids = batch
            .ids
            .unwrap_or_else(|| Tensor::full([rows], NO_ID, &batch.image.device()));
        assert!(
            ids.dims() == [rows],
            "FeatureQueue: `ids` has {} numbers, there are {rows} pairs",
            ids.dims()[0]
        );

        let [position, filled] = self.read_cursor();
        let float = |queue: Param<Tensor<2>>, batch: Tensor<2>| {
            queue.map(|queue| {
                let batch = batch.cast(queue.dtype());
                write(queue, batch, position)
            })
        };
        let kept = rows.min(capacity);
        let cursor = [(position + kept) % capacity, (filled + kept).min(capacity)];
        Self {
            image: float(self.image, batch.image),
            text: float(self.text, batch.text),
            teacher_image: self
                .teacher_image
                .zip(batch.teacher_image)
                .map(|(q, b)| float(q, b)),
            teacher_text: self
                .teacher_text
                .zip(batch.teacher_text)
                .map(|(q, b)| float(q, b)),
            ids: self.ids.map(|queue| {
                let ids = ids.cast(queue.dtype());
                write(queue, ids, position)
            }),
            cursor: self.cursor.map(|old| {
                let new =
                    Tensor::<1, Int>::from_data(cursor.map(|x| x as i32), &old.device().inner());
                constant_like(new.cast(old.dtype()), &old)
            }),
        }
    }

    fn read_cursor(&self) -> [usize; 2] {
        let cursor = self.cursor.val().into_data().convert::<i64>();
        let cursor = cursor.try_to_vec::<i64>().expect("two integers");
        [cursor[0] as usize, cursor[1] as usize]
    }
}

/// `queue` with the last rows of `batch` written from `position` on, around its end.
fn write<const D: usize, K>(
    queue: Tensor<D, K>,
    batch: Tensor<D, K>,
    position: usize,
) -> Tensor<D, K>
where
    K: Basic + burn::tensor::kind::Autodiff,
{
    // No other reference to the queue, so that it is written in place.
    let context = queue.gradient_checkpointing_strategy();
    let (queue, batch) = (queue.without_autodiff(), batch.without_autodiff());
    let [capacity, rows] = [&queue, &batch].map(|x| x.dims()[0]);
    let kept = rows.min(capacity);
    let batch = batch.narrow(0, rows - kept, kept);
    let first = kept.min(capacity - position);
    let part = |queue: Tensor<D, K>, at: usize, from: usize, count: usize| {
        let mut ranges: [_; D] = queue.dims().map(|size| 0..size);
        ranges[0] = at..at + count;
        queue.slice_assign(ranges, batch.clone().narrow(0, from, count))
    };
    let mut queue = part(queue, position, 0, first);
    if first < kept {
        queue = part(queue, 0, first, kept - first);
    }
    constant_in(queue, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "`capacity` is 0, it must be at least 1")]
    fn an_empty_capacity_is_refused() {
        FeatureQueueConfig::new(4)
            .with_capacity(0)
            .init(&Device::default());
    }

    #[test]
    #[should_panic(
        expected = "`teacher_image` is missing, the queue was built with `teacher_width`"
    )]
    fn a_teacher_left_out_is_refused() {
        let device = Device::default();
        let x = Tensor::<2>::ones([2, 4], &device);
        let queue = FeatureQueueConfig::new(4).with_teacher_width(Some(3));
        queue.init(&device).push(Features::new(x.clone(), x));
    }
}
