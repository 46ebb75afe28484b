//! Small sets on disk for the tests.

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

use super::collection::Skipped;
use super::scenes::generate;
use super::{CaptionTokenizer, Collection, ScenesConfig, Split, TokenizerConfig, TransformConfig};

/// A few tiny scenes, read back, with a tokenizer trained on them.
pub(super) struct Small {
    /// Removes the folder when dropped.
    _dir: TempDir,
    pub collection: Arc<Collection>,
    pub tokenizer: Arc<CaptionTokenizer>,
    pub transform: TransformConfig,
}

pub(super) fn small_config() -> ScenesConfig {
    ScenesConfig {
        train: 40,
        validation: 7,
        test: 10,
        image_size: 16,
        repeated: 0.5,
        ..Default::default()
    }
}

impl Small {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path(), &small_config()).unwrap();
        let collection = Arc::new(Collection::read(dir.path(), false).unwrap());
        let config = TokenizerConfig {
            vocab_size: 300,
            ..Default::default()
        };
        let tokenizer =
            Arc::new(CaptionTokenizer::train(collection.captions(Split::Train), &config).unwrap());
        Self {
            _dir: dir,
            collection,
            tokenizer,
            transform: TransformConfig {
                size: 8,
                ..Default::default()
            },
        }
    }
}

/// Writes a little picture of one colour.
pub(super) fn picture(file: &Path, colour: [u8; 3]) -> PathBuf {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    RgbImage::from_pixel(6, 4, Rgb(colour)).save(file).unwrap();
    file.to_owned()
}

/// A folder with pictures and text files.
pub(super) fn folder(images: &[&str], files: &[(&str, String)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for image in images {
        picture(&dir.path().join(image), [9; 3]);
    }
    for (name, text) in files {
        let file = dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    dir
}

/// Cuts a file's last half off: the header stays.
pub(super) fn truncate(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

/// The header of a safetensors file and what follows it.
pub(super) fn parts(path: &Path) -> (String, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + size].to_vec()).unwrap();
    (header, bytes[8 + size..].to_vec())
}

/// The file of a header and what follows it.
pub(super) fn joined(header: &str, content: &[u8]) -> Vec<u8> {
    let size = (header.len() as u64).to_le_bytes();
    [&size, header.as_bytes(), content].concat()
}

/// The bytes of a little picture of one colour, as PNG.
pub(super) fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = RgbImage::from_pixel(6, 4, Rgb(colour));
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Writes a tar archive of files.
pub(super) fn archive(file: &Path, members: &[(&str, &[u8])]) {
    let mut archive = tar::Builder::new(File::create(file).unwrap());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.finish().unwrap();
}

/// What a leaf of a Parquet file holds: values, and definition and repetition levels.
pub(super) type Leaf<'a> = (Vec<&'a [u8]>, Vec<i16>, Vec<i16>);

/// Writes a Parquet file of row groups, each a leaf for each of the schema.
pub(super) fn parquet(file: &Path, schema: &str, groups: &[Vec<Leaf>]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let properties = Arc::new(properties.build());
    let file = File::create(file).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    for group in groups {
        let mut rows = writer.next_row_group().unwrap();
        for (values, defined, repeated) in group {
            let values: Vec<ByteArray> = values.iter().map(|value| value.to_vec().into()).collect();
            let mut column = rows.next_column().unwrap().unwrap();
            let leaf = column.typed::<ByteArrayType>();
            let levels = (Some(defined.as_slice()), Some(repeated.as_slice()));
            leaf.write_batch(&values, levels.0, levels.1).unwrap();
            column.close().unwrap();
        }
        rows.close().unwrap();
    }
    writer.close().unwrap();
}

/// Columns as Hugging Face has them, one caption a row.
pub(super) const ROWS: &str = "message m { optional group image { optional binary bytes; \
     optional binary path (UTF8); } optional binary caption (UTF8); }";

/// A leaf without lists; `nothing` is the level of a null.
pub(super) fn leaf<'a>(values: &[Option<&'a [u8]>], whole: i16, nothing: i16) -> Leaf<'a> {
    let level = |value: &Option<_>| if value.is_some() { whole } else { nothing };
    let defined = values.iter().map(level).collect();
    (
        values.iter().copied().flatten().collect(),
        defined,
        vec![0; values.len()],
    )
}

/// Rows of the schema [`ROWS`]: an image and its caption each.
pub(super) fn rows<'a>(pairs: &'a [(Vec<u8>, &str)]) -> Vec<Leaf<'a>> {
    let images: Vec<_> = pairs.iter().map(|pair| Some(pair.0.as_slice())).collect();
    let captions: Vec<_> = pairs.iter().map(|pair| Some(pair.1.as_bytes())).collect();
    let paths = vec![None; pairs.len()];
    vec![
        leaf(&images, 2, 1),
        leaf(&paths, 2, 1),
        leaf(&captions, 1, 0),
    ]
}

/// The captions of all images.
pub(super) fn captions(collection: &Collection) -> Vec<&[String]> {
    let examples = collection.examples.iter();
    examples
        .map(|example| example.captions.as_slice())
        .collect()
}

/// Why data are refused.
pub(super) fn refusal(path: &Path) -> String {
    format!("{:#}", Collection::read(path, false).unwrap_err())
}

/// That of the two images in a file the bad one is refused for that reason, by its place, and is
/// the one that is left out when skipping.
pub(super) fn bad_beside_a_good_one(file: &Path, place: &str, expected: &str) -> Skipped {
    let error = refusal(file);
    assert!(
        error.contains(place) && error.contains(expected),
        "{expected:?} is not in {error:?}"
    );
    let mut read = Collection::read(file, true).unwrap();
    let counts = (read.examples.len(), read.skipped.len());
    assert_eq!(counts, (1, 1), "{expected}");
    read.skipped.remove(0)
}

/// An archive of two samples.
pub(super) fn two(file: &Path) -> Vec<u8> {
    let good = png([1; 3]);
    archive(
        file,
        &[
            ("a.png", &good),
            ("a.txt", b"a"),
            ("b.png", &good),
            ("b.txt", b"b"),
        ],
    );
    std::fs::read(file).unwrap()
}
