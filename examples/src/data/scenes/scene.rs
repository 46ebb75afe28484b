//! What a generated image shows, and how much two of them have in common.

use serde::{Deserialize, Serialize};

/// The form of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Cross,
}

/// The colour of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Orange,
    White,
    Black,
}

/// The size of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Size {
    Small,
    Large,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 4] = [Self::Circle, Self::Square, Self::Triangle, Self::Cross];
}

impl Colour {
    /// Every colour.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::Orange,
        Self::White,
        Self::Black,
    ];
}

/// A coloured shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its size, as captions tell it.
    pub size: Size,
    /// Its colour.
    pub colour: Colour,
    /// Its form.
    pub shape: Shape,
    /// Its centre: distance from the left and from the top, as a share of the image's side.
    pub centre: [f32; 2],
    /// Half its extent, as a share of the image's side.
    pub radius: f32,
}

impl Object {
    /// Size, colour and shape: what captions tell about the object alone.
    pub fn kind(&self) -> (Size, Colour, Shape) {
        (self.size, self.colour, self.shape)
    }
}

/// How a scene's objects stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Two or three objects, from left to right.
    Row,
    /// Two or three objects, from top to bottom.
    Column,
    /// The first left of the second, the third above both.
    PairBelow,
    /// The first left of the second, the third below both.
    PairAbove,
}

/// The position of one object relative to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Relation {
    LeftOf,
    RightOf,
    Above,
    Below,
}

impl Relation {
    fn inverse(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }
}

impl Layout {
    /// The position of object `a` relative to object `b`.
    pub fn relation(self, a: usize, b: usize) -> Relation {
        if a > b {
            return self.relation(b, a).inverse();
        }
        match (self, b) {
            (Self::Row, _) | (Self::PairBelow | Self::PairAbove, 1) => Relation::LeftOf,
            (Self::Column, _) | (Self::PairAbove, _) => Relation::Above,
            (Self::PairBelow, _) => Relation::Below,
        }
    }
}

/// The true attributes of a generated image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// How the objects stand to each other.
    pub layout: Layout,
    /// Two or three objects, in the order that `layout` says.
    pub objects: Vec<Object>,
}

impl Scene {
    /// A key that two scenes share exactly if the same captions are true of both: same layout, and
    /// the same kinds of objects in the same order. Exact positions, shades and backgrounds do not
    /// enter.
    pub fn meaning(&self) -> String {
        let kinds: Vec<_> = self.objects.iter().map(Object::kind).collect();
        format!("{:?} {kinds:?}", self.layout)
    }

    /// The share of facts that two scenes have in common, in [0, 1]; 1 exactly if their
    /// [meanings](Self::meaning) are equal.
    ///
    /// Facts are the size, colour and shape of each object and how each two objects stand to each
    /// other. The objects of both scenes are matched so that most facts agree; those facts are
    /// divided by the facts of the richer scene.
    pub fn similarity(&self, other: &Self) -> f64 {
        let (few, many) = if self.objects.len() <= other.objects.len() {
            (self, other)
        } else {
            (other, self)
        };
        let count = many.objects.len();
        let facts = 3 * count + count * count.saturating_sub(1) / 2;
        if facts == 0 {
            return 1.0;
        }
        let mut matching = Vec::with_capacity(count);
        best_matching(few, many, &mut matching) as f64 / facts as f64
    }
}

/// The most facts of `few` that hold in `many` under a matching of objects that extends `matching`.
fn best_matching(few: &Scene, many: &Scene, matching: &mut Vec<usize>) -> usize {
    if matching.len() == few.objects.len() {
        return shared_facts(few, many, matching);
    }
    let mut best = 0;
    for candidate in 0..many.objects.len() {
        if !matching.contains(&candidate) {
            matching.push(candidate);
            best = best.max(best_matching(few, many, matching));
            matching.pop();
        }
    }
    best
}

fn shared_facts(few: &Scene, many: &Scene, matching: &[usize]) -> usize {
    let mut shared = 0;
    for (i, &m) in matching.iter().enumerate() {
        let (a, b) = (&few.objects[i], &many.objects[m]);
        shared += usize::from(a.size == b.size)
            + usize::from(a.colour == b.colour)
            + usize::from(a.shape == b.shape);
        shared += matching[..i]
            .iter()
            .enumerate()
            .filter(|&(j, &n)| few.layout.relation(j, i) == many.layout.relation(n, m))
            .count();
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(size: Size, colour: Colour, shape: Shape) -> Object {
        Object {
            size,
            colour,
            shape,
            centre: [0.5, 0.5],
            radius: 0.1,
        }
    }

    fn scene(layout: Layout, objects: &[Object]) -> Scene {
        Scene {
            layout,
            objects: objects.to_vec(),
        }
    }

    #[test]
    fn similarity_counts_shared_facts_under_the_best_matching() {
        let red = object(Size::Small, Colour::Red, Shape::Circle);
        let blue = object(Size::Large, Colour::Blue, Shape::Square);
        let green = object(Size::Large, Colour::Green, Shape::Square);
        let row = scene(Layout::Row, &[red.clone(), blue.clone()]);
        // Three facts an object and one relation: seven.
        assert_eq!(row.similarity(&row), 1.0);
        assert_eq!(
            row.similarity(&scene(Layout::Row, &[blue.clone(), red.clone()])),
            6.0 / 7.0
        );
        assert_eq!(
            row.similarity(&scene(Layout::Column, &[red.clone(), blue.clone()])),
            6.0 / 7.0
        );
        assert_eq!(
            row.similarity(&scene(Layout::Row, &[red.clone(), green.clone()])),
            6.0 / 7.0
        );
        // Two objects and a relation of three objects and three relations.
        let three = scene(Layout::Row, &[red.clone(), blue.clone(), green.clone()]);
        assert_eq!(row.similarity(&three), 7.0 / 12.0);
        assert_eq!(three.similarity(&row), 7.0 / 12.0);
        // The pair is side by side, the third above it.
        let roof = scene(Layout::PairBelow, &[red, blue, green]);
        assert_eq!(three.similarity(&roof), 10.0 / 12.0);
    }

    #[test]
    fn relations_invert_with_their_objects() {
        for layout in [
            Layout::Row,
            Layout::Column,
            Layout::PairAbove,
            Layout::PairBelow,
        ] {
            for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                assert_eq!(layout.relation(a, b), layout.relation(b, a).inverse());
            }
        }
        assert_eq!(Layout::PairBelow.relation(2, 0), Relation::Above);
        assert_eq!(Layout::PairAbove.relation(2, 1), Relation::Below);
        assert_eq!(Layout::PairAbove.relation(0, 1), Relation::LeftOf);
        assert_eq!(Layout::Column.relation(0, 1), Relation::Above);
        assert_eq!(Layout::Row.relation(0, 2), Relation::LeftOf);
    }
}
