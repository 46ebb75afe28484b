//! How messages show what others wrote, and how many there are of something.

use std::fmt::Display;

/// The longest name that is shown whole, in characters.
pub(crate) const LONGEST: usize = 60;

/// A name from a file, for a line on a terminal: its beginning, where it is long; what would move
/// the cursor is escaped.
pub(crate) fn shown(name: &str) -> String {
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
pub(crate) fn brief(message: impl Display) -> String {
    const ENDS: usize = 200;
    let message: Vec<char> = message.to_string().chars().collect();
    let text = |part: &[char]| part.iter().collect::<String>();
    if message.len() <= 2 * ENDS {
        return text(&message);
    }
    let (start, end) = (&message[..ENDS], &message[message.len() - ENDS..]);
    format!("{}…{}", text(start), text(end))
}

/// The first few of several names, and how many more there are.
pub(crate) fn list(names: &[String]) -> String {
    const FIRST: usize = 5;
    let mut text = names[..names.len().min(FIRST)].join(", ");
    if names.len() > FIRST {
        text += &format!(" and {} more", names.len() - FIRST);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_do_not_move_the_cursor() {
        assert_eq!(shown("Größe 'a'"), "Größe 'a'");
        assert_eq!(shown("\x1b[2J\n"), "\\u{1b}[2J\\n");
        assert_eq!(shown(&"é".repeat(LONGEST)), "é".repeat(LONGEST));
        assert_eq!(shown(&"é".repeat(LONGEST + 1)), "é".repeat(LONGEST) + "…");
    }

    #[test]
    fn a_long_list_says_how_many_more_there_are() {
        let names: Vec<_> = (0..7).map(|index| format!("n{index}")).collect();
        assert_eq!(list(&names[..2]), "n0, n1");
        assert_eq!(list(&names), "n0, n1, n2, n3, n4 and 2 more");
    }

    #[test]
    fn a_brief_message_keeps_both_ends() {
        let long = format!("start{}end", "é".repeat(1000));
        let brief = brief(&long);
        assert!(brief.starts_with("start") && brief.ends_with("end"));
        assert!(brief.chars().count() < 500, "{brief}");
    }
}
