//! Embeddings from a safetensors file: which tensors it may hold, and in which shapes.

mod file;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use burn_contrastive::objective::Features;
use safetensors::Dtype;

use crate::number::counted;
use crate::words::{LONGEST, shown};
use file::TensorFile;

/// The tensors of floats that a file may hold besides `image` and `text`, each with its shape:
/// fields of [`Features`]. A new one is one line here and one in the table of the module above.
macro_rules! tensors {
    ($($name:ident: $shape:ident,)+) => {
        /// The names of the tensors that a file may hold.
        pub const NAMES: &[&str] = &[
            "image", "text", $(stringify!($name),)+
            "image_id", "label", "queue_image_label", "queue_text_label",
        ];

        impl Reader<'_> {
            fn read_into(&mut self, features: &mut Features) -> Result<()> {
                $(features.$name = self.tensor(stringify!($name))?;)+
                Ok(())
            }
        }

        impl Layout {
            fn shape(name: &str) -> Shape {
                match name {
                    "image" => Shape::Images,
                    "text" => Shape::Texts,
                    $(stringify!($name) => Shape::$shape,)+
                    _ => unreachable!("`{name}` holds no floats"),
                }
            }
        }
    };
}

tensors! {
    teacher_image: OfImages,
    teacher_text: OfPairs,
    momentum_image: MomentumImages,
    momentum_text: MomentumTexts,
    queue_image: Rows,
    queue_text: Rows,
    queue_teacher_image: AnyRows,
    queue_teacher_text: AnyRows,
    noise: Rows,
    hard_image: OfEachPair,
    hard_text: OfEachPair,
}

/// The shape of a tensor of floats, beside `N` pairs of width `D`.
enum Shape {
    /// That of `image`, which says the others.
    Images,
    /// `[N, D]`.
    Texts,
    /// `[N, E]`, or a row for each image.
    OfImages,
    /// `[N, E]`.
    OfPairs,
    /// `[N, D]`, or a row for each image.
    MomentumImages,
    /// `[N, D]`.
    MomentumTexts,
    /// `[K, D]`.
    Rows,
    /// `[K, E]`.
    AnyRows,
    /// `[N, m, D]`.
    OfEachPair,
}

/// What a file holds.
pub struct Embeddings {
    /// The tensors that objectives take, on a device without autodiff, in f64 where `image` or
    /// `text` is (and the device computes in it), else in f32. `label` is [`labels`](Self::labels),
    /// or else [`image_ids`](Self::image_ids).
    pub features: Features,
    /// `image` as it is in the file.
    pub image: Tensor<2>,
    /// Where `image` holds each image once: the row of each caption's image, by which the features
    /// were selected.
    pub image_of_text: Option<Tensor<1, Int>>,
    /// An index of each caption's image, equal where the images are the same: the row of `image`,
    /// where it holds each image once.
    pub image_ids: Option<Vec<usize>>,
    /// An index of each pair's class.
    pub labels: Option<Vec<usize>>,
    /// The tensors in the file, with their dtypes and shapes.
    pub found: Vec<Found>,
    /// A line about each name that means nothing here, with the nearest name that does.
    pub unknown: Vec<String>,
}

/// A tensor of the file.
pub struct Found {
    /// Its name.
    pub name: &'static str,
    /// Its dtype in the file.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Embeddings {
    /// Reads the tensors that [`NAMES`] lists. `f64` says whether the device computes in f64 with
    /// full precision; if so, and the file asks for it, the parameters of objectives
    /// (temperatures, say) will be f64 too, unless the device has tensors already.
    ///
    /// # Errors
    ///
    /// If the file does not exist or is not in the format; if `image` or `text` is missing; on
    /// wrong dtypes and shapes, with tensor and shape; on values that are not finite, with tensor
    /// and row.
    pub fn read(path: &Path, device: &Device, f64: bool) -> Result<Self> {
        let mut file = TensorFile::open(path)?;
        let layout = Layout::of(&mut file, path)?;
        let dtype = if layout.f64 && f64 {
            DType::F64
        } else {
            DType::F32
        };
        if dtype == DType::F64 {
            // On a device that has tensors already, parameters are f32.
            let _ = device.clone().configure(FloatDType::F64);
            let _ = device.clone().autodiff().configure(FloatDType::F64);
        }
        let mut reader = Reader {
            file: &mut file,
            layout: &layout,
            device,
            dtype,
        };
        let text = reader.required("text")?;
        let image = reader.required("image")?;
        let image_of_text = layout.rows.as_ref().map(|rows| indices(rows, device));
        // Embeddings of the images, one for each caption.
        let of_captions = |x: Tensor<2>| match &image_of_text {
            Some(rows) if x.dims()[0] == layout.images => x.select(0, rows.clone()),
            _ => x,
        };
        let mut features = Features::new(of_captions(image.clone()), text);
        reader.read_into(&mut features)?;
        features.teacher_image = features.teacher_image.map(of_captions);
        features.momentum_image = features.momentum_image.map(of_captions);
        check_teachers(&features)?;

        let labels = layout.integers(&mut file, "label")?;
        let image_ids = layout.rows.or_else(|| {
            layout
                .ids
                .as_deref()
                .map(|ids| renumbered(&[ids]).remove(0))
        });
        let labels = read_labels(&mut file, labels.unwrap_or_default(), &mut features)?;
        let same = labels.as_ref().or(image_ids.as_ref());
        features.label = same.map(|same| indices(same, device));
        Ok(Self {
            features,
            image,
            image_of_text,
            image_ids,
            labels,
            found: found(&file),
            unknown: unknown(&file),
        })
    }
}

/// Reads the labels of the queue into the features; the batch's labels, renumbered together with
/// them, so that equal labels stay equal.
fn read_labels(
    file: &mut TensorFile,
    batch: Vec<i128>,
    features: &mut Features,
) -> Result<Option<Vec<usize>>> {
    let mut of_queue = |name, queue: &Option<Tensor<2>>| match queue {
        Some(queue) if file.info(name).is_some() => file.integers(name, queue.dims()[0]),
        _ => Ok(Vec::new()),
    };
    let of_images = of_queue("queue_image_label", &features.queue_image)?;
    let of_texts = of_queue("queue_text_label", &features.queue_text)?;
    let mut renumbered = renumbered(&[&batch, &of_images, &of_texts]).into_iter();
    let mut next = || renumbered.next().filter(|labels| !labels.is_empty());
    let device = features.image.device();
    let labels = next();
    features.queue_image_label = next().map(|labels| indices(&labels, &device));
    features.queue_text_label = next().map(|labels| indices(&labels, &device));
    Ok(labels)
}

fn check_teachers(features: &Features) -> Result<()> {
    if let (Some(image), Some(text)) = (&features.teacher_image, &features.teacher_text) {
        ensure!(
            image.dims()[1] == text.dims()[1],
            "`teacher_text` has width {}, `teacher_image` has {}: they are compared, and need the \
             same",
            text.dims()[1],
            image.dims()[1]
        );
    }
    Ok(())
}

/// The shapes of `image` and `text`, which decide those of the other tensors.
struct Layout {
    /// Rows of `image`.
    images: usize,
    /// Rows of `text`: the pairs.
    pairs: usize,
    /// Columns of both.
    width: usize,
    /// Whether one of them is f64.
    f64: bool,
    /// `image_id`.
    ids: Option<Vec<i128>>,
    /// Where `image` holds each image once: the row of each caption's image.
    rows: Option<Vec<usize>>,
}

impl Layout {
    fn of(file: &mut TensorFile, path: &Path) -> Result<Self> {
        let [image, text] = ["image", "text"].map(|name| file.info(name));
        let (Some(image), Some(text)) = (image, text) else {
            let missing = if image.is_none() { "image" } else { "text" };
            bail!(
                "`{missing}` is missing: {} holds {}",
                path.display(),
                listed(&file.names())
            );
        };
        let &[images, width] = &image.shape[..] else {
            bail!("`image` has shape {:?}, it must be [N, D]", image.shape);
        };
        ensure!(
            images > 0 && width > 0,
            "`image` is empty, shape [{images}, {width}]: it needs a row and a column"
        );
        let mut layout = Self {
            images,
            pairs: text.shape.first().copied().unwrap_or(0),
            width,
            f64: [image, text].iter().any(|info| info.dtype == Dtype::F64),
            ids: None,
            rows: None,
        };
        layout.ids = layout.integers(file, "image_id")?;
        // An image with several captions is in the file once for each, or once for all.
        if images != layout.pairs
            && let Some(ids) = &layout.ids
        {
            layout.rows = Some(rows_of(ids, images)?);
        }
        Ok(layout)
    }

    /// The integers of each pair, if the file has them.
    fn integers(&self, file: &mut TensorFile, name: &str) -> Result<Option<Vec<i128>>> {
        let present = file.info(name).is_some();
        present.then(|| file.integers(name, self.pairs)).transpose()
    }

    /// Checks the shape of a tensor of floats.
    fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let &Self {
            images,
            pairs: n,
            width: d,
            ..
        } = self;
        let of_images = self.rows.is_some() && shape.first() == Some(&images);
        let matrix = shape.len() == 2 && shape[1] > 0;
        let of_pairs = |images| matrix && (shape[0] == n || images);
        let (fits, needed) = match Self::shape(name) {
            Shape::Images => (true, String::new()),
            Shape::Texts => (
                shape == [n, d] && (images == n || self.rows.is_some()),
                format!(
                    "that of `image`, [{images}, {d}] \
                     (or, with `image_id`, [N, {d}]: a row for each caption)"
                ),
            ),
            Shape::OfImages => (
                of_pairs(of_images),
                format!("[{n}, E]: a row for each pair"),
            ),
            Shape::OfPairs => (of_pairs(false), format!("[{n}, E]: a row for each pair")),
            Shape::MomentumImages => (
                of_pairs(of_images) && shape[1] == d,
                format!("[{n}, {d}]: a row for each pair"),
            ),
            Shape::MomentumTexts => (shape == [n, d], format!("[{n}, {d}]: a row for each pair")),
            Shape::Rows => (matrix && shape[1] == d, format!("[K, {d}]")),
            Shape::AnyRows => (matrix, "[K, E]: a row for each of the queue".to_string()),
            Shape::OfEachPair => (
                shape.len() == 3 && [shape[0], shape[2]] == [n, d],
                format!("[{n}, m, {d}]: m negatives for each pair"),
            ),
        };
        ensure!(fits, "`{name}` has shape {shape:?}, it must be {needed}");
        Ok(())
    }
}

/// Reads tensors of floats to a device.
struct Reader<'a> {
    file: &'a mut TensorFile,
    layout: &'a Layout,
    device: &'a Device,
    dtype: DType,
}

impl Reader<'_> {
    fn tensor<const R: usize>(&mut self, name: &str) -> Result<Option<Tensor<R>>> {
        let Some(info) = self.file.info(name) else {
            return Ok(None);
        };
        let shape = info.shape.clone();
        self.layout.check(name, &shape)?;
        let data = if self.dtype == DType::F64 {
            TensorData::new(self.file.floats::<f64>(name)?, shape)
        } else {
            TensorData::new(self.file.floats::<f32>(name)?, shape)
        };
        Ok(Some(Tensor::from_data(data, (self.device, self.dtype))))
    }

    fn required(&mut self, name: &str) -> Result<Tensor<2>> {
        Ok(self.tensor(name)?.expect("its presence was checked"))
    }
}

/// The rows of `image` in `image_id`, which must hold each of them at least once.
fn rows_of(ids: &[i128], images: usize) -> Result<Vec<usize>> {
    let mut described = vec![false; images];
    let mut rows = Vec::with_capacity(ids.len());
    for (caption, &id) in ids.iter().enumerate() {
        let row = usize::try_from(id).ok().filter(|&row| row < images);
        let row = row.with_context(|| {
            format!(
                "`image_id` holds {id} in row {caption}: it must be a row of `image`, which has {}",
                counted(images, "row")
            )
        })?;
        described[row] = true;
        rows.push(row);
    }
    if let Some(row) = described.iter().position(|described| !described) {
        bail!("`image_id` names no caption of row {row} of `image`: each image needs one");
    }
    Ok(rows)
}

/// The same ids as indices from 0, in the order of their first appearance in all lists.
fn renumbered(lists: &[&[i128]]) -> Vec<Vec<usize>> {
    let mut indices = HashMap::new();
    let mut index = |id: &i128| {
        let next = indices.len();
        *indices.entry(*id).or_insert(next)
    };
    let mut renumber = |ids: &&[i128]| ids.iter().map(&mut index).collect();
    lists.iter().map(&mut renumber).collect()
}

fn indices(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    Tensor::from_data(values.as_slice(), (device, DType::I32))
}

/// The tensors that are read, as they are in the file.
fn found(file: &TensorFile) -> Vec<Found> {
    let found = |name| {
        let info = file.info(name)?;
        Some(Found {
            name,
            dtype: format!("{:?}", info.dtype).to_lowercase(),
            shape: info.shape.clone(),
        })
    };
    NAMES.iter().copied().filter_map(found).collect()
}

/// How many names messages list.
const FEW: usize = 10;

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no tensors".to_string();
    }
    let mut listed: Vec<_> = names.iter().take(FEW).map(|name| shown(name)).collect();
    if names.len() > FEW {
        listed.push(format!("{} more", names.len() - FEW));
    }
    listed.join(", ")
}

/// A line about each tensor that is not read, or about the first few and the rest.
fn unknown(file: &TensorFile) -> Vec<String> {
    let mut names = file.names();
    names.retain(|name| !NAMES.contains(&&**name));
    let line = |name: &String| {
        let distance = |known: &&str| strsim::damerau_levenshtein(known, name);
        // A long name has none near it, and its distances would take long.
        let known = NAMES.iter().copied().filter(|_| name.len() <= LONGEST);
        let nearest = known
            .min_by_key(distance)
            .filter(|known| distance(known) <= known.len() / 2);
        let hint = nearest.map_or(String::new(), |known| format!("; did you mean `{known}`?"));
        format!("`{}` is not used{hint}", shown(name))
    };
    let mut lines: Vec<_> = names.iter().take(FEW).map(line).collect();
    if names.len() > FEW {
        let others = counted(names.len() - FEW, "other tensor");
        lines.push(format!("nor are {others}"));
    }
    lines
}
