//! Vocabularies as CLIP and BERT are published with: CLIP's list of merges, BERT's list of pieces.

use std::collections::HashMap;
use std::io::Read;

use anyhow::{Result, bail, ensure};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::{CONTINUATION, LONGEST_WORD, SPECIAL_TOKENS};

/// The merges that CLIP uses of its file, which has more.
const MERGES: usize = 49_152 - 256 - 2;
/// A larger file is no vocabulary.
const LARGEST: u64 = 64 << 20;
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const WORD_END: &str = "</w>";
/// CLIP's words: contractions, runs of letters, single digits, runs of anything else.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The text of a file, which may be compressed by gzip.
pub(super) fn text(bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut reader = GzDecoder::new(bytes).take(LARGEST);
        reader.read_to_string(&mut text)?;
    } else {
        text = String::from_utf8(bytes.to_vec())?;
    }
    Ok(text)
}

/// The `tokenizer.json` that a published vocabulary is of: CLIP's merges
/// (`bpe_simple_vocab_16e6.txt`), or BERT's pieces, one a line (`vocab.txt`).
pub(super) fn tokenizer(text: &str) -> Result<Value> {
    let first = text.lines().next().unwrap_or_default();
    if first.contains("bpe_simple_vocab") || first.starts_with("#version") {
        clip(text)
    } else if text.lines().any(|line| line == "[UNK]") {
        bert(text)
    } else {
        bail!(
            "it is no tokenizer.json, no list of CLIP's merges (bpe_simple_vocab_16e6.txt.gz), and \
             no vocabulary of BERT, which has a line [UNK]"
        )
    }
}

/// As OpenAI's `SimpleTokenizer` reads text, but for its repair of text that was decoded wrongly.
fn clip(text: &str) -> Result<Value> {
    let lines = text.lines().skip(1).take(MERGES);
    let pairs = lines.filter(|line| !line.trim().is_empty()).map(|line| {
        let pair = line.split_once(' ');
        match pair.filter(|(_, second)| !second.contains(' ')) {
            Some(pair) => Ok(pair),
            None => bail!("{line:?} is no merge of two pieces"),
        }
    });
    let merges = pairs.collect::<Result<Vec<_>>>()?;
    let letters = byte_letters();
    let ends = letters.iter().map(|letter| format!("{letter}{WORD_END}"));
    let merged = merges
        .iter()
        .map(|(first, second)| format!("{first}{second}"));
    let pieces = letters
        .iter()
        .map(char::to_string)
        .chain(ends)
        .chain(merged);
    let mut vocabulary: Vec<String> = pieces.collect();
    vocabulary.extend([START, END].map(str::to_string));
    Ok(json!({
        "version": "1.0",
        "added_tokens": specials(&ids(&vocabulary), &[START, END])?,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true},
            {"type": "Lowercase"}
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
             "use_regex": false}
        ]},
        "post_processor": around(&ids(&vocabulary), START, END),
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": false},
        "model": {"type": "BPE", "unk_token": END, "end_of_word_suffix": WORD_END,
                  "vocab": ids(&vocabulary), "merges": merges}
    }))
}

/// The letters that stand for the bytes 0 to 255 in the vocabularies of CLIP and GPT-2, in the
/// order of their ids: those that can be printed stand for themselves and come first.
fn byte_letters() -> Vec<char> {
    let printed = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff);
    let printed: Vec<u32> = printed.collect();
    let others = 256 - printed.len() as u32;
    let letters = printed.into_iter().chain(0x100..0x100 + others);
    letters.filter_map(char::from_u32).collect()
}

/// As BERT reads text: in lower case without accents, unless the vocabulary has words with capital
/// letters.
fn bert(text: &str) -> Result<Value> {
    let vocabulary: Vec<String> = text.lines().map(str::to_string).collect();
    let is_special = |piece: &str| piece.starts_with('[') && piece.ends_with(']');
    let mut plain = vocabulary.iter().filter(|piece| !is_special(piece));
    let is_cased = plain.any(|piece| piece.chars().any(|letter| letter.is_ascii_uppercase()));
    let ids = ids(&vocabulary);
    Ok(json!({
        "version": "1.0",
        "added_tokens": specials(&ids, &SPECIAL_TOKENS)?,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": !is_cased},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": around(&ids, "[CLS]", "[SEP]"),
        "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": ids,
                  "continuing_subword_prefix": CONTINUATION,
                  "max_input_chars_per_word": LONGEST_WORD}
    }))
}

/// The pieces with their places.
fn ids(vocabulary: &[String]) -> HashMap<&str, usize> {
    let pieces = vocabulary.iter().enumerate();
    pieces.map(|(id, piece)| (piece.as_str(), id)).collect()
}

/// Tokens that stand for no text.
fn specials(ids: &HashMap<&str, usize>, tokens: &[&str]) -> Result<Value> {
    let missing = tokens.iter().find(|&token| !ids.contains_key(token));
    ensure!(
        missing.is_none(),
        "the vocabulary has no line {}",
        missing.unwrap_or(&"")
    );
    let token = |token: &&str| {
        json!({"id": ids[token], "content": token, "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    Ok(tokens.iter().map(token).collect())
}

/// A token before each text, and one behind it.
fn around(ids: &HashMap<&str, usize>, first: &str, last: &str) -> Value {
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let of = |token: &str| json!({"id": token, "ids": [ids[token]], "tokens": [token]});
    json!({
        "type": "TemplateProcessing",
        "single": [special(first), text("A"), special(last)],
        "pair": [special(first), text("A"), special(last), text("B"), special(last)],
        "special_tokens": {first: of(first), last: of(last)}
    })
}
