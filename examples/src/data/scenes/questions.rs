//! Questions about a scene, each with the one answer that its attributes give.
//!
//! An image gets one question of each kind:
//!
//! | kind | asks | answers |
//! |---|---|---|
//! | `colour` | for the colour of an object, told by other attributes or its place | 8 |
//! | `shape` | likewise, for its shape | 4 |
//! | `size` | likewise, for its size | 2 |
//! | `count` | how many objects fit a description | 0 to 3 |
//! | `exists` | whether an object fits a description | yes, no |
//! | `relation` | whether an object is left of, above … another; what is | yes, no, 4 + 8 |
//!
//! What is asked about is unambiguous: "the red circle" is said where there is one. Relations are
//! asked for in the direction in which the layout places the two objects. Whether the answer is
//! yes or no is decided first, by a coin, and so is the number of a count, evenly among those that
//! some description has.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::caption::{pick, relation_words};
use super::describe::{Description, NOUNS, SHAPELESS, plural, with_article};
use super::scene::{Colour, Layout, Object, Relation, Scene, Shape, Size};

/// A question with its answer.
pub(super) struct Asked {
    pub kind: &'static str,
    pub question: String,
    pub answer: String,
}

/// Every answer that there is.
pub(super) fn answers() -> Vec<String> {
    let words = ["yes", "no", "0", "1", "2", "3"];
    let sizes = [Size::Small, Size::Large].map(size_answer);
    let mut answers: Vec<String> = words.into_iter().chain(sizes).map(String::from).collect();
    answers.extend(Colour::ALL.map(colour_answer));
    answers.extend(Shape::ALL.map(shape_answer));
    answers
}

fn size_answer(size: Size) -> &'static str {
    match size {
        Size::Small => "small",
        Size::Large => "large",
    }
}

fn colour_answer(colour: Colour) -> String {
    format!("{colour:?}").to_lowercase()
}

fn shape_answer(shape: Shape) -> String {
    format!("{shape:?}").to_lowercase()
}

fn yes_or_no(is_so: bool) -> String {
    if is_so { "yes".into() } else { "no".into() }
}

/// One question of each kind about `scene`.
pub(super) fn questions(scene: &Scene, rng: &mut impl Rng) -> Vec<Asked> {
    let asked = |kind, (question, answer): (String, String)| Asked {
        kind,
        question: format!("{question}?"),
        answer,
    };
    vec![
        asked("colour", colour(scene, rng)),
        asked("shape", shape(scene, rng)),
        asked("size", size(scene, rng)),
        asked("count", count(scene, rng)),
        asked("exists", exists(scene, rng)),
        asked("relation", relation(scene, rng)),
    ]
}

/// A word for the place of an object that no other object has.
fn place(scene: &Scene, index: usize) -> Option<&'static str> {
    let last = scene.objects.len() - 1;
    match (scene.layout, index) {
        (Layout::Row, 0) => Some("leftmost"),
        (Layout::Row, _) if index == last => Some("rightmost"),
        (Layout::Column, 0) | (Layout::PairBelow, 2) => Some("topmost"),
        (Layout::Column, _) if index == last => Some("lowest"),
        (Layout::PairAbove, 2) => Some("lowest"),
        (Layout::Row | Layout::Column, _) => Some("middle"),
        _ => None,
    }
}

/// An object, and words that no other object fits: those of `allowed` descriptions, or its place.
fn the_one<'a>(
    scene: &'a Scene,
    allowed: impl Fn(Description) -> bool,
    nouns: &[&'static str],
    rng: &mut impl Rng,
) -> (&'a Object, String) {
    let described: Vec<_> = Description::all()
        .filter(|description| description.attributes() > 0 && description.count(scene) == 1)
        .filter(|&description| allowed(description))
        .collect();
    let placed: Vec<_> = (0..scene.objects.len())
        .filter_map(|index| Some((index, place(scene, index)?)))
        .collect();
    // Descriptions are the rule. Every scene has an object with a place of its own.
    match described.choose(rng).filter(|_| rng.random_bool(0.75)) {
        Some(&description) => {
            let mut objects = scene.objects.iter();
            let object = objects.find(|object| description.fits(object));
            (object.expect("one fits"), description.named(nouns, rng))
        }
        None => {
            let &(index, word) = placed.choose(rng).expect("one has a place of its own");
            let noun = pick(nouns, rng);
            (&scene.objects[index], format!("{word} {noun}"))
        }
    }
}

fn colour(scene: &Scene, rng: &mut impl Rng) -> (String, String) {
    let allowed = |description: Description| description.colour.is_none();
    let (object, name) = the_one(scene, allowed, NOUNS, rng);
    let question = match rng.random_range(0..3) {
        0 => format!("what colour is the {name}"),
        1 => format!("what is the colour of the {name}"),
        _ => format!("which colour does the {name} have"),
    };
    (question, colour_answer(object.colour))
}

fn shape(scene: &Scene, rng: &mut impl Rng) -> (String, String) {
    let allowed = |description: Description| description.shape.is_none();
    let (object, name) = the_one(scene, allowed, SHAPELESS, rng);
    let question = match rng.random_range(0..3) {
        0 => format!("what shape is the {name}"),
        1 => format!("what is the shape of the {name}"),
        _ => format!("which shape does the {name} have"),
    };
    (question, shape_answer(object.shape))
}

fn size(scene: &Scene, rng: &mut impl Rng) -> (String, String) {
    let allowed = |description: Description| description.size.is_none();
    let (object, name) = the_one(scene, allowed, NOUNS, rng);
    let question = match rng.random_range(0..3) {
        0 => format!("what size is the {name}"),
        1 => format!("is the {name} large or small"),
        _ => format!("which size does the {name} have"),
    };
    (question, size_answer(object.size).into())
}

fn count(scene: &Scene, rng: &mut impl Rng) -> (String, String) {
    // Three attributes never fit two objects.
    let descriptions: Vec<_> = Description::all()
        .filter(|description| description.attributes() < 3)
        .collect();
    let fitting = |number: usize| {
        let fit = descriptions.iter().copied();
        fit.filter(move |description| description.count(scene) == number)
    };
    let possible: Vec<_> = (0..=3).filter(|&n| fitting(n).next().is_some()).collect();
    let number = *possible.choose(rng).expect("no scene has every colour");
    // As often by one attribute as by two: there are more of the latter.
    let attributes = rng.random_range(0..3);
    let mut fit: Vec<_> = fitting(number).collect();
    if fit.iter().any(|other| other.attributes() == attributes) {
        fit.retain(|other| other.attributes() == attributes);
    }
    let names = fit.choose(rng).expect("one fits").several(rng);
    let question = match rng.random_range(0..3) {
        0 => format!("how many {names} are there"),
        1 => format!("how many {names} can you see"),
        _ => format!("what is the number of {names}"),
    };
    (question, number.to_string())
}

fn exists(scene: &Scene, rng: &mut impl Rng) -> (String, String) {
    let is_so: bool = rng.random();
    let forms: [fn(Description) -> bool; 5] = [
        |d| d.attributes() == 1 && d.colour.is_some(),
        |d| d.attributes() == 1 && d.shape.is_some(),
        |d| d.attributes() == 2 && d.colour.is_none(),
        |d| d.attributes() == 2 && d.size.is_none(),
        |d| d.attributes() == 2 && d.shape.is_none(),
    ];
    let form = forms.choose(rng).expect("five");
    let has = |description: Description| description.count(scene) > 0;
    // Each attribute alone is there: what is absent is their meeting in one object.
    let nearly = |description: Description| {
        let alone = [
            Description {
                size: description.size,
                ..Description::ANY
            },
            Description {
                colour: description.colour,
                ..Description::ANY
            },
            Description {
                shape: description.shape,
                ..Description::ANY
            },
        ];
        alone.into_iter().all(has)
    };
    let mut fit: Vec<_> = Description::all()
        .filter(|&description| form(description) && has(description) == is_so)
        .collect();
    let is_hard = !is_so && rng.random() && fit.iter().any(|&other| nearly(other));
    if is_hard {
        fit.retain(|&other| nearly(other));
    }
    let description = *fit
        .choose(rng)
        .expect("three objects have and lack something");
    let one = description.one(rng);
    let an = with_article(&one);
    let question = match rng.random_range(0..4) {
        0 => format!("is there {an}"),
        1 => format!("are there any {}", plural(&one)),
        2 => format!("does the image show {an}"),
        _ => format!("can you see {an}"),
    };
    (question, yes_or_no(is_so))
}

/// Words that fit no other object than that one: any description of it that does.
fn unique_name(scene: &Scene, index: usize, rng: &mut impl Rng) -> String {
    let fit: Vec<_> = Description::all()
        .filter(|description| description.attributes() > 0 && description.count(scene) == 1)
        .filter(|description| description.fits(&scene.objects[index]))
        .collect();
    let description = fit
        .choose(rng)
        .expect("no two objects share all attributes");
    description.one(rng)
}

fn relation(scene: &Scene, rng: &mut impl Rng) -> (String, String) {
    if rng.random() {
        return whether_related(scene, rng);
    }
    let (reference, relation, object) = related_alone(scene, rng);
    let name = unique_name(scene, reference, rng);
    let words = relation_words(relation, rng);
    let noun = pick(SHAPELESS, rng);
    match rng.random_range(0..3) {
        0 => (
            format!("what shape is {words} the {name}"),
            shape_answer(object.shape),
        ),
        1 => (
            format!("what shape is the {noun} {words} the {name}"),
            shape_answer(object.shape),
        ),
        _ => (
            format!("what colour is the {noun} {words} the {name}"),
            colour_answer(object.colour),
        ),
    }
}

fn whether_related(scene: &Scene, rng: &mut impl Rng) -> (String, String) {
    let count = scene.objects.len();
    let first = rng.random_range(0..count);
    let second = (first + rng.random_range(1..count)) % count;
    let is_so: bool = rng.random();
    let relation = if is_so {
        scene.layout.relation(first, second)
    } else {
        scene.layout.relation(second, first)
    };
    let [a, b] = [first, second].map(|index| unique_name(scene, index, rng));
    let words = relation_words(relation, rng);
    let question = match rng.random_range(0..3) {
        0 => format!("is the {a} {words} the {b}"),
        1 => format!("is it true that the {a} is {words} the {b}"),
        _ => format!("does the {a} lie {words} the {b}"),
    };
    (question, yes_or_no(is_so))
}

/// An object, a relation, and the only other object that has this relation to it.
///
/// In a triangle the third object is above or below the two others, and a little left or right of
/// them: only above and below are unambiguous there.
fn related_alone<'a>(scene: &'a Scene, rng: &mut impl Rng) -> (usize, Relation, &'a Object) {
    let count = scene.objects.len();
    let is_line = matches!(scene.layout, Layout::Row | Layout::Column);
    let mut found = Vec::new();
    for reference in 0..count {
        let others = || (0..count).filter(|&other| other != reference);
        for other in others() {
            let relation = scene.layout.relation(other, reference);
            let same = others().filter(|&o| scene.layout.relation(o, reference) == relation);
            let is_clear = is_line || matches!(relation, Relation::Above | Relation::Below);
            if is_clear && same.count() == 1 {
                found.push((reference, relation, &scene.objects[other]));
            }
        }
    }
    *found
        .choose(rng)
        .expect("the outermost object is alone on its side")
}
