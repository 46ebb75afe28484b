//! The header of a safetensors file: checked before anything is read, and written before the rest.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value, json};

use crate::number::counted;
use crate::unique::check_keys;
use crate::words::brief;

/// A file whose header has been read.
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
    /// Where the tensors' bytes begin.
    pub(crate) start: u64,
}

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// Opens a file, and reads its header.
///
/// # Errors
///
/// If it is no regular file, or not a whole safetensors file.
pub(crate) fn open(path: &Path) -> Result<Opened> {
    let name = path.display();
    let failed = || format!("{name}: could not be opened");
    // Before it is opened: who opens a pipe waits for its writer.
    let metadata = fs::metadata(path).with_context(failed)?;
    ensure!(!metadata.is_dir(), "{name} is a folder, not a file");
    ensure!(
        metadata.is_file(),
        "{name} is not a regular file: a pipe or a device cannot be read from the middle"
    );
    let length = metadata.len();
    let mut file = File::open(path).with_context(failed)?;
    ensure!(length > 0, "{name} is empty");
    let not_one = || format!("{name} is not a safetensors file");
    ensure!(length >= 8, "{}: it is too short", not_one());
    let mut size = [0; 8];
    file.read_exact(&mut size).with_context(not_one)?;
    let size = u64::from_le_bytes(size);
    ensure!(
        size <= LONGEST_HEADER && size + 8 <= length,
        "{}: its header would be {} long, it has {length} in all",
        not_one(),
        counted(size, "byte")
    );
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).with_context(not_one)?;
    ensure!(
        header.starts_with(b"{"),
        "{}: its header is no JSON object",
        not_one()
    );
    let metadata = parse(&header).with_context(not_one)?;
    let (start, needed) = (8 + size, metadata.data_len() as u64);
    ensure!(
        start + needed == length,
        "{name} is {} long, its header says {}: it is {}",
        counted(length, "byte"),
        start + needed,
        if start + needed > length {
            "cut off"
        } else {
            "followed by something else"
        }
    );
    Ok(Opened {
        file,
        metadata,
        start,
    })
}

/// What a file begins with, up to the bytes of its first tensor. The tensors follow in this order,
/// each a name, a dtype and a shape; `notes` are the metadata. The same input gives the same bytes.
pub(crate) fn header<'a>(
    tensors: impl IntoIterator<Item = (String, Dtype, &'a [usize])>,
    notes: Map<String, Value>,
) -> Vec<u8> {
    let mut header = Map::new();
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let begin = end;
        end += dtype.bitsize() / 8 * shape.iter().product::<usize>();
        let tensor = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        header.insert(name, tensor);
    }
    if !notes.is_empty() {
        header.insert("__metadata__".to_string(), notes.into());
    }
    let mut header = Value::Object(header).to_string();
    // The values begin at a multiple of eight bytes.
    let padding = header.len().next_multiple_of(8) - header.len();
    header.extend(std::iter::repeat_n(' ', padding));
    let mut start = (header.len() as u64).to_le_bytes().to_vec();
    start.extend(header.into_bytes());
    start
}

fn parse(header: &[u8]) -> Result<Metadata> {
    let parsed = check_keys(header).and_then(|()| serde_json::from_slice(header));
    parsed.map_err(|error| anyhow!(brief(error)))
}
