//! Words for scenes: each caption tells everything that a scene's meaning holds, in an order and in
//! words of its own.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::scene::{Colour, Layout, Object, Relation, Scene, Shape, Size};

/// `count` differently worded captions of `scene`, at most one of each template.
pub(super) fn captions(scene: &Scene, count: usize, rng: &mut impl Rng) -> Vec<String> {
    let templates = match scene.objects.len() {
        2 => 7,
        _ => 6,
    };
    let mut order: Vec<usize> = (0..templates).collect();
    order.shuffle(rng);
    order
        .into_iter()
        .take(count)
        .map(|template| sentence(&word(scene, template, rng)))
        .collect()
}

/// The words of `caption` as Karpathy's files list them: lower case, without punctuation.
pub(super) fn tokens(caption: &str) -> Vec<String> {
    caption
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// A direction in which objects are lined up.
struct Axis {
    /// "`first` BEFORE `second`"
    before: &'static [&'static str],
    /// "`second` AFTER `first`"
    after: &'static [&'static str],
    start: &'static [&'static str],
    end: &'static [&'static str],
    sweep: &'static str,
}

const ACROSS: Axis = Axis {
    before: &["to the left of", "left of", "on the left side of"],
    after: &["to the right of", "right of", "on the right side of"],
    start: &["on the left", "at the left", "on the left side"],
    end: &["on the right", "at the right", "on the right side"],
    sweep: "from left to right",
};
const DOWN: Axis = Axis {
    before: &["above", "over", "higher than"],
    after: &["below", "under", "beneath"],
    start: &["at the top", "at the very top", "in the upper part"],
    end: &["at the bottom", "at the very bottom", "in the lower part"],
    sweep: "from top to bottom",
};

fn word(scene: &Scene, template: usize, rng: &mut impl Rng) -> String {
    let names: Vec<String> = scene
        .objects
        .iter()
        .map(|object| name(object, rng))
        .collect();
    match (scene.layout, names.as_slice()) {
        (Layout::Row, [a, b]) => two(&ACROSS, a, b, template, rng),
        (Layout::Column, [a, b]) => two(&DOWN, a, b, template, rng),
        (Layout::Row, [a, b, c]) => three(&ACROSS, a, b, c, template, rng),
        (Layout::Column, [a, b, c]) => three(&DOWN, a, b, c, template, rng),
        (Layout::PairBelow, [a, b, c]) => pair(
            DOWN.before,
            DOWN.after,
            DOWN.start,
            DOWN.end,
            [a, b, c],
            template,
            rng,
        ),
        (Layout::PairAbove, [a, b, c]) => pair(
            DOWN.after,
            DOWN.before,
            DOWN.end,
            DOWN.start,
            [a, b, c],
            template,
            rng,
        ),
        (layout, names) => {
            unreachable!("a scene of {} objects laid out as {layout:?}", names.len())
        }
    }
}

/// `a` comes before `b`.
fn two(axis: &Axis, a: &str, b: &str, template: usize, rng: &mut impl Rng) -> String {
    let Axis { sweep, .. } = axis;
    let (before, after, start, end) = (
        pick(axis.before, rng),
        pick(axis.after, rng),
        pick(axis.start, rng),
        pick(axis.end, rng),
    );
    let verb = pick(&["is", "sits", "stands", "lies"], rng);
    match template {
        0 => format!("{a} {verb} {before} {b}"),
        1 => format!("{b} {verb} {after} {a}"),
        2 => format!("there is {a} {start} and {b} {end}"),
        3 => format!("{end} {verb} {b}, {start} {a}"),
        4 => format!("{sweep}: {a}, then {b}"),
        5 => format!("we see {b} {end} and, {before} it, {a}"),
        _ => format!("a picture of {a} that {verb} {before} {b}"),
    }
}

/// `a` comes before `b`, which comes before `c`.
fn three(axis: &Axis, a: &str, b: &str, c: &str, template: usize, rng: &mut impl Rng) -> String {
    let Axis { sweep, .. } = axis;
    let (before, after, start, end) = (
        pick(axis.before, rng),
        pick(axis.after, rng),
        pick(axis.start, rng),
        pick(axis.end, rng),
    );
    let verb = pick(&["is", "sits", "stands", "lies"], rng);
    match template {
        0 => format!("{sweep} there are {a}, {b} and {c}"),
        1 => format!("{b} {verb} between {a} {start} and {c} {end}"),
        2 => format!("{a} {verb} {before} {b}, which {verb} {before} {c}"),
        3 => format!("{c} {end}, {b} in the middle, {a} {start}"),
        4 => format!("the middle one is {b}; {start} {verb} {a} and {end} {c}"),
        _ => format!("{c} {verb} {after} {b}, which {verb} {after} {a}"),
    }
}

/// `a` is left of `b`; `c` is `beyond` both, which are `back` of it; `side` is where `c` is,
/// `opposite` where they are.
fn pair(
    beyond: &[&'static str],
    back: &[&'static str],
    side: &[&'static str],
    opposite: &[&'static str],
    [a, b, c]: [&String; 3],
    template: usize,
    rng: &mut impl Rng,
) -> String {
    let (beyond, back, side, opposite) = (
        pick(beyond, rng),
        pick(back, rng),
        pick(side, rng),
        pick(opposite, rng),
    );
    let (left, right) = (pick(ACROSS.before, rng), pick(ACROSS.after, rng));
    let verb = pick(&["is", "sits", "stands", "lies"], rng);
    match template {
        0 => format!("{a} {verb} {left} {b}, with {c} {beyond} them"),
        1 => format!("{beyond} {a} on the left and {b} on the right {verb} {c}"),
        2 => format!("{c} {verb} {beyond} two others: {a} and, {right} it, {b}"),
        3 => format!("there is {c} {side}, and {opposite} {a} {left} {b}"),
        4 => format!("{b} {verb} {right} {a}, and both are {back} {c}"),
        _ => format!("{opposite} we see {a}, then {b} {right} it; {side} {verb} {c}"),
    }
}

fn name(object: &Object, rng: &mut impl Rng) -> String {
    let (size, colour, shape) = object.kind();
    let (size, colour) = (size_word(size, rng), colour_word(colour, rng));
    let shape = shape_word(shape, rng);
    format!("a {size} {colour} {shape}")
}

/// Words for a relation.
pub(super) fn relation_words(relation: Relation, rng: &mut impl Rng) -> &'static str {
    let words = match relation {
        Relation::LeftOf => ACROSS.before,
        Relation::RightOf => ACROSS.after,
        Relation::Above => DOWN.before,
        Relation::Below => DOWN.after,
    };
    pick(words, rng)
}

/// A word for a size.
pub(super) fn size_word(size: Size, rng: &mut impl Rng) -> &'static str {
    match size {
        Size::Small => pick(&["small", "little", "tiny"], rng),
        Size::Large => pick(&["large", "big"], rng),
    }
}

/// A word for a colour.
pub(super) fn colour_word(colour: Colour, rng: &mut impl Rng) -> &'static str {
    match colour {
        Colour::Red => "red",
        Colour::Green => "green",
        Colour::Blue => "blue",
        Colour::Yellow => "yellow",
        Colour::Purple => pick(&["purple", "violet"], rng),
        Colour::Orange => "orange",
        Colour::White => "white",
        Colour::Black => "black",
    }
}

/// A noun for a shape.
pub(super) fn shape_word(shape: Shape, rng: &mut impl Rng) -> &'static str {
    match shape {
        Shape::Circle => pick(&["circle", "disc"], rng),
        Shape::Square => pick(&["square", "box"], rng),
        Shape::Triangle => "triangle",
        Shape::Cross => pick(&["cross", "plus sign"], rng),
    }
}

/// One of `words`.
pub(in crate::data) fn pick(words: &[&'static str], rng: &mut impl Rng) -> &'static str {
    words.choose(rng).expect("at least one word")
}

/// A capital letter at the start and a full stop at the end.
pub(in crate::data) fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(letters)
        .chain(['.'])
        .collect()
}

#[cfg(test)]
mod tests;
