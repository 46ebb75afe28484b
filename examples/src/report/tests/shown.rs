//! What a reader sees of a page, and whether it is what was measured.

use serde_json::Value;

/// The text of the section under the heading with this id, with its tags.
pub fn section<'a>(html: &'a str, id: &str) -> &'a str {
    let (_, section) = html
        .split_once(&format!("<h2 id=\"{id}\">"))
        .unwrap_or_else(|| panic!("no section {id}"));
    section.split("</section>").next().unwrap()
}

/// The inside of each element that opens with `opening`, such as `<td` or `<dl class="tiles"`.
pub fn elements<'a>(html: &'a str, opening: &str) -> Vec<&'a str> {
    let tag: String = opening.chars().skip(1).take_while(|c| *c != ' ').collect();
    let closing = format!("</{tag}>");
    let inside = |rest: &'a str| {
        let (_, inside) = rest.split_once('>')?;
        inside.split(closing.as_str()).next()
    };
    html.split(opening)
        .skip(1)
        .filter(|rest| rest.starts_with([' ', '>', '"']))
        .filter_map(inside)
        .collect()
}

/// The text without tags and without what they load or quote: styles, commands, configurations.
pub fn text(html: &str) -> String {
    let mut text = String::new();
    let mut quoted = false;
    for part in html.split('<') {
        let (tag, rest) = part.split_once('>').unwrap_or(("", part));
        match tag.split(' ').next().unwrap() {
            "pre" | "style" => quoted = true,
            "/pre" | "/style" => quoted = false,
            _ => {}
        }
        if !quoted {
            text.push_str(rest);
        }
        text.push(' ');
    }
    text
}

/// The words of a text that are numbers.
pub fn numbers(text: &str) -> Vec<&str> {
    text.split([' ', '\n', '\u{a0}', '(', ')'])
        .map(|word| word.trim_end_matches(['.', ',', ';', '%', ':']))
        .filter(|word| value(word).is_some())
        .collect()
}

fn value(number: &str) -> Option<f64> {
    let digits = number.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    number.replace(',', "").parse().ok().filter(|_| digits)
}

/// Whether the thousands of a number are separated by commas, and nothing else is.
pub fn is_grouped(number: &str) -> bool {
    let integer = number.trim_start_matches('-').split(['.', 'e']).next();
    let groups: Vec<usize> = integer.unwrap().split(',').map(str::len).collect();
    let (first, others) = groups.split_first().unwrap();
    *first <= 3 && others.iter().all(|length| *length == 3)
}

/// Checks that the numbers of a text are these values, rounded to the digits that are shown.
#[track_caller]
pub fn shows<'a>(text: &str, values: impl IntoIterator<Item = &'a Value>) {
    let values: Vec<f64> = values
        .into_iter()
        .map(|value| {
            value
                .as_f64()
                .unwrap_or_else(|| panic!("{value} beside {text}"))
        })
        .collect();
    let numbers = numbers(text);
    assert_eq!(numbers.len(), values.len(), "{text}: {values:?}");
    for (number, expected) in numbers.iter().zip(values) {
        let (mantissa, exponent) = number.split_once('e').unwrap_or((number, "0"));
        let decimals = mantissa
            .split_once('.')
            .map_or(0, |(_, digits)| digits.len());
        let unit = 10f64.powi(exponent.parse::<i32>().unwrap() - decimals as i32);
        let difference = value(number).unwrap() - expected;
        let rounded = difference.abs() <= 0.5001 * unit;
        // Not a value that is shown as nothing at all.
        let seen = value(number) != Some(0.0) || expected.abs() < 1e-3;
        assert!(rounded && seen, "{number} for {expected}: {text}");
    }
}

/// Checks the style of all numbers of a page.
#[track_caller]
pub fn numbers_have_one_style(html: &str) {
    let text = text(html);
    for number in numbers(&text) {
        assert!(is_grouped(number), "{number}");
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let nouns = [
        "captions",
        "images",
        "pairs",
        "parameters",
        "steps",
        "values",
    ];
    for pair in words.windows(2) {
        let noun = pair[1].trim_end_matches(['.', ',', ';']);
        assert!(
            pair[0] != "1" || !nouns.contains(&noun),
            "{}",
            pair.join(" ")
        );
    }
}
