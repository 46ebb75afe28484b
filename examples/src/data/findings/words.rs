//! Words for findings, and for what is none.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::draw::Form;
use super::{Finding, Patient};
use crate::data::scenes::{pick, sentence};

/// Sentences that every report might have.
const UNSPECIFIC: &[&str] = &[
    "Images of the chest were obtained",
    "Comparison is made with the earlier study",
    "No earlier study is at hand",
    "The patient was turned a little to one side",
    "The depth of breath is moderate",
    "Ribs and shoulders are unremarkable",
    "The upper abdomen is unremarkable",
    "The vessels at the root of the lungs look as expected",
    "Follow-up as clinically indicated",
    "These results were passed on by telephone",
    "The windpipe lies in the middle",
    "The outline of the diaphragm can be followed",
    "Soft tissues show nothing of note",
    "The study is limited by exposure",
    "Otherwise there is little change",
];

/// What a finding is called.
pub(super) fn nouns(finding: Finding) -> &'static [&'static str] {
    match finding {
        Finding::EnlargedHeart => &[
            "enlargement of the heart",
            "cardiac enlargement",
            "widening of the cardiac silhouette",
        ],
        Finding::Effusion => &[
            "pleural effusion",
            "fluid in the pleural space",
            "layering fluid at the base",
        ],
        Finding::Pneumothorax => &["pneumothorax", "free air in the pleural space"],
        Finding::Consolidation => &["consolidation", "patchy opacity", "airspace opacity"],
        Finding::Edema => &["edema", "central haze in both lungs", "vascular congestion"],
        Finding::Nodule => &["nodule", "round, well-defined lesion", "coin-shaped lesion"],
        Finding::Device => &["implanted device", "pacemaker", "generator with a lead"],
        Finding::CurvedSpine => &["curvature of the spine", "scoliosis", "bend of the spine"],
    }
}

/// Whether it is at one side.
fn has_side(finding: Finding) -> bool {
    !matches!(finding, Finding::EnlargedHeart | Finding::Edema)
}

/// A sentence that says that a finding is there, mostly with its size and side.
pub(super) fn describe(finding: Finding, form: Form, rng: &mut impl Rng) -> String {
    let noun = pick(nouns(finding), rng);
    let size = if form.is_large {
        pick(&["large", "marked", "extensive", "pronounced"], rng)
    } else {
        pick(&["small", "mild", "slight", "minor"], rng)
    };
    let size = if rng.random_bool(0.85) {
        format!("{size} ")
    } else {
        String::new()
    };
    let side = if form.is_left { "left" } else { "right" };
    let side = has_side(finding).then_some(side);
    let side = side.filter(|_| rng.random_bool(0.85));
    let words = match (side, rng.random_range(0..5)) {
        (Some(side), 0) => format!("there is {size}{noun} on the {side}"),
        (Some(side), 1) => format!("{size}{noun}, {side} side"),
        (Some(side), 2) => format!("on the {side}, {size}{noun} is seen"),
        (Some(side), 3) => format!("{side}-sided {size}{noun}"),
        (Some(side), _) => format!("we note {size}{noun} at the {side}"),
        (None, 0) => format!("there is {size}{noun}"),
        (None, 1) => format!("{size}{noun}"),
        (None, 2) => format!("{size}{noun} is present"),
        (None, 3) => format!("findings fit {size}{noun}"),
        (None, _) => format!("we note {size}{noun}"),
    };
    sentence(&words)
}

/// A sentence that says that a finding is not there.
fn deny(finding: Finding, rng: &mut impl Rng) -> String {
    let noun = pick(nouns(finding), rng);
    let words = match rng.random_range(0..3) {
        0 => format!("no {noun}"),
        1 => format!("there is no {noun}"),
        _ => format!("no evidence of {noun}"),
    };
    sentence(&words)
}

/// A report of at most `count` sentences, of which none is there twice: one of each finding, then,
/// for a share `specific`, of one of the findings again, else one that speaks of none.
pub(super) fn report(
    patient: &Patient,
    count: usize,
    specific: f64,
    rng: &mut impl Rng,
) -> Vec<String> {
    let own = |finding: Finding, rng: &mut _| {
        let form = patient.form(finding).expect("it is there");
        describe(finding, form, rng)
    };
    let present = &patient.present;
    let mut sentences: Vec<String> = present.iter().map(|&finding| own(finding, rng)).collect();
    while sentences.len() < count {
        let next = if !present.is_empty() && rng.random_bool(specific) {
            own(present[rng.random_range(0..present.len())], rng)
        } else if rng.random_bool(0.5) {
            sentence(pick(UNSPECIFIC, rng))
        } else {
            let absent = Finding::ALL.map(|one| (!present.contains(&one)).then_some(one));
            let absent: Vec<Finding> = absent.into_iter().flatten().collect();
            deny(absent[rng.random_range(0..absent.len())], rng)
        };
        sentences.push(next);
    }
    // The order says nothing, and a sentence that was drawn twice is there once.
    sentences.sort_unstable();
    sentences.dedup();
    sentences.shuffle(rng);
    sentences
}
