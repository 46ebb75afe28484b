//! The answer of a list that is the most likely one, as ALBEF chooses it: the first tokens of the
//! answers select some of them, whose whole likelihoods are compared.
//!
//! ALBEF's program counts the first token's probability twice; here it counts once, so that an
//! answer's probability is that of its tokens.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};

use super::Vqa;
use super::step::{Answers, Questions};
use crate::data::{Asked, Shard};

/// Logits that are in memory at the same time, in values: 64 MiB.
const LOGITS: usize = 1 << 24;

/// A model's answer to a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Its place in the list of answers.
    pub place: usize,
    /// Its likelihood among the answers that were compared, from 0 to 1.
    pub probability: f64,
}

impl Vqa {
    /// The answers to the questions of a shard.
    pub fn answer(&self, shard: &Shard<Asked>, device: &Device) -> Vec<Ranked> {
        let Some(first) = shard.items.first() else {
            return Vec::new();
        };
        let questions = Questions::new(shard, device);
        let answerer = self.answerer();
        let states = answerer.read(&questions);
        let [vocabulary, _] = self.model.bert.embeddings.words().dims();
        let ranking = Ranking {
            list: first.choices.tokens(),
            questions: shard.items.len(),
            most: self.most_answers,
            vocabulary,
        };
        ranking.best(
            |rows| Answers::new(rows, shard, device),
            |answers| answerer.follow(answers, &states, &questions.padding),
        )
    }
}

/// Questions and the list of their answers.
pub(super) struct Ranking<'a> {
    /// The token ids of each answer, the special ones included.
    pub list: &'a [Vec<u32>],
    /// How many there are.
    pub questions: usize,
    /// Answers that are compared by their whole likelihood.
    pub most: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
}

/// Rows of the decoder: the index of a question, and the tokens of an answer.
type Rows<'a> = Vec<(usize, &'a [u32])>;

impl Ranking<'_> {
    /// The most likely answer of each question; the first of equals. `tensors` makes answers of
    /// rows, and `follow` gives the logits of the tokens that follow theirs.
    pub fn best(
        &self,
        tensors: impl Fn(Rows) -> Answers,
        follow: impl Fn(&Answers) -> Tensor<3>,
    ) -> Vec<Ranked> {
        let candidates = self.candidates(&tensors, &follow);
        let rows: Vec<_> = candidates
            .iter()
            .enumerate()
            .flat_map(|(question, places)| places.iter().map(move |&place| (question, place)))
            .collect();
        let longest = self.list.iter().map(Vec::len).max().unwrap_or(1);
        let mut costs = Vec::with_capacity(rows.len());
        for rows in rows.chunks(self.rows_at_once(longest)) {
            let rows = rows.iter();
            let rows = rows.map(|&(question, place)| (question, &self.list[place][..]));
            let answers = tensors(rows.collect());
            let own = answers.costs(follow(&answers), None).into_data();
            costs.extend(own.iter::<f64>());
        }
        let mut costs = &costs[..];
        let each = candidates.iter().map(|places| {
            let own = costs.split_off(..places.len()).expect("a cost a candidate");
            most_likely(places, own)
        });
        each.collect()
    }

    /// For each question the answers that are compared, ascending.
    fn candidates(
        &self,
        tensors: &impl Fn(Rows) -> Answers,
        follow: &impl Fn(&Answers) -> Tensor<3>,
    ) -> Vec<Vec<usize>> {
        if self.most >= self.list.len() {
            return vec![(0..self.list.len()).collect(); self.questions];
        }
        let mut candidates = Vec::with_capacity(self.questions);
        let questions: Vec<usize> = (0..self.questions).collect();
        for part in questions.chunks(self.rows_at_once(2)) {
            // All answers begin with the same token. The second place is not read.
            let start = &self.list[0][..2];
            let answers = tensors(part.iter().map(|&question| (question, start)).collect());
            let next = log_softmax(follow(&answers).narrow(1, 0, 1), 2).into_data();
            let next: Vec<f64> = next.iter::<f64>().collect();
            for next in next.chunks(self.vocabulary) {
                let likely = |place: &usize| next[self.list[*place][1] as usize];
                let mut places: Vec<usize> = (0..self.list.len()).collect();
                places.sort_by(|a, b| likely(b).total_cmp(&likely(a)));
                places.truncate(self.most);
                places.sort_unstable();
                candidates.push(places);
            }
        }
        candidates
    }

    fn rows_at_once(&self, length: usize) -> usize {
        (LOGITS / (length * self.vocabulary)).clamp(1, 1024)
    }
}

/// The answer that costs least, and its likelihood among all of them.
fn most_likely(places: &[usize], costs: &[f64]) -> Ranked {
    let best = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]));
    let best = best.expect("a list of answers is not empty");
    let sum: f64 = costs.iter().map(|cost| (costs[best] - cost).exp()).sum();
    Ranked {
        place: places[best],
        probability: 1.0 / sum,
    }
}
