//! Understands questions and statements by their words alone, and decides them by where the objects
//! lie: nothing here is shared with what words them.

use crate::data::scenes::{Colour, Object, Scene, Shape, Size};

/// The attributes that a text names.
#[derive(Debug, Default)]
struct Named {
    size: Option<Size>,
    colour: Option<Colour>,
    shape: Option<Shape>,
}

fn size(word: &str) -> Option<Size> {
    match word {
        "small" | "little" | "tiny" => Some(Size::Small),
        "large" | "big" => Some(Size::Large),
        _ => None,
    }
}

fn colour(word: &str) -> Option<Colour> {
    Some(match word {
        "red" => Colour::Red,
        "green" => Colour::Green,
        "blue" => Colour::Blue,
        "yellow" => Colour::Yellow,
        "purple" | "violet" => Colour::Purple,
        "orange" => Colour::Orange,
        "white" => Colour::White,
        "black" => Colour::Black,
        _ => return None,
    })
}

fn shape(word: &str) -> Option<Shape> {
    Some(match word {
        "circle" | "circles" | "disc" | "discs" => Shape::Circle,
        "square" | "squares" | "box" | "boxes" => Shape::Square,
        "triangle" | "triangles" => Shape::Triangle,
        "cross" | "crosses" | "plus" => Shape::Cross,
        _ => return None,
    })
}

fn named(text: &str) -> Named {
    let mut named = Named::default();
    for word in text.split(' ') {
        if let Some(size) = size(word) {
            assert_eq!(named.size.replace(size), None, "{text}");
        } else if let Some(colour) = colour(word) {
            assert_eq!(named.colour.replace(colour), None, "{text}");
        } else if let Some(shape) = shape(word) {
            assert_eq!(named.shape.replace(shape), None, "{text}");
        }
    }
    named
}

impl Named {
    fn is(&self, object: &Object) -> bool {
        self.size.is_none_or(|size| size == object.size)
            && self.colour.is_none_or(|colour| colour == object.colour)
            && self.shape.is_none_or(|shape| shape == object.shape)
    }

    fn count(&self, scene: &Scene) -> usize {
        scene
            .objects
            .iter()
            .filter(|object| self.is(object))
            .count()
    }
}

/// The one object that a text is about.
fn the_one<'a>(text: &str, scene: &'a Scene) -> &'a Object {
    let by = |axis: usize| {
        let mut order: Vec<&Object> = scene.objects.iter().collect();
        order.sort_by(|a, b| a.centre[axis].total_cmp(&b.centre[axis]));
        order
    };
    let spread = |axis: usize| {
        let order = by(axis);
        order[order.len() - 1].centre[axis] - order[0].centre[axis]
    };
    let word = |wanted: &str| text.split(' ').any(|word| word == wanted);
    if word("leftmost") {
        return by(0)[0];
    }
    if word("rightmost") {
        return by(0)[scene.objects.len() - 1];
    }
    if word("topmost") {
        return by(1)[0];
    }
    if word("lowest") {
        return by(1)[scene.objects.len() - 1];
    }
    if word("middle") {
        assert_eq!(scene.objects.len(), 3, "{text}");
        return by(usize::from(spread(1) > spread(0)))[1];
    }
    let named = named(text);
    let mut found = scene.objects.iter().filter(|object| named.is(object));
    let (first, second) = (found.next(), found.next());
    assert!(second.is_none(), "{text:?} is ambiguous in {scene:?}");
    first.unwrap_or_else(|| panic!("nothing is {text:?} in {scene:?}"))
}

/// Phrases of relations with axis and direction, the longer first.
const RELATIONS: [(&str, usize, f32); 12] = [
    (" to the left of the ", 0, -1.0),
    (" on the left side of the ", 0, -1.0),
    (" left of the ", 0, -1.0),
    (" to the right of the ", 0, 1.0),
    (" on the right side of the ", 0, 1.0),
    (" right of the ", 0, 1.0),
    (" above the ", 1, -1.0),
    (" over the ", 1, -1.0),
    (" higher than the ", 1, -1.0),
    (" below the ", 1, 1.0),
    (" under the ", 1, 1.0),
    (" beneath the ", 1, 1.0),
];

/// Clearly on that side, not by a hair.
fn is_there(object: &Object, reference: &Object, axis: usize, direction: f32) -> bool {
    (object.centre[axis] - reference.centre[axis]) * direction > 0.2
}

fn lower(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn yes(is_so: bool) -> String {
    let answer = if is_so { "yes" } else { "no" };
    answer.into()
}

/// The answer to a question about a scene.
pub fn answer(question: &str, scene: &Scene) -> String {
    let text = question.strip_suffix('?').unwrap();
    let related = RELATIONS.iter().find_map(|&(phrase, axis, direction)| {
        let (before, after) = text.split_once(phrase)?;
        Some((before, axis, direction, the_one(after, scene)))
    });
    if let Some((before, axis, direction, reference)) = related {
        if !before.starts_with("what") {
            let object = the_one(before, scene);
            assert!(object != reference, "{question}");
            return yes(is_there(object, reference, axis, direction));
        }
        let objects = scene.objects.iter();
        let found: Vec<_> = objects
            .filter(|object| is_there(object, reference, axis, direction))
            .collect();
        assert_eq!(found.len(), 1, "{question} of {scene:?}");
        return if before.contains("colour") {
            lower(found[0].colour)
        } else {
            lower(found[0].shape)
        };
    }
    let starts = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
    if starts(&["how many", "what is the number of"]) {
        named(text).count(scene).to_string()
    } else if starts(&[
        "what colour is the",
        "what is the colour of the",
        "which colour does",
    ]) {
        lower(the_one(text, scene).colour)
    } else if starts(&[
        "what shape is the",
        "what is the shape of the",
        "which shape does",
    ]) {
        lower(the_one(text, scene).shape)
    } else if starts(&["what size is the", "which size does"]) {
        lower(the_one(text, scene).size)
    } else if let Some(name) = text.strip_suffix(" large or small") {
        lower(the_one(name, scene).size)
    } else {
        let known = [
            "is there a",
            "are there any",
            "does the image show a",
            "can you see a",
        ];
        assert!(starts(&known), "{question}");
        yes(named(text).count(scene) > 0)
    }
}

/// Whether a statement is true of two scenes.
pub fn is_true(statement: &str, scenes: [&Scene; 2]) -> bool {
    let text = statement.strip_suffix('.').unwrap().to_lowercase();
    let has = |part: &str| text.contains(part);
    let what = named(&text);
    let [left, right] = scenes.map(|scene| what.count(scene));
    let side = match (text.find("left"), text.find("right")) {
        (Some(l), Some(r)) => Some(usize::from(r < l)),
        (Some(_), None) => Some(0),
        (None, Some(_)) => Some(1),
        (None, None) => None,
    };
    let of_side = |side: usize| [left, right][side];
    if has(" more ") || has(" fewer ") {
        let (this, that) = (of_side(side.unwrap()), of_side(1 - side.unwrap()));
        return if has(" more ") {
            this > that
        } else {
            this < that
        };
    }
    if has(" as many ") || has("the same number of ") {
        return left == right;
    }
    if text.starts_with("all ") || text.starts_with("every ") || has("nothing but") {
        let all = |index: usize| of_side(index) == scenes[index].objects.len();
        assert!(side.is_some() || has("both images"), "{text}");
        return side.map_or_else(|| all(0) && all(1), all);
    }
    if has("neither image") || has("neither of the two") || has("in either image") {
        return left + right == 0;
    }
    if has("exactly one image") || has("only one of the two images") {
        return (left > 0) != (right > 0);
    }
    if has("at least one image") || has("one or both of the images") {
        return left + right > 0;
    }
    if let Some((_, rest)) = text.split_once(" exactly ") {
        let word = rest.split(' ').next().unwrap();
        let numbers = ["no", "one", "two", "three", "four", "five", "six"];
        let number = numbers.iter().position(|number| *number == word).unwrap();
        assert!(
            side.is_some() || has("together") || has("in total the two"),
            "{text}"
        );
        return side.map_or(left + right, of_side) == number;
    }
    if has("both images") || has("each of the two images") {
        return left > 0 && right > 0;
    }
    let side = side.unwrap_or_else(|| panic!("{text} is not understood"));
    of_side(side) > 0
}
