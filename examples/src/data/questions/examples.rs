//! Questions as tokens and pixels, with the tokens of their answers.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use rand::seq::SliceRandom;

use super::Questions;
use crate::data::random::{Purpose, stream};
use crate::data::{
    CaptionTokenizer, Draw, Examples, Padding, Split, TokenStyle, TransformConfig, decode,
};

/// A question about an image, on the host.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The image as [`TransformConfig`] cuts it out, not normalised: `[3, size, size]`.
    pub pixels: Vec<u8>,
    /// The question's token ids.
    pub tokens: Vec<u32>,
    /// Its answers.
    pub answers: Vec<Answer>,
    /// Its index in its [`Questions`].
    pub index: usize,
    /// The answers to choose from.
    pub choices: Arc<Choices>,
}

impl Asked {
    /// How right it is to give the answer at that place of the list, from 0 to 1: see [`credit`].
    pub fn credit(&self, place: usize) -> f64 {
        let own = self.answers.iter();
        let mut own = own.filter(|answer| answer.place == Some(place));
        own.next().map_or(0.0, |answer| credit(answer.share))
    }
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its token ids: `[CLS]`, those of the answer, `[SEP]`.
    pub tokens: Vec<u32>,
    /// The share of those asked who gave it.
    pub share: f32,
    /// Its place in the list of answers, if it is there.
    pub place: Option<usize>,
}

/// How right an answer is that this share of the people gave, from 0 to 1: wholly if it is three of
/// ten, as in the VQA challenge (Antol et al., 2015), so min(1, 10·share / 3). A question with one
/// answer gives 1 for it.
///
/// The challenge's own program averages this over all choices of nine of the ten people.
pub fn credit(share: f32) -> f64 {
    (10.0 * f64::from(share) / 3.0).min(1.0)
}

/// The answers to choose from, as tokens.
#[derive(Debug)]
pub struct Choices {
    texts: Vec<String>,
    tokens: Vec<Vec<u32>>,
    places: HashMap<String, usize>,
    tokenizer: CaptionTokenizer,
    separator: u32,
}

impl Choices {
    /// These answers, by a tokenizer whose style of captions does not count: answers are read as
    /// they are.
    ///
    /// # Errors
    ///
    /// If the tokenizer has no `[CLS]` or no `[SEP]`.
    pub fn new(texts: &[String], tokenizer: &CaptionTokenizer) -> Result<Self> {
        let separator = tokenizer.padding().specials.last;
        let separator = separator.context("the tokenizer has no token [SEP] to end an answer")?;
        let style = TokenStyle {
            separator: false,
            words: None,
        };
        let mut list = Self {
            texts: texts.to_vec(),
            tokens: Vec::new(),
            places: texts.iter().cloned().zip(0..).collect(),
            tokenizer: tokenizer.clone().with_style(style)?,
            separator,
        };
        let tokens = texts.iter().map(|answer| list.encode(answer));
        list.tokens = tokens.collect::<Result<_>>()?;
        Ok(list)
    }

    /// The token ids of an answer: `[CLS]`, its own, `[SEP]`.
    fn encode(&self, answer: &str) -> Result<Vec<u32>> {
        let mut tokens = self.tokenizer.encode(answer)?;
        tokens.push(self.separator);
        Ok(tokens)
    }

    /// The answers.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The token ids of each answer: `[CLS]`, its own, `[SEP]`.
    pub fn tokens(&self) -> &[Vec<u32>] {
        &self.tokens
    }

    /// The answers that no model can tell from another one, or from any word that it does not know:
    /// those with an unknown token, and those with the tokens of another answer.
    pub fn unclear(&self) -> Vec<&str> {
        let unknown = self.tokenizer.token_to_id("[UNK]");
        let mut times: HashMap<&[u32], usize> = HashMap::new();
        for tokens in &self.tokens {
            *times.entry(tokens).or_default() += 1;
        }
        let is_unclear = |tokens: &[u32]| {
            times[tokens] > 1 || unknown.is_some_and(|unknown| tokens.contains(&unknown))
        };
        let all = self.texts.iter().zip(&self.tokens);
        all.filter(|(_, tokens)| is_unclear(tokens))
            .map(|(text, _)| text.as_str())
            .collect()
    }
}

/// Questions, ready to become batches. A batch may hold several about one image.
#[derive(Clone)]
pub struct QuestionExamples {
    questions: Arc<Questions>,
    choices: Arc<Choices>,
    tokenizer: Arc<CaptionTokenizer>,
    transform: TransformConfig,
    /// Of a split.
    most: usize,
}

impl QuestionExamples {
    /// Questions as tokens and pixels.
    ///
    /// # Errors
    ///
    /// If a value of `transform` is out of range, or the tokenizer has no `[CLS]` or no `[SEP]`.
    pub fn new(
        questions: Arc<Questions>,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
    ) -> Result<Self> {
        transform.validate()?;
        Ok(Self {
            choices: Arc::new(Choices::new(&questions.answers, &tokenizer)?),
            questions,
            tokenizer,
            transform,
            most: usize::MAX,
        })
    }

    /// The same, with at most so many questions of each split: always the same ones, drawn at
    /// random.
    pub fn at_most(&self, most: usize) -> Self {
        Self {
            most,
            ..self.clone()
        }
    }

    /// The questions.
    pub fn questions(&self) -> &Questions {
        &self.questions
    }

    /// The answers to choose from.
    pub fn choices(&self) -> &Choices {
        &self.choices
    }
}

impl Examples for QuestionExamples {
    type Item = Asked;

    const NOUN: &'static str = "questions";

    fn name(&self) -> String {
        let files = self.questions.files.iter();
        let files: Vec<_> = files.map(|file| file.display().to_string()).collect();
        files.join(", ")
    }

    fn indices(&self, split: Split) -> Vec<usize> {
        let mut all = self.questions.indices(split);
        if self.most < all.len() {
            // Every n-th one could be of one kind.
            let mut order = stream(0, 0, split as u64, Purpose::Order);
            all.shuffle(&mut order);
            all.truncate(self.most);
            all.sort_unstable();
        }
        all
    }

    fn load(&self, index: usize, draw: Option<Draw>) -> Result<Asked> {
        let question = &self.questions.items[index];
        let place = || self.questions.place(index);
        let image = decode(&question.image).with_context(place)?;
        let pixels = self.transform.seen(&image, draw);
        let answers = question.answers.iter().map(|(answer, share)| {
            Ok(Answer {
                tokens: self.choices.encode(answer)?,
                share: *share,
                place: self.choices.places.get(answer).copied(),
            })
        });
        Ok(Asked {
            pixels,
            tokens: self.tokenizer.encode(&question.question)?,
            answers: answers.collect::<Result<_>>().with_context(place)?,
            index,
            choices: self.choices.clone(),
        })
    }

    fn transform(&self) -> &TransformConfig {
        &self.transform
    }

    fn padding(&self) -> Padding {
        self.tokenizer.padding()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::testing::folder;
    use crate::data::{Loader, LoaderConfig, TokenizerConfig};
    use burn::data::dataloader::DataLoader;

    fn examples(most: usize) -> (tempfile::TempDir, QuestionExamples) {
        let row = |image: &str, answers: serde_json::Value| {
            let mut row = json!({"image": image, "question": "What is it?", "split": "train"});
            row["answers"] = answers;
            row
        };
        let rows = [
            row("a.png", json!({"red": 0.1, "blue": 0.3})),
            row("a.png", json!({"sky blue": 1.0})),
            row("b.png", json!({"2": 0.2})),
        ];
        let dir = folder(
            &["a.png", "b.png"],
            &[("questions.json", json!({"questions": rows}).to_string())],
        );
        let questions = Arc::new(Questions::read(dir.path(), false).unwrap());
        let config = TokenizerConfig {
            style: TokenStyle::albef(),
            ..TokenizerConfig::default()
        };
        let texts = ["what is it", "red sky blue"].into_iter();
        let tokenizer = Arc::new(CaptionTokenizer::train(texts, &config).unwrap());
        let transform = TransformConfig {
            size: 8,
            ..TransformConfig::default()
        };
        let examples = QuestionExamples::new(questions, tokenizer, transform).unwrap();
        (dir, examples.at_most(most))
    }

    #[test]
    fn a_question_has_the_tokens_and_places_of_its_answers() {
        let (_dir, examples) = examples(usize::MAX);
        let asked = examples.load(0, None).unwrap();
        let id = |token| examples.tokenizer.token_to_id(token).unwrap();
        assert_eq!(asked.tokens[0], id("[CLS]"));
        assert!(!asked.tokens.contains(&id("[SEP]")));
        let texts = examples.choices().texts();
        for (answer, text, share) in [
            (&asked.answers[0], "blue", 0.3),
            (&asked.answers[1], "red", 0.1),
        ] {
            assert_eq!(answer.share, share);
            assert_eq!(texts[answer.place.unwrap()], text);
            assert_eq!(answer.tokens.first(), Some(&id("[CLS]")));
            assert_eq!(answer.tokens.last(), Some(&id("[SEP]")));
            assert_eq!(
                examples.choices().tokens()[answer.place.unwrap()],
                answer.tokens
            );
        }
        let place = |text| texts.iter().position(|other| other == text).unwrap();
        assert_eq!(asked.credit(place("blue")), 1.0);
        assert!((asked.credit(place("red")) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(asked.credit(place("sky blue")), 0.0);
        // No digit was in the texts of the tokenizer.
        assert_eq!(examples.choices().unclear(), ["2"]);
    }

    #[test]
    fn one_batch_has_several_questions_about_an_image() {
        let (_dir, examples) = examples(usize::MAX);
        let config = LoaderConfig {
            batch_size: 3,
            ..LoaderConfig::default()
        };
        let loader = Loader::shuffled(examples, Split::Train, config).unwrap();
        let batch = loader.iter().next().unwrap().unwrap();
        let mut indices: Vec<_> = batch[0].items.iter().map(|asked| asked.index).collect();
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2]);
    }

    #[test]
    fn a_part_of_a_split_is_always_the_same() {
        let (_dir, examples) = examples(2);
        let some = examples.indices(Split::Train);
        assert!(some.len() == 2 && some[0] < some[1] && some[1] < 3);
        assert_eq!(examples.indices(Split::Train), some);
        assert_eq!(examples.at_most(9).indices(Split::Train), [0, 1, 2]);
        assert!(examples.indices(Split::Test).is_empty());
    }
}
