//! Vectors of words, such as those of word2vec or GloVe, from a text file.
//!
//! A line is a word and its numbers, `word v1 v2 …`, with blanks or tabs between them; the first
//! line may be `count width`, as word2vec and fastText write it. Words with blanks in them, of
//! which GloVe has a few, belong to no token. The file is read line by line, and only the vectors
//! of tokens of the vocabulary are kept.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::str;

use ::safetensors::tensor::TensorView;
use ::safetensors::{Dtype, SafeTensors, serialize};
use anyhow::{Context, Result, bail, ensure};

use crate::files;

/// Bytes of the longest line that is read.
const LONGEST_LINE: u64 = 4 << 20;

/// Vectors of some tokens of a vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct WordVectors {
    /// By the tokens' ids; all of the same width.
    rows: BTreeMap<u32, Vec<f32>>,
}

impl WordVectors {
    /// The vectors of `width` numbers that the file at `path` has of the tokens of `vocabulary`. A
    /// token has the vector of the same word, or of the first word that is the same in lower case.
    ///
    /// # Errors
    ///
    /// If the file cannot be read; with the number of the line, where that is no word with `width`
    /// finite numbers; if there are not as many as the first line says, or none of a token.
    pub fn read(path: &Path, vocabulary: &HashMap<String, u32>, width: usize) -> Result<Self> {
        let name = || format!("cannot read the word vectors {}", path.display());
        let is_file = fs::metadata(path).with_context(name)?.is_file();
        ensure!(is_file, "{}: it is no regular file", name());
        let file = BufReader::new(File::open(path).with_context(name)?);
        of_lines(file, vocabulary, width).with_context(name)
    }

    /// Number of tokens that have a vector.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no token has one, which [`read`](Self::read) refuses.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The tokens' ids, ascending, and their vectors.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.rows.iter().map(|(&id, row)| (id as usize, &row[..]))
    }

    /// Writes a safetensors file of `ids`, I32 `[tokens]`, and `vectors`, F32 `[tokens, width]`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let ids: Vec<u8> = self.rows.keys().flat_map(|id| id.to_le_bytes()).collect();
        let numbers = self.rows.values().flatten();
        let numbers: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
        let width = self.rows.values().next().map_or(0, Vec::len);
        let tensors = [
            ("ids", TensorView::new(Dtype::I32, vec![self.len()], &ids)?),
            (
                "vectors",
                TensorView::new(Dtype::F32, vec![self.len(), width], &numbers)?,
            ),
        ];
        files::write(path, &serialize(tensors, None)?)
    }

    /// Reads what [`save`](Self::save) wrote of a vocabulary of at most `vocabulary` tokens.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not of that form, vocabulary and width.
    pub fn load(path: &Path, vocabulary: usize, width: usize) -> Result<Self> {
        let read = || -> Result<Self> {
            let bytes = fs::read(path)?;
            let file = SafeTensors::deserialize(&bytes)?;
            let (ids, vectors) = (file.tensor("ids")?, file.tensor("vectors")?);
            ensure!(
                ids.dtype() == Dtype::I32
                    && vectors.dtype() == Dtype::F32
                    && vectors.shape() == [ids.data().len() / size_of::<u32>(), width],
                "it must have I32 ids and F32 vectors of width {width}"
            );
            let ids = ids.data().as_chunks().0.iter().copied();
            let numbers = vectors.data().as_chunks().0.iter().copied();
            let numbers: Vec<f32> = numbers.map(f32::from_le_bytes).collect();
            let rows = numbers.chunks(width).map(<[f32]>::to_vec);
            let rows: BTreeMap<_, _> = ids.map(u32::from_le_bytes).zip(rows).collect();
            let fits = rows.keys().all(|&id| (id as usize) < vocabulary);
            ensure!(fits, "an id is not one of {vocabulary} tokens");
            Ok(Self { rows })
        };
        read().with_context(|| format!("cannot read the word vectors {}", path.display()))
    }
}

fn of_lines(
    mut lines: impl BufRead,
    vocabulary: &HashMap<String, u32>,
    width: usize,
) -> Result<WordVectors> {
    let mut by_lower: HashMap<String, Vec<u32>> = HashMap::new();
    for (token, &id) in vocabulary {
        by_lower.entry(token.to_lowercase()).or_default().push(id);
    }
    let mut found: BTreeMap<u32, (bool, Vec<f32>)> = BTreeMap::new();
    let (mut number, mut words, mut announced) = (0_u64, 0, None);
    let (mut bytes, mut vector) = (Vec::new(), Vec::new());
    loop {
        bytes.clear();
        let read = (&mut lines)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut bytes)?;
        if read == 0 {
            break;
        }
        number += 1;
        let line = Line::of(&bytes).with_context(|| format!("line {number}"))?;
        if number == 1
            && let Some([count, given]) = line.header()
        {
            ensure!(
                given == width,
                "line 1: the vectors are of {given} numbers, those of the model of \
                 model.text.words = {width}"
            );
            announced = Some(count);
            continue;
        }
        let word = line.parse(width, &mut vector);
        let word = word.with_context(|| format!("line {number}"))?;
        words += 1;
        let Some(word) = word else { continue };
        let exact = vocabulary.get(word).copied();
        for &id in by_lower.get(&word.to_lowercase()).into_iter().flatten() {
            let is_exact = exact == Some(id);
            let is_better = |(held, _): &(bool, _)| is_exact && !held;
            if found.get(&id).is_none_or(is_better) {
                found.insert(id, (is_exact, vector.clone()));
            }
        }
    }
    ensure!(words > 0, "line {}: there is no vector", number + 1);
    if let Some(count) = announced {
        ensure!(
            count == words,
            "line 1 says that there are {count} vectors, and there are {words}"
        );
    }
    ensure!(
        !found.is_empty(),
        "none of its words, {words}, is a token of the vocabulary of {}",
        vocabulary.len()
    );
    let rows = found.into_iter().map(|(id, (_, row))| (id, row));
    Ok(WordVectors {
        rows: rows.collect(),
    })
}

/// A line, cut at blanks.
struct Line<'a> {
    fields: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self> {
        ensure!(
            bytes.len() < LONGEST_LINE as usize || bytes.ends_with(b"\n"),
            "it is longer than {} MiB",
            LONGEST_LINE >> 20
        );
        let text = str::from_utf8(bytes).context("it is not UTF-8 text")?;
        let text = text.trim_end_matches(['\n', '\r', ' ', '\t']);
        Ok(Self {
            fields: text.split([' ', '\t']).collect(),
        })
    }

    /// The number of words and their width, if it is a first line that says so.
    fn header(&self) -> Option<[usize; 2]> {
        let [count, width] = self.fields[..] else {
            return None;
        };
        Some([count.parse().ok()?, width.parse().ok()?])
    }

    /// Reads its vector, and returns its word, unless that has blanks in it.
    fn parse(&self, width: usize, vector: &mut Vec<f32>) -> Result<Option<&'a str>> {
        let given = self.fields.len() - 1;
        let start = self.fields.len().saturating_sub(width).max(1);
        let is_number = |field: &&str| field.parse::<f32>().is_ok();
        ensure!(
            given >= width && !self.fields[1..start].iter().any(is_number),
            "it has a vector of {given} numbers, those of the model are of \
             model.text.words = {width}"
        );
        vector.clear();
        for field in &self.fields[start..] {
            match field.parse::<f32>() {
                Ok(number) if number.is_finite() => vector.push(number),
                Ok(_) => bail!("{field} is not a finite number"),
                Err(_) => bail!("{field:?} is not a number"),
            }
        }
        Ok((start == 1).then_some(self.fields[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> HashMap<String, u32> {
        let tokens = ["[PAD]", "red", "Disc", "disc", "paris", "##s"];
        let ids = (0..).zip(tokens);
        ids.map(|(id, token)| (token.to_string(), id)).collect()
    }

    fn read(text: &[u8]) -> Result<Vec<(usize, Vec<f32>)>> {
        let vectors = of_lines(text, &vocabulary(), 2)?;
        let rows = vectors.rows().map(|(id, row)| (id, row.to_vec()));
        Ok(rows.collect())
    }

    #[test]
    fn tokens_have_the_vectors_of_their_words() {
        let expected = vec![(1, vec![1.0, -2.5])];
        for text in [
            "red 1 -2.5\nblue 3 4\n",
            "2 2\nred 1 -2.5 \nblue 3 4 \n",
            "red\t1\t-25e-1\r\nblue\t3\t4",
            // A word comes once; the first one counts.
            "red 1 -2.5\nred 5 6\n",
            // Words with a blank, as GloVe has them, are no tokens.
            ". . 7 8\nred x@y.z 7 8\nred 1 -2.5\n",
        ] {
            assert_eq!(read(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_same_word_comes_before_the_same_in_lower_case() {
        let both = read(b"DISC 0 0\nParis 1 1\ndisc 2 2\nPARIS 3 3\n").unwrap();
        let expected = [
            (2, vec![0.0, 0.0]),
            (3, vec![2.0, 2.0]),
            (4, vec![1.0, 1.0]),
        ];
        assert_eq!(both, expected);
    }

    #[test]
    fn what_is_no_file_of_vectors_is_refused_with_its_line() {
        for (text, reason) in [
            (&b""[..], "line 1: there is no vector"),
            (b"0 2\n", "line 2: there is no vector"),
            (
                b"red 1 2\nblue 1\n",
                "line 2: it has a vector of 1 numbers, those of the model",
            ),
            (b"red 1 2\n\nblue 1 2\n", "line 2: it has a vector of 0"),
            (b"red 1 2 3\n", "line 1: it has a vector of 3 numbers"),
            (
                b"1 3\nred 1 2 3\n",
                "line 1: the vectors are of 3 numbers, those of the model of model.text.words = 2",
            ),
            (b"red 1 nan\n", "line 1: nan is not a finite"),
            (b"red 1 2\nblue -inf 1\n", "line 2: -inf is not a finite"),
            (b"blue 1e39 1\n", "line 1: 1e39 is not a finite"),
            (b"red 1 2\nblue 1 two\n", "line 2: \"two\" is not a number"),
            (b"red  1\n", "line 1: \"\" is not a number"),
            (b"red 1 2\n\xff 1 2\n", "line 2: it is not UTF-8"),
            (
                b"3 2\nred 1 2\nblue 3 4\n",
                "there are 3 vectors, and there are 2",
            ),
            (
                b"blue 1 2\n",
                "none of its words, 1, is a token of the vocabulary of 6",
            ),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(reason), "{error} for {reason}");
        }
        let long = std::io::repeat(b'7').take(LONGEST_LINE + 9);
        let error = of_lines(BufReader::new(long), &vocabulary(), 2).unwrap_err();
        assert!(format!("{error:#}").contains("line 1: it is longer than 4 MiB"));
    }

    #[test]
    fn what_was_saved_is_read_again_for_the_same_model_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.safetensors");
        let text = &b"red 1 -2.5\nparis 0.1 3\n"[..];
        let vectors = of_lines(text, &vocabulary(), 2).unwrap();
        vectors.save(&path).unwrap();
        assert_eq!(WordVectors::load(&path, 6, 2).unwrap(), vectors);
        for (vocabulary, width) in [(4, 2), (6, 1), (6, 4)] {
            assert!(WordVectors::load(&path, vocabulary, width).is_err());
        }
        fs::write(&path, b"red 1 2").unwrap();
        let error = format!("{:#}", WordVectors::load(&path, 6, 2).unwrap_err());
        assert!(error.contains("vectors.safetensors"), "{error}");
        let error = WordVectors::read(folder.path(), &vocabulary(), 2).unwrap_err();
        assert!(format!("{error:#}").contains("no regular file"));
    }
}
