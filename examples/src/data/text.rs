//! Captions and questions in the form that ALBEF trains on (Li et al. 2021; its `pre_caption` and
//! `pre_question`): lower case, without punctuation, of at most so many words.
//!
//! Uncased BERT vocabularies split punctuation off as tokens of their own. A context of 25 tokens
//! has no room for them.

/// The most words of a caption that ALBEF reads.
pub const CAPTION_WORDS: usize = 30;
/// The most words of a question that ALBEF reads in training; in tests it reads 50.
pub const QUESTION_WORDS: usize = 30;

/// A caption in lower case, without `,.'!?"()*#:;~`, with hyphens and slashes as spaces and
/// `<person>` (the mark of Conceptual Captions for a name) as a plain word: its first `words`
/// words, with one space between each two. `None` if nothing is left.
///
/// ALBEF keeps a lone tab or line feed; here every run of white space is one space.
pub fn normalise_caption(caption: &str, words: usize) -> Option<String> {
    first_words(&stripped(caption).replace("<person>", "person"), words)
}

/// A question, likewise, without the rule for `<person>`. `None` if nothing is left.
///
/// ALBEF keeps runs of spaces, whose gaps count as words; here they are one space.
pub fn normalise_question(question: &str, words: usize) -> Option<String> {
    first_words(&stripped(question), words)
}

fn stripped(text: &str) -> String {
    text.to_lowercase()
        .chars()
        .filter(|character| !",.'!?\"()*#:;~".contains(*character))
        .map(|character| {
            if matches!(character, '-' | '/') {
                ' '
            } else {
                character
            }
        })
        .collect()
}

fn first_words(text: &str, words: usize) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().take(words).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ALBEF's own functions give, computed apart from this code, in Python.
    #[test]
    fn texts_are_those_of_albef() {
        for (text, caption, question) in [
            (
                "A man's (red) T-shirt, size: 4/5!",
                "a mans red t shirt size 4 5",
                "a mans red t shirt size 4 5",
            ),
            (
                "<PERSON> said: \"#Hello; world~*\"",
                "person said hello world",
                "<person> said hello world",
            ),
            ("What is it?  ", "what is it", "what is it"),
            ("ÄRGER & co_1", "ärger & co_1", "ärger & co_1"),
        ] {
            assert_eq!(normalise_caption(text, 30).as_deref(), Some(caption));
            assert_eq!(normalise_question(text, 30).as_deref(), Some(question));
        }
    }

    #[test]
    fn only_the_first_words_stay() {
        let text = (0..40).map(|i| i.to_string()).collect::<Vec<_>>().join(" ");
        for (words, last) in [(1, "0"), (CAPTION_WORDS, "29"), (QUESTION_WORDS, "29")] {
            for normalised in [
                normalise_caption(&text, words),
                normalise_question(&text, words),
            ] {
                let normalised = normalised.unwrap();
                assert_eq!(normalised.split(' ').count(), words);
                assert_eq!(normalised.split(' ').next_back(), Some(last));
            }
        }
        assert_eq!(normalise_caption("a\n b \t c--d", 30).unwrap(), "a b c d");
    }

    #[test]
    fn what_is_all_punctuation_is_nothing() {
        for text in ["", " \n", "?!...", "- / -"] {
            assert_eq!(normalise_caption(text, 30), None);
            assert_eq!(normalise_question(text, 30), None);
        }
        assert_eq!(normalise_caption("word", 0), None);
    }
}
