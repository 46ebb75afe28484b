//! Parts of a scene in words: what questions and statements are about.

use rand::{Rng, RngExt};

use super::caption::{colour_word, pick, shape_word, size_word};
use super::scene::{Colour, Object, Scene, Shape, Size};

/// Nouns for an object whose shape is not told.
pub(super) const NOUNS: &[&str] = &["object", "shape", "thing"];
/// Likewise, where the shape is what is asked for.
pub(super) const SHAPELESS: &[&str] = &["object", "thing"];

/// Attributes that an object may have: those that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    pub size: Option<Size>,
    pub colour: Option<Colour>,
    pub shape: Option<Shape>,
}

impl Description {
    /// Every object.
    pub const ANY: Self = Self {
        size: None,
        colour: None,
        shape: None,
    };

    /// Every description there is: 3 · 9 · 5.
    pub fn all() -> impl Iterator<Item = Self> {
        let sizes = [None, Some(Size::Small), Some(Size::Large)];
        sizes.into_iter().flat_map(|size| {
            let colours = std::iter::once(None).chain(Colour::ALL.map(Some));
            colours.flat_map(move |colour| {
                let shapes = std::iter::once(None).chain(Shape::ALL.map(Some));
                shapes.map(move |shape| Self {
                    size,
                    colour,
                    shape,
                })
            })
        })
    }

    /// One attribute, or two: a size or a colour with or without a shape, or a shape.
    pub fn random(rng: &mut impl Rng) -> Self {
        let colour = Colour::ALL[rng.random_range(0..Colour::ALL.len())];
        let shape = Shape::ALL[rng.random_range(0..Shape::ALL.len())];
        let size = [Size::Small, Size::Large][rng.random_range(0..2)];
        let form = rng.random_range(0..5);
        Self {
            size: matches!(form, 0 | 3).then_some(size),
            colour: matches!(form, 1 | 4).then_some(colour),
            shape: (form > 1).then_some(shape),
        }
    }

    /// How many attributes it gives.
    pub fn attributes(self) -> usize {
        usize::from(self.size.is_some())
            + usize::from(self.colour.is_some())
            + usize::from(self.shape.is_some())
    }

    /// Whether `object` has the attributes.
    pub fn fits(self, object: &Object) -> bool {
        self.size.is_none_or(|size| size == object.size)
            && self.colour.is_none_or(|colour| colour == object.colour)
            && self.shape.is_none_or(|shape| shape == object.shape)
    }

    /// The number of objects of `scene` that have the attributes.
    pub fn count(self, scene: &Scene) -> usize {
        let objects = scene.objects.iter();
        objects.filter(|object| self.fits(object)).count()
    }

    /// The words for one such object, without an article.
    pub fn one(self, rng: &mut impl Rng) -> String {
        self.named(NOUNS, rng)
    }

    /// Likewise, with one of `nouns` if it gives no shape.
    pub fn named(self, nouns: &[&'static str], rng: &mut impl Rng) -> String {
        let size = self.size.map(|size| size_word(size, rng));
        let colour = self.colour.map(|colour| colour_word(colour, rng));
        let noun = match self.shape {
            Some(shape) => shape_word(shape, rng),
            None => pick(nouns, rng),
        };
        let words: Vec<&str> = size.into_iter().chain(colour).chain([noun]).collect();
        words.join(" ")
    }

    /// Likewise, with "a" or "an".
    pub fn an(self, rng: &mut impl Rng) -> String {
        with_article(&self.one(rng))
    }

    /// The words for several such objects.
    pub fn several(self, rng: &mut impl Rng) -> String {
        plural(&self.one(rng))
    }

    /// The words for that many such objects, without the number.
    pub fn so_many(self, number: usize, rng: &mut impl Rng) -> String {
        if number == 1 {
            self.one(rng)
        } else {
            self.several(rng)
        }
    }
}

/// A phrase after "a" or "an".
pub(super) fn with_article(words: &str) -> String {
    let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {words}")
}

/// The plural of a phrase that ends with its noun.
pub(super) fn plural(words: &str) -> String {
    let ending = if words.ends_with(['s', 'x']) {
        "es"
    } else {
        "s"
    };
    format!("{words}{ending}")
}
