//! Words that a tokenizer does not know, as tokens of their own.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use tokenizers::AddedToken;

use super::{CaptionTokenizer, LONGEST_WORD};

impl CaptionTokenizer {
    /// The same tokenizer with a token of its own for each word of `texts` that it does not know,
    /// in alphabetic order, as long as it has no more than `room` tokens. It leaves all other
    /// tokens as they are, and words of more than 100 characters unknown.
    ///
    /// A vocabulary of captions may lack the digits that answers are written in, and all of them
    /// would be one unknown token.
    ///
    /// # Errors
    ///
    /// If a text cannot be tokenized.
    pub fn with_words<'a>(
        mut self,
        texts: impl IntoIterator<Item = &'a str>,
        room: usize,
    ) -> Result<Self> {
        let Some(unknown) = self.token_to_id("[UNK]") else {
            return Ok(self);
        };
        let mut words = BTreeSet::new();
        let words_of = texts.into_iter().flat_map(str::split_whitespace);
        // A longer one stays unknown: what the crate does to a word takes quadratic time.
        for word in words_of.filter(|word| word.chars().nth(LONGEST_WORD).is_none()) {
            let encoding = self.inner.encode_fast(word, false);
            let encoding =
                encoding.map_err(|error| anyhow!("cannot tokenize {word:?}: {error}"))?;
            if encoding.get_ids().contains(&unknown) {
                words.insert(word.to_lowercase());
            }
        }
        let left = room.saturating_sub(self.vocab_size());
        let words = words.into_iter().take(left);
        let words: Vec<_> = words
            .map(|word| AddedToken::from(word, false).single_word(true))
            .collect();
        self.inner.add_tokens(&words);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::TokenizerConfig;
    use super::*;

    #[test]
    fn unknown_words_become_tokens_as_far_as_there_is_room() {
        let captions = ["a red disc", "two red discs"].into_iter();
        let tokenizer = CaptionTokenizer::train(captions, &TokenizerConfig::default()).unwrap();
        let size = tokenizer.vocab_size();
        let unknown = tokenizer.token_to_id("[UNK]").unwrap();
        let answers = ["red", "7", "12", "7 discs"];
        let own = |tokenizer: &CaptionTokenizer, text: &str| {
            let ids = tokenizer.encode(text).unwrap();
            ids[1..ids.len() - 1].to_vec()
        };
        assert_eq!(own(&tokenizer, "7"), [unknown]);

        let roomy = tokenizer.clone().with_words(answers, size + 9).unwrap();
        assert_eq!(roomy.vocab_size(), size + 2);
        assert_eq!(own(&roomy, "12"), [size as u32]);
        assert_eq!(own(&roomy, "7"), [size as u32 + 1]);
        assert_eq!(own(&roomy, "red disc"), own(&tokenizer, "red disc"));
        // A part of another word stays unknown.
        assert_eq!(own(&roomy, "127"), [unknown]);
        // It is the same after it was saved, and once more.
        let file = tempfile::NamedTempFile::new().unwrap();
        roomy.save(file.path()).unwrap();
        let again = CaptionTokenizer::load(file.path(), 48).unwrap();
        assert_eq!(own(&again, "7 disc"), own(&roomy, "7 disc"));
        let twice = again.with_words(answers, size + 9).unwrap();
        assert_eq!(twice.fingerprint(), roomy.fingerprint());

        let long = "7".repeat(1_000_000);
        let endless = tokenizer.clone().with_words([&*long], size + 9).unwrap();
        assert_eq!(endless.vocab_size(), size);

        let narrow = tokenizer.with_words(answers, size + 1).unwrap();
        assert_eq!(narrow.vocab_size(), size + 1);
        assert_eq!(own(&narrow, "7"), [unknown]);
    }
}
