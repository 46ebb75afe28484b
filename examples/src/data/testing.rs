//! Small sets on disk for the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{Rgb, RgbImage};
use tempfile::TempDir;

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
