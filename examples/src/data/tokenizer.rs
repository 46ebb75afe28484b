//! Captions as token ids, by the `tokenizers` crate.
//!
//! A tokenizer is either loaded from a `tokenizer.json` or trained as WordPiece (Schuster and
//! Nakajima 2012; BERT's set-up) on the training captions. Training depends only on the captions'
//! words and their counts: see [`CaptionTokenizer::train`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::{BertNormalizer, NFC, Sequence};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, Encoding, NormalizedString, Normalizer, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, Tokenizer, Trainer, TruncationParams,
    decoders::wordpiece::WordPiece as WordPieceDecoder,
};

use super::text::{CAPTION_WORDS, normalise_caption};
use crate::files;
use crate::panics::caught;

const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const CONTINUATION: &str = "##";
/// Characters of the longest word that has pieces.
const LONGEST_WORD: usize = 100;

/// How captions become tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Largest size of a trained vocabulary, special tokens included.
    pub vocab_size: usize,
    /// How often two pieces must at least occur side by side to be merged.
    pub min_frequency: u64,
    /// Largest number of tokens of a caption, special tokens included; longer captions are cut.
    pub context_length: usize,
    /// How captions are read before and after that.
    pub style: TokenStyle,
}

/// How captions are read, beside what a `tokenizer.json` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenStyle {
    /// Whether a caption ends with `[SEP]`; without it, `[CLS]` stands before a caption and nothing
    /// behind it.
    pub separator: bool,
    /// If given, captions are [normalised](super::text::normalise_caption), and cut to so many
    /// words.
    pub words: Option<usize>,
}

impl Default for TokenStyle {
    /// As the `tokenizer.json` says.
    fn default() -> Self {
        Self {
            separator: true,
            words: None,
        }
    }
}

impl TokenStyle {
    /// ALBEF's: `[CLS]` first and no `[SEP]`, lower case without punctuation, at most 30 words.
    pub fn albef() -> Self {
        Self {
            separator: false,
            words: Some(CAPTION_WORDS),
        }
    }

    /// The part of a caption that is read.
    fn read(self, caption: &str) -> Cow<'_, str> {
        match self.words {
            Some(words) => normalise_caption(caption, words).unwrap_or_default().into(),
            None => caption.into(),
        }
    }
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            vocab_size: 4096,
            min_frequency: 2,
            context_length: 48,
            style: TokenStyle::default(),
        }
    }
}

/// Turns captions into token ids of at most a context length.
#[derive(Clone, Debug)]
pub struct CaptionTokenizer {
    inner: Tokenizer,
    pad: u32,
    context_length: usize,
    style: TokenStyle,
}

/// Token ids of several captions, padded to one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddedTokens {
    /// Ids, row by row.
    pub ids: Vec<i32>,
    /// True where `ids` is padding.
    pub padding: Vec<bool>,
    /// Tokens in a row.
    pub length: usize,
}

/// How rows of token ids are brought to one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// The id that is put behind short rows.
    pub id: u32,
    /// Largest length of a row.
    pub context_length: usize,
    /// The tokens that stand for no part of a text.
    pub specials: SpecialTokens,
}

/// The ids of the tokens that stand for no part of a text, where a tokenizer has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[CLS]`, which begins a text.
    pub first: Option<u32>,
    /// `[SEP]`, which ends a text.
    pub last: Option<u32>,
    /// `[MASK]`, which hides a part of a text.
    pub mask: Option<u32>,
}

impl Padding {
    /// Pads `rows` to one length: that of the longest, rounded up to a multiple of eight, at most
    /// the context length.
    ///
    /// Rounding limits the number of shapes, so that backends that tune kernels by shape finish
    /// tuning early; short batches still cost less.
    pub fn pad(&self, rows: &[impl AsRef<[u32]>]) -> PaddedTokens {
        let rows = || rows.iter().map(AsRef::as_ref);
        let longest = rows().map(<[u32]>::len).max().unwrap_or(0);
        let length = longest.next_multiple_of(8).min(self.context_length);
        let mut ids = Vec::with_capacity(rows().len() * length);
        let mut padding = Vec::with_capacity(rows().len() * length);
        for row in rows() {
            let missing = length - row.len();
            ids.extend(
                row.iter()
                    .map(|&id| id as i32)
                    .chain(std::iter::repeat_n(self.id as i32, missing)),
            );
            padding.extend(
                std::iter::repeat_n(false, row.len()).chain(std::iter::repeat_n(true, missing)),
            );
        }
        PaddedTokens {
            ids,
            padding,
            length,
        }
    }
}

impl CaptionTokenizer {
    /// Trains a WordPiece tokenizer on `captions`: lower case, accents kept, `[CLS]` and `[SEP]`
    /// around each caption.
    ///
    /// The same captions, in any order, give the same tokenizer. The crate's trainer alone would
    /// not guarantee that: it assigns ids to the pieces inside words in the order of a randomly
    /// seeded hash map, and ids decide ties between merges. Those pieces are therefore put into the
    /// vocabulary beforehand, sorted.
    ///
    /// # Errors
    ///
    /// If there is no word in `captions`, or the vocabulary cannot hold their characters.
    pub fn train<S: AsRef<str> + Send>(
        captions: impl Iterator<Item = S> + Send,
        config: &TokenizerConfig,
    ) -> Result<Self> {
        let normalizer = Sequence::new(vec![
            NFC.into(),
            BertNormalizer::new(true, true, Some(false), true).into(),
        ]);
        let captions = captions.map(|caption| config.style.read(caption.as_ref()).into_owned());
        let counts = count_words(captions, config.context_length, &normalizer)
            .map_err(|error| anyhow!("cannot split a caption into words: {error}"))?;
        ensure!(
            !counts.is_empty(),
            "cannot train a tokenizer: the captions hold no word"
        );
        let specials = SPECIAL_TOKENS.map(|token| AddedToken::from(token, true));
        let model = train_word_piece(&counts, &specials, config)
            .map_err(|error| anyhow!("cannot train a tokenizer: {error}"))?;

        let mut inner = Tokenizer::new(model);
        let vocabulary = inner.get_vocab_size(false);
        ensure!(
            vocabulary <= config.vocab_size,
            "a vocabulary of {} tokens is too small: the captions' characters alone need \
             {vocabulary}",
            config.vocab_size
        );
        inner.add_special_tokens(&specials);
        inner
            .with_normalizer(Some(normalizer))
            .with_pre_tokenizer(Some(BertPreTokenizer));
        let with_id = |token: &str| {
            let id = inner.token_to_id(token).expect("a special token");
            (token.to_owned(), id)
        };
        let around = BertProcessing::new(with_id("[SEP]"), with_id("[CLS]"));
        inner
            .with_post_processor(Some(around))
            .with_decoder(Some(WordPieceDecoder::default()));
        Self::from_tokenizer(inner, config.context_length)?.with_style(config.style)
    }

    /// The same tokenizer with captions read in that style.
    ///
    /// # Errors
    ///
    /// If the style has no separator, and the tokenizer no `[CLS]`.
    pub fn with_style(mut self, style: TokenStyle) -> Result<Self> {
        if !style.separator {
            const FIRST: &str = "[CLS]";
            let id = self.token_to_id(FIRST);
            let id = id.context("it has no token [CLS], which is to stand before a caption")?;
            let single = TemplateProcessing::builder()
                .try_single(format!("{FIRST} $A"))
                .map_err(|error| anyhow!("{error}"))?
                .special_tokens(vec![(FIRST, id)])
                .build()?;
            self.inner.with_post_processor(Some(single));
        }
        self.style = style;
        Ok(self)
    }

    /// Reads a `tokenizer.json`, or a vocabulary that CLIP or BERT is published with: CLIP's merges
    /// (`bpe_simple_vocab_16e6.txt.gz`, also unpacked), or BERT's pieces (`vocab.txt`).
    ///
    /// # Errors
    ///
    /// If the file cannot be read or parsed, or names no padding token.
    pub fn load(file: impl AsRef<Path>, context_length: usize) -> Result<Self> {
        let file = file.as_ref();
        let failed = || format!("cannot load tokenizer {}", file.display());
        let text = fs::read(file).with_context(failed)?;
        let text = published::text(&text).with_context(failed)?;
        let read = || -> Result<Tokenizer> {
            // The crate panics on some text that is no JSON, and on some normalisers.
            let json: serde_json::Value = if text.trim_start().starts_with('{') {
                serde_json::from_str(&text)?
            } else {
                published::tokenizer(&text)?
            };
            Tokenizer::from_bytes(json.to_string()).map_err(|error| anyhow!("{error}"))
        };
        let inner = caught(read)
            .with_context(|| format!("{}: its reader panicked", failed()))?
            .with_context(failed)?;
        Self::from_tokenizer(inner, context_length)
            .map_err(|error| error.context(format!("cannot use tokenizer {}", file.display())))
    }

    /// Writes a `tokenizer.json` for [`load`](Self::load) and other users of the `tokenizers`
    /// crate.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self, file: impl AsRef<Path>) -> Result<()> {
        let file = file.as_ref();
        let json = self.inner.to_string(true);
        let json = json.map_err(|error| anyhow!("cannot write {}: {error}", file.display()))?;
        files::write(file, json.as_bytes())
    }

    fn from_tokenizer(mut inner: Tokenizer, context_length: usize) -> Result<Self> {
        let specials = inner.get_post_processor().map_or(0, |processor| {
            tokenizers::PostProcessor::added_tokens(processor, false)
        });
        ensure!(
            context_length > specials,
            "a context of {context_length} tokens is too short: {specials} special tokens and one \
             of the caption's need at least {}",
            specials + 1
        );
        let named = inner.get_padding().map(|padding| padding.pad_token.clone());
        let candidates =
            named
                .iter()
                .map(String::as_str)
                .chain(["[PAD]", "<pad>", "<|endoftext|>"]);
        let Some(pad) = candidates
            .filter_map(|token| inner.token_to_id(token))
            .next()
        else {
            bail!("it has no padding token; give it a `padding` section or a token [PAD]");
        };
        inner.with_padding(None);
        let truncation = TruncationParams {
            max_length: context_length,
            ..Default::default()
        };
        inner
            .with_truncation(Some(truncation))
            .map_err(|error| anyhow!("a context of {context_length} tokens: {error}"))?;
        Ok(Self {
            inner,
            pad,
            context_length,
            style: TokenStyle::default(),
        })
    }

    /// SHA-256 of its `tokenizer.json`, in hexadecimal.
    ///
    /// # Panics
    ///
    /// If a part of it has no JSON form; all that [`load`](Self::load) reads have one.
    pub fn fingerprint(&self) -> String {
        let json = self.inner.to_string(false);
        let json = json.expect("what was read as JSON can be written as JSON");
        format!("{:x}", Sha256::digest(json))
    }

    /// Number of token ids: every id is less than it.
    pub fn vocab_size(&self) -> usize {
        self.inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1)
    }

    /// Checks that it has as many tokens as `weights`, which is what messages call them, have
    /// embeddings: a smaller one would be read without an error, as other words.
    ///
    /// # Errors
    ///
    /// If it has more or fewer.
    pub fn check_size(&self, embeddings: usize, weights: impl Display) -> Result<()> {
        let size = self.vocab_size();
        ensure!(
            size == embeddings,
            "the tokenizer has {size} tokens, and {weights} embeddings of {embeddings}: it is the \
             tokenizer of other weights"
        );
        Ok(())
    }

    /// The ids of its tokens.
    pub fn vocabulary(&self) -> HashMap<String, u32> {
        self.inner.get_vocab(true).into_iter().collect()
    }

    /// Largest number of tokens of a caption.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The id of padding.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// The id of `token`, such as `"[MASK]"`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The tokens of `caption`, special ones included: at least one, at most the context length.
    /// Of a caption with more than 100 characters for each of them, only the beginning is read.
    ///
    /// # Errors
    ///
    /// If the caption gives no token at all.
    pub fn encode(&self, caption: &str) -> Result<Vec<u32>> {
        Ok(self.encoding(caption)?.get_ids().to_vec())
    }

    fn encoding(&self, caption: &str) -> Result<Encoding> {
        let caption = &*self.style.read(beginning(caption, self.context_length));
        let encoding = self
            .inner
            .encode_fast(caption, true)
            .map_err(|error| anyhow!("cannot tokenize {caption:?}: {error}"))?;
        ensure!(
            !encoding.get_ids().is_empty(),
            "the caption {caption:?} gives no token"
        );
        Ok(encoding)
    }

    /// Whether the context length leaves off a part of `caption`.
    ///
    /// # Errors
    ///
    /// If the caption gives no token at all.
    pub fn cuts(&self, caption: &str) -> Result<bool> {
        let all = TokenStyle {
            words: self.style.words.map(|_| usize::MAX),
            ..self.style
        };
        let is_read = beginning(caption, self.context_length).len() == caption.len()
            && self.style.read(caption) == all.read(caption);
        Ok(!is_read || !self.encoding(caption)?.get_overflowing().is_empty())
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    ///
    /// If the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner
            .decode(ids, true)
            .map_err(|error| anyhow!("cannot decode tokens: {error}"))
    }

    /// How its captions are padded.
    pub fn padding(&self) -> Padding {
        Padding {
            id: self.pad,
            context_length: self.context_length,
            specials: SpecialTokens {
                first: self.token_to_id("[CLS]"),
                last: self.token_to_id("[SEP]"),
                mask: self.token_to_id("[MASK]"),
            },
        }
    }
}

/// As much of `caption` as a context can hold: what the crate does to a text takes quadratic time.
fn beginning(caption: &str, context_length: usize) -> &str {
    let longest = context_length.saturating_mul(LONGEST_WORD);
    let end = caption.char_indices().nth(longest);
    end.map_or(caption, |(end, _)| &caption[..end])
}

/// How often each word occurs in the captions, sorted by word.
fn count_words<S: AsRef<str>>(
    captions: impl Iterator<Item = S>,
    context_length: usize,
    normalizer: &Sequence,
) -> tokenizers::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for caption in captions {
        let mut text = NormalizedString::from(beginning(caption.as_ref(), context_length));
        normalizer.normalize(&mut text)?;
        let mut text = PreTokenizedString::from(text);
        BertPreTokenizer.pre_tokenize(&mut text)?;
        for (word, _, _) in text.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            // A longer word is one unknown token to the model.
            if word.chars().nth(LONGEST_WORD).is_none() {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(counts)
}

fn train_word_piece(
    counts: &BTreeMap<String, usize>,
    specials: &[AddedToken],
    config: &TokenizerConfig,
) -> tokenizers::Result<WordPiece> {
    let inner_pieces: BTreeSet<char> = counts
        .keys()
        .flat_map(|word| word.chars().skip(1))
        .collect();
    let pieces = inner_pieces
        .iter()
        .map(|piece| AddedToken::from(format!("{CONTINUATION}{piece}"), false));
    let mut trainer = WordPieceTrainer::builder()
        .vocab_size(config.vocab_size)
        .min_frequency(config.min_frequency)
        .continuing_subword_prefix(CONTINUATION.into())
        .special_tokens(specials.iter().cloned().chain(pieces).collect())
        .show_progress(false)
        .build();
    let words = counts
        .iter()
        .flat_map(|(word, &count)| std::iter::repeat_n(word, count));
    trainer.feed(words, |word| Ok(vec![word.to_owned()]))?;
    let model = WordPiece::builder().unk_token("[UNK]".into());
    let mut model = model.max_input_chars_per_word(LONGEST_WORD).build()?;
    trainer.train(&mut model)?;
    Ok(model)
}

mod published;
#[cfg(test)]
mod tests;
mod words;
