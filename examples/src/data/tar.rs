//! Reads WebDataset shards: tar archives of images and captions, as img2dataset writes and
//! open_clip reads them.
//!
//! Members that differ only in what follows the first dot of the name are one sample:
//! `000012.jpg`, `000012.txt`, `000012.json`. The image is a `.jpg`, `.jpeg`, `.png` or `.webp`.
//! The caption is all of the `.txt`, or without one what the `.json` has as `caption`, which may be
//! an array. Other members are ignored.
//!
//! Only headers and captions are read here, and nothing is unpacked: an image is read where it lies
//! when it is needed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path};
use std::str;
use std::sync::Arc;

use ::tar::Archive;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::collection::{Example, Split};
use super::listing::{Faults, LONGEST_LINE, Place, open};
use super::picture::{Picture, part};
use super::shards::caption_names;
use super::table::split_of;
use crate::words::shown;

const IMAGE: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
const TEXT: &str = "txt";
const JSON: &str = "json";

/// The blocks of an archive, in bytes; at its end are two of zeros, or more.
const BLOCK: u64 = 512;

/// How a file begins that gzip compressed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file in an archive: its name, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) at: u64,
    pub(super) length: u64,
    place: Place,
}

/// What an archive holds.
#[derive(Default)]
pub(super) struct Members {
    pub(super) found: Vec<Member>,
    /// What is bad, and where.
    bad: Vec<(Place, String)>,
    /// Members whose headers are good, and the byte at which the last of them ends.
    count: u64,
    end: u64,
}

/// The files in an archive, by its headers alone.
pub(super) fn members(archive: &Path) -> Result<Members> {
    let mut file = open(archive)?;
    let mut members = Members::default();
    if let Err(error) = members.read(&mut file) {
        let reason = format!("the archive breaks off or is damaged here: {error:#}");
        members.bad.push((Place::Member(members.count + 1), reason));
    }
    Ok(members)
}

impl Members {
    /// Reads all headers, and checks that nothing is behind them.
    fn read(&mut self, file: &mut File) -> Result<()> {
        check_start(file)?;
        let size = file.metadata()?.len();
        let mut archive = Archive::new(&*file);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let (at, length) = (entry.raw_file_position(), entry.size());
            let name = entry.path_bytes();
            let shown = || shown(&String::from_utf8_lossy(&name));
            let is_whole = at.checked_add(length).is_some_and(|end| end <= size);
            ensure!(is_whole, "{} should have {length} bytes", shown());
            self.count += 1;
            self.end = (at + length).next_multiple_of(BLOCK);
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let place = Place::Member(self.count);
            match plain(&name) {
                Some(name) => self.found.push(Member {
                    name,
                    at,
                    length,
                    place,
                }),
                None => {
                    let reason = format!("{} is no name of a file in an archive", shown());
                    self.bad.push((place, reason));
                }
            }
        }
        check_end(file, self.end)
    }
}

/// A name without `.` in front; `None` if it leads out of the archive or is no text.
fn plain(name: &[u8]) -> Option<String> {
    let mut plain = Vec::new();
    for part in Path::new(str::from_utf8(name).ok()?).components() {
        match part {
            Component::Normal(part) => plain.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(plain.join("/"))
}

/// Checks that a file is not compressed.
fn check_start(file: &mut File) -> Result<()> {
    let mut start = [0; 2];
    let is_gzip = file.read_exact(&mut start).is_ok() && start == GZIP;
    ensure!(!is_gzip, "it is compressed: uncompress it, as by gunzip");
    Ok(file.rewind()?)
}

/// Checks that from the byte `end` on there is what archives end with, and nothing else.
fn check_end(file: &mut File, end: u64) -> Result<()> {
    let mut rest = BufReader::new(file);
    rest.seek(SeekFrom::Start(end))?;
    let mut zeros = 0;
    loop {
        let bytes = rest.fill_buf()?;
        let length = bytes.len();
        if length == 0 {
            break;
        }
        let are_zeros = bytes.iter().all(|byte| *byte == 0);
        ensure!(are_zeros, "there is more behind its end");
        zeros += length as u64;
        rest.consume(length);
    }
    ensure!(zeros >= 2 * BLOCK, "its end is missing");
    Ok(())
}

/// Members whose names differ in the extension only.
struct Sample {
    key: String,
    /// That of the first member.
    place: Place,
    image: Option<Member>,
    text: Option<Member>,
    json: Option<Member>,
    /// The name of a member that there is another of.
    second: Option<String>,
}

impl Sample {
    fn add(&mut self, extension: &str, member: Member) {
        let kind = match extension {
            TEXT => &mut self.text,
            JSON => &mut self.json,
            _ => &mut self.image,
        };
        match kind {
            None => *kind = Some(member),
            Some(_) => self.second = Some(member.name),
        }
    }

    /// The image and its captions, which are read from the archive; or what is bad.
    fn read(self, archive: &mut File) -> Result<(Member, Vec<String>)> {
        if let Some(second) = self.second {
            bail!("{second} is the second of its kind");
        }
        let image = self
            .image
            .with_context(|| format!("it has no .{}", IMAGE.join(", .")))?;
        let mut content = |member: &Member| -> Result<Vec<u8>> {
            let size = member.length;
            ensure!(size <= LONGEST_LINE, "it is longer than 1 MiB");
            part(archive, member.at, size)
        };
        let (name, captions) = match (self.text, self.json) {
            (Some(text), _) => {
                let caption = content(&text).and_then(caption);
                (text.name, caption.map(|caption| vec![caption]))
            }
            (None, Some(json)) => {
                let captions = content(&json).and_then(|content| captions(&content));
                (json.name, captions)
            }
            (None, None) => bail!("it has no caption: neither .{TEXT} nor .{JSON}"),
        };
        let captions = captions.with_context(|| shown(&name))?;
        Ok((image, captions))
    }
}

/// A name up to the first dot of its last part, and the extension behind it.
fn key(name: &str) -> Option<(&str, String)> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = last + name[last..].find('.')?;
    (dot > last).then(|| (&name[..dot], name[dot + 1..].to_lowercase()))
}

/// The samples of an archive, in the order of their first members.
fn samples(members: Vec<Member>) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut known = HashMap::new();
    for member in members {
        let Some((key, extension)) = key(&member.name) else {
            continue;
        };
        if extension != TEXT && extension != JSON && !IMAGE.contains(&extension.as_str()) {
            continue;
        }
        let index = *known.entry(key.to_owned()).or_insert_with(|| {
            samples.push(Sample {
                key: key.to_owned(),
                place: member.place,
                image: None,
                text: None,
                json: None,
                second: None,
            });
            samples.len() - 1
        });
        samples[index].add(&extension, member);
    }
    samples
}

/// A caption that is a file of its own.
fn caption(content: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(content)
        .ok()
        .context("it is not valid UTF-8")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim();
    ensure!(!text.is_empty(), "it is blank");
    Ok(text.to_owned())
}

/// The captions in a JSON object.
fn captions(content: &[u8]) -> Result<Vec<String>> {
    let json: Map<String, Value> = serde_json::from_slice(content)?;
    let value = caption_names().find_map(|name| json.get(name));
    let captions = match value.context("it has no `caption`")? {
        Value::Array(captions) => captions.iter().map(Value::as_str).collect(),
        caption => caption.as_str().map(|caption| vec![caption]),
    };
    let captions: Vec<&str> = captions.context("its caption is no text")?;
    let captions: Vec<_> = captions.iter().map(|text| text.trim().to_owned()).collect();
    let is_blank = captions.is_empty() || captions.iter().any(String::is_empty);
    ensure!(!is_blank, "its caption is blank");
    Ok(captions)
}

/// Reads the `archive`, all of it for one split or each image for that of its name.
pub(super) fn read(
    archive: &Path,
    split: Option<Split>,
    faults: &mut Faults,
) -> Result<Vec<Example>> {
    let Members { found, bad, .. } = members(archive)?;
    for (place, reason) in bad {
        faults.report(archive, place, reason)?;
    }
    let mut file = open(archive)?;
    let shared: Arc<Path> = Arc::from(archive);
    let mut examples = Vec::new();
    for sample in samples(found) {
        let (place, key) = (sample.place, shown(&sample.key));
        match sample.read(&mut file) {
            Err(error) => {
                faults.report_of(split, archive, place, format!("sample {key}: {error:#}"))?;
            }
            Ok((image, captions)) => examples.push(Example {
                split: split.unwrap_or_else(|| split_of(&image.name)),
                image: Picture::member(&shared, &image.name, image.at, image.length),
                captions,
                place,
                scene: None,
            }),
        }
    }
    Ok(examples)
}

#[cfg(test)]
mod tests;
