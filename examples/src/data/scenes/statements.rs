//! Statements about two scenes, whose truth their attributes decide.
//!
//! | kind | says |
//! |---|---|
//! | `count` | how many objects that fit a description one image shows, or both together |
//! | `compare` | that an image shows more or fewer of them than the other, or as many |
//! | `exists` | that both images, neither, exactly one, at least one or a given one shows one |
//! | `all` | that all objects of one image, or of both, have an attribute |
//!
//! What is said is drawn first. Then images are sought of which it is true, and others of which it
//! is false: every thing that is said is true once and false once, in words drawn anew, so that
//! words alone tell nothing about the truth.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::caption::{pick, sentence};
use super::describe::{Description, NOUNS, plural};
use super::scene::{Colour, Scene, Shape, Size};

/// The kinds of statements.
pub(super) const KINDS: [&str; 4] = ["count", "compare", "exists", "all"];
/// Pairs of images among which a true and a false one are sought.
const PAIRS: usize = 400;
/// Statements that are drawn until one is true of some pair and false of another.
const DRAWS: usize = 100;

/// One of two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn random(rng: &mut impl Rng) -> Self {
        if rng.random() {
            Self::Left
        } else {
            Self::Right
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    fn of(self, [left, right]: [&Scene; 2]) -> &Scene {
        match self {
            Self::Left => left,
            Self::Right => right,
        }
    }

    fn name(self, rng: &mut impl Rng) -> &'static str {
        match self {
            Self::Left => pick(&["the left image", "the image on the left"], rng),
            Self::Right => pick(&["the right image", "the image on the right"], rng),
        }
    }
}

/// Which images have something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Both,
    Neither,
    OnlyOne,
    AtLeastOne,
    This(Side),
}

/// An attribute that all objects may have.
#[derive(Clone, Copy, Debug)]
enum Attribute {
    Size(Size),
    Colour(Colour),
    Shape(Shape),
}

/// What a statement says.
#[derive(Clone, Copy, Debug)]
enum Claim {
    Count(Option<Side>, usize, Description),
    More(Side, Description),
    AsMany(Description),
    Exists(Which, Description),
    All(Option<Side>, Attribute),
}

impl Claim {
    fn random(kind: &str, rng: &mut impl Rng) -> Self {
        let described = Description::random(rng);
        let anything = rng.random_bool(0.4);
        let what = if anything {
            Description::ANY
        } else {
            described
        };
        let side = Side::random(rng);
        match kind {
            "count" => {
                let is_both = rng.random();
                let numbers = match (is_both, anything) {
                    (true, true) => 4..=6,
                    (true, false) => 1..=3,
                    (false, true) => 2..=3,
                    (false, false) => 1..=2,
                };
                Self::Count((!is_both).then_some(side), rng.random_range(numbers), what)
            }
            "compare" if rng.random_range(0..3) == 0 => Self::AsMany(what),
            "compare" => Self::More(side, what),
            "exists" => {
                let which = [
                    Which::Both,
                    Which::Neither,
                    Which::OnlyOne,
                    Which::AtLeastOne,
                    Which::This(side),
                ];
                Self::Exists(*which.choose(rng).expect("five"), described)
            }
            _ => {
                let attribute = match rng.random_range(0..4) {
                    0 => Attribute::Colour(*Colour::ALL.choose(rng).expect("eight")),
                    1 => Attribute::Shape(*Shape::ALL.choose(rng).expect("four")),
                    2 => Attribute::Size(Size::Small),
                    _ => Attribute::Size(Size::Large),
                };
                Self::All(rng.random_bool(0.7).then_some(side), attribute)
            }
        }
    }

    /// Whether it is true of two images.
    fn holds(self, images: [&Scene; 2]) -> bool {
        let numbers = |what: Description| images.map(|scene| what.count(scene));
        match self {
            Self::Count(Some(side), number, what) => what.count(side.of(images)) == number,
            Self::Count(None, number, what) => numbers(what).iter().sum::<usize>() == number,
            Self::More(side, what) => {
                what.count(side.of(images)) > what.count(side.other().of(images))
            }
            Self::AsMany(what) => numbers(what)[0] == numbers(what)[1],
            Self::Exists(which, what) => {
                let has = numbers(what).map(|number| number > 0);
                match which {
                    Which::Both => has == [true; 2],
                    Which::Neither => has == [false; 2],
                    Which::OnlyOne => has[0] != has[1],
                    Which::AtLeastOne => has != [false; 2],
                    Which::This(side) => what.count(side.of(images)) > 0,
                }
            }
            Self::All(side, attribute) => {
                let what = attribute.description();
                let all = |scene: &Scene| what.count(scene) == scene.objects.len();
                side.map_or_else(|| images.into_iter().all(all), |side| all(side.of(images)))
            }
        }
    }

    fn text(self, rng: &mut impl Rng) -> String {
        let form = rng.random_range(0..3);
        let verb = pick(&["shows", "contains", "has"], rng);
        let words = match self {
            Self::Count(side, number, what) => count(side, number, what, form, verb, rng),
            Self::More(side, what) => {
                let things = what.several(rng);
                let [this, that] = [side, side.other()].map(|side| side.name(rng));
                match form {
                    0 => format!("{this} {verb} more {things} than {that}"),
                    1 => format!("there are more {things} in {this} than in {that}"),
                    _ => format!("{that} {verb} fewer {things} than {this}"),
                }
            }
            Self::AsMany(what) => {
                let things = what.several(rng);
                let side = Side::random(rng);
                let [this, that] = [side, side.other()].map(|side| side.name(rng));
                match form {
                    0 => format!("both images show the same number of {things}"),
                    1 => format!("{this} {verb} as many {things} as {that}"),
                    _ => format!("there are as many {things} in {this} as in {that}"),
                }
            }
            Self::Exists(which, what) => exists(which, what, form, verb, rng),
            Self::All(side, attribute) => all(side, attribute, form, rng),
        };
        sentence(&words)
    }
}

impl Attribute {
    fn description(self) -> Description {
        let mut description = Description::ANY;
        match self {
            Self::Size(size) => description.size = Some(size),
            Self::Colour(colour) => description.colour = Some(colour),
            Self::Shape(shape) => description.shape = Some(shape),
        }
        description
    }
}

fn count(
    side: Option<Side>,
    number: usize,
    what: Description,
    form: usize,
    verb: &str,
    rng: &mut impl Rng,
) -> String {
    let word = ["no", "one", "two", "three", "four", "five", "six"][number];
    let things = what.so_many(number, rng);
    let are = if number == 1 { "is" } else { "are" };
    match (side, form) {
        (Some(side), 0) => format!("there {are} exactly {word} {things} in {}", side.name(rng)),
        (Some(side), 1) => format!("{} {verb} exactly {word} {things}", side.name(rng)),
        (Some(side), _) => format!("in {} {are} exactly {word} {things}", side.name(rng)),
        (None, 0) => format!("both images together show exactly {word} {things}"),
        (None, 1) => format!("there {are} exactly {word} {things} in both images together"),
        (None, _) => format!("in total the two images have exactly {word} {things}"),
    }
}

fn exists(which: Which, what: Description, form: usize, verb: &str, rng: &mut impl Rng) -> String {
    let an = what.an(rng);
    let plain = match verb {
        "shows" => "show",
        "contains" => "contain",
        _ => "have",
    };
    match (which, form) {
        (Which::Both, 0) => format!("both images {plain} {an}"),
        (Which::Both, 1) => format!("each of the two images {verb} {an}"),
        (Which::Both, _) => format!("there is {an} in both images"),
        (Which::Neither, 0) => format!("neither image {verb} {an}"),
        (Which::Neither, 1) => format!("neither of the two images {verb} {an}"),
        (Which::Neither, _) => format!("there is no {} in either image", what.one(rng)),
        (Which::OnlyOne, 0) => format!("exactly one image {verb} {an}"),
        (Which::OnlyOne, 1) => format!("only one of the two images {verb} {an}"),
        (Which::OnlyOne, _) => format!("there is {an} in exactly one image"),
        (Which::AtLeastOne, 0) => format!("at least one image {verb} {an}"),
        (Which::AtLeastOne, 1) => format!("one or both of the images {plain} {an}"),
        (Which::AtLeastOne, _) => format!("there is {an} in at least one image"),
        (Which::This(side), 0) => format!("{} {verb} {an}", side.name(rng)),
        (Which::This(side), 1) => format!("there is {an} in {}", side.name(rng)),
        (Which::This(side), _) => format!("in {} you can see {an}", side.name(rng)),
    }
}

fn all(side: Option<Side>, attribute: Attribute, form: usize, rng: &mut impl Rng) -> String {
    let images = side.map_or("both images", |side| side.name(rng));
    let thing = pick(NOUNS, rng);
    let things = plural(thing);
    let what = attribute.description();
    match attribute {
        Attribute::Shape(_) => match form {
            0 => format!("all {things} in {images} are {}", what.several(rng)),
            1 => format!("every {thing} in {images} is {}", what.an(rng)),
            _ => format!("there is nothing but {} in {images}", what.several(rng)),
        },
        _ => {
            // The word before the noun.
            let name = what.named(&["x"], rng);
            let word = name.trim_end_matches(" x");
            match form {
                0 => format!("all {things} in {images} are {word}"),
                1 => format!("every {thing} in {images} is {word}"),
                _ => format!("there is nothing but {word} {things} in {images}"),
            }
        }
    }
}

/// A statement about two images, by their indices.
pub(super) struct Stated {
    pub kind: &'static str,
    pub images: [usize; 2],
    pub text: String,
    pub label: bool,
}

/// Two statements of `kind` about two of `scenes` each, which say the same in words of their own;
/// one is true. `None` if the scenes are so few that none was found.
pub(super) fn two_statements(
    kind: &'static str,
    scenes: &[&Scene],
    rng: &mut impl Rng,
) -> Option<[Stated; 2]> {
    let is_first_true: bool = rng.random();
    for _ in 0..DRAWS {
        let claim = Claim::random(kind, rng);
        let mut found = [None; 2];
        for _ in 0..PAIRS {
            let left = rng.random_range(0..scenes.len());
            let right = (left + rng.random_range(1..scenes.len())) % scenes.len();
            let holds = claim.holds([scenes[left], scenes[right]]);
            found[usize::from(holds)].get_or_insert([left, right]);
            if let [Some(of_false), Some(of_true)] = found {
                let mut state = |label: bool| Stated {
                    kind,
                    images: if label { of_true } else { of_false },
                    text: claim.text(rng),
                    label,
                };
                return Some([state(is_first_true), state(!is_first_true)]);
            }
        }
    }
    None
}
