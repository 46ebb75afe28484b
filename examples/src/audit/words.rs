//! How messages show what others wrote, and how many there are of something.

use std::fmt::Display;

/// The longest name that is shown whole, in characters.
pub(super) const LONGEST: usize = 60;

/// A name from a file, for a line on a terminal: its beginning, where it is long; what would move
/// the cursor is escaped.
pub(super) fn shown(name: &str) -> String {
    let mut shown = String::new();
    for character in name.chars().take(LONGEST) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if name.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// A message without its middle, where what it quotes is long.
pub(super) fn brief(message: impl Display) -> String {
    const ENDS: usize = 200;
    let message: Vec<char> = message.to_string().chars().collect();
    let text = |part: &[char]| part.iter().collect::<String>();
    if message.len() <= 2 * ENDS {
        return text(&message);
    }
    let (start, end) = (&message[..ENDS], &message[message.len() - ENDS..]);
    format!("{}…{}", text(start), text(end))
}

/// `1 pair`, `2 pairs`.
pub(super) fn counted(count: impl Display, one: &str) -> String {
    let count = count.to_string();
    let plural = if count == "1" { "" } else { "s" };
    format!("{count} {one}{plural}")
}
