//! Names with braces, as shells expand them: `{00000..00012}`, `{a,b}`, one inside the other.

use anyhow::{Result, ensure};

/// As many names a pattern may stand for, and as many braces it may have.
const MOST: usize = 1_000_000;
const BRACES: usize = 64;

/// The names that a pattern stands for, in the order in which it has them. Braces that hold neither
/// a comma nor two numbers stand for themselves.
///
/// # Errors
///
/// If there are more than a million, or more than 64 braces.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>> {
    let braces = pattern.matches('{').count();
    ensure!(braces <= BRACES, "it has {braces} braces");
    let Some((before, inside, after)) = first_group(pattern) else {
        return Ok(vec![pattern.to_owned()]);
    };
    let choices = choices_of(inside)?;
    let ends = expand(after)?;
    let names = choices.len().saturating_mul(ends.len());
    ensure!(names <= MOST, "it stands for {names} names");
    let both = choices
        .iter()
        .flat_map(|choice| ends.iter().map(move |end| format!("{before}{choice}{end}")));
    Ok(both.collect())
}

/// What stands before, in and after the first braces.
fn first_group(pattern: &str) -> Option<(&str, &str, &str)> {
    let start = pattern.find('{')?;
    let mut depth = 0;
    for (at, character) in pattern.char_indices().skip_while(|(at, _)| *at < start) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((
                &pattern[..start],
                &pattern[start + 1..at],
                &pattern[at + 1..],
            ));
        }
    }
    None
}

/// What braces stand for.
fn choices_of(inside: &str) -> Result<Vec<String>> {
    if let Some((first, last)) = inside.split_once("..")
        && let Some(numbers) = numbers(first, last)?
    {
        return Ok(numbers);
    }
    let parts = split(inside);
    let names = parts.iter().map(|part| expand(part));
    let names = names.collect::<Result<Vec<_>>>()?.concat();
    // With one part these braces are none; those in it may be.
    Ok(match parts.len() {
        1 => names.iter().map(|name| format!("{{{name}}}")).collect(),
        _ => names,
    })
}

/// The parts between the commas that are in no braces.
fn split(inside: &str) -> Vec<&str> {
    let mut depth = 0;
    let at_comma = |character| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    };
    inside.split(at_comma).collect()
}

/// The numbers from the first to the last, which may be the smaller one, all of one width where one
/// of the two begins with a 0; `None` if they are no numbers.
fn numbers(first: &str, last: &str) -> Result<Option<Vec<String>>> {
    let number = |text: &str| -> Option<usize> {
        let is_one = text.bytes().all(|byte| byte.is_ascii_digit());
        is_one.then(|| text.parse().ok())?
    };
    let (Some(from), Some(to)) = (number(first), number(last)) else {
        return Ok(None);
    };
    let count = from.abs_diff(to);
    ensure!(
        count < MOST,
        "{{{first}..{last}}} stands for {count} numbers"
    );
    let padded = [first, last]
        .iter()
        .any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded {
        first.len().max(last.len())
    } else {
        0
    };
    let name = |number: usize| format!("{number:0width$}");
    Ok(Some(if from <= to {
        (from..=to).map(name).collect()
    } else {
        (to..=from).rev().map(name).collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_what_a_shell_makes_of_them() {
        for (pattern, expected) in [
            ("a.tar", "a.tar"),
            ("{00..03}.tar", "00.tar 01.tar 02.tar 03.tar"),
            ("{8..11}", "8 9 10 11"),
            ("{08..11}", "08 09 10 11"),
            ("{8..011}", "008 009 010 011"),
            ("{2..0}", "2 1 0"),
            ("x{a,b}y{1..2}", "xay1 xay2 xby1 xby2"),
            (
                "{train-{0..1},val-0}.tar",
                "train-0.tar train-1.tar val-0.tar",
            ),
            ("{a,}b", "ab b"),
            ("{{0..1},{5..6}}", "0 1 5 6"),
            // No list and no numbers.
            ("{a}.tar", "{a}.tar"),
            ("{a{0..1}}", "{a0} {a1}"),
            ("{}", "{}"),
            ("{a..c}", "{a..c}"),
            ("{1..2..3}", "{1..2..3}"),
            ("a{b", "a{b"),
            ("a}b{0..1}", "a}b0 a}b1"),
        ] {
            assert_eq!(expand(pattern).unwrap().join(" "), expected, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_stands_for_too_many_names_is_refused() {
        for pattern in [
            "{0..99999999}",
            "{0..9999}{0..9999}",
            "{0..99}{0..99}{0..999}",
        ] {
            let error = expand(pattern).unwrap_err().to_string();
            assert!(error.contains("stands for"), "{error}");
        }
        let error = expand(&"{".repeat(200)).unwrap_err().to_string();
        assert!(error.contains("200 braces"), "{error}");
    }
}
