//! The colours of the charts, light and dark.

use std::fmt::Write;

use plotters::style::RGBColor;

/// The meaning of a colour. A chart is drawn in the light colours, so that an SVG copied out of
/// the page is complete; in dark mode, style rules that match these very values replace them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Labels of an axis.
    Text,
    /// Lines of the grid.
    Grid,
    /// The axes.
    Axis,
    /// Image to text; what there is only one of.
    First,
    /// Text to image; the second of two.
    Second,
    /// Positive pairs.
    Positive,
    /// Negative pairs.
    Negative,
    /// What others are compared with.
    Reference,
}

const COLOURS: [(Role, [u8; 3], [u8; 3]); 8] = [
    (Role::Text, [0x5a, 0x64, 0x73], [0x9b, 0xa6, 0xb6]),
    (Role::Grid, [0xe6, 0xe9, 0xee], [0x2a, 0x31, 0x3d]),
    (Role::Axis, [0xb3, 0xba, 0xc5], [0x4b, 0x55, 0x65]),
    (Role::First, [0x25, 0x63, 0xeb], [0x7d, 0xa6, 0xff]),
    (Role::Second, [0xd1, 0x5b, 0x16], [0xff, 0xa0, 0x66]),
    (Role::Positive, [0x0b, 0x84, 0x78], [0x45, 0xcf, 0xbd]),
    (Role::Negative, [0xb4, 0x53, 0x7e], [0xf0, 0x94, 0xbd]),
    (Role::Reference, [0x86, 0x8f, 0x9e], [0x7f, 0x8a, 0x9b]),
];

impl Role {
    fn entry(self) -> &'static (Role, [u8; 3], [u8; 3]) {
        &COLOURS[self as usize]
    }

    /// The colour that a chart is drawn in.
    pub fn colour(self) -> RGBColor {
        let [red, green, blue] = self.entry().1;
        RGBColor(red, green, blue)
    }

    /// The class of a legend's key in this colour.
    pub fn class(self) -> String {
        format!("key-{self:?}").to_lowercase()
    }
}

fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// The style rules of all colours.
pub(crate) fn style_rules() -> String {
    let mut css = String::new();
    let mut dark_css = String::new();
    for (role, light, dark) in &COLOURS {
        let (class, light, dark) = (role.class(), hex(*light), hex(*dark));
        // Writing to a string cannot fail.
        let _ = writeln!(css, ".{class}{{background:{light}}}");
        let _ = writeln!(
            dark_css,
            ".{class}{{background:{dark}}}\
             .chart [stroke=\"{light}\"]{{stroke:{dark}}}\
             .chart [fill=\"{light}\"]{{fill:{dark}}}"
        );
    }
    format!("{css}@media screen and (prefers-color-scheme:dark){{\n{dark_css}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_colours_are_in_the_same_order() {
        for (role, ..) in &COLOURS {
            assert_eq!(role.entry().0, *role);
        }
    }

    #[test]
    fn no_two_roles_share_a_colour() {
        for (i, one) in COLOURS.iter().enumerate() {
            assert!(COLOURS[..i].iter().all(|other| other.1 != one.1));
        }
    }
}
