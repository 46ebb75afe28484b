//! `zero-shot`: classes, pictures and outputs.

use std::fs;

use serde_json::Value;

use super::super::program::{Answer, Count, Place, picture};
use super::{assert_no_weights, place, write_clip, written, zero_shot};

const CLASSES: &str = r#"{"templates": ["a photo of a {}."], "classes": ["cat", "dog", "bird"]}"#;

/// Options other than those of [`zero_shot`], and why they are refused.
const REFUSED: [(&[(&str, &str)], &str); 25] = [
    (&[("--classes", "absent")], "cannot open absent"),
    (
        &[("--classes", "bad.json")],
        "not a file of templates and classes",
    ),
    (
        &[("--classes", "gap.json")],
        "templates[0]: \"a photo of a cat.\" must have {}",
    ),
    (
        &[("--classes", "twice.json")],
        "classes[1]: \"cat\" is there twice",
    ),
    (
        &[("--classes", "other.json")],
        "\"dog\"; there are cat, wolf, bird",
    ),
    (&[("--classes", "/dev/zero")], "it is not a file"),
    (&[("--data", "absent")], "cannot read absent"),
    (&[("--data", "bare")], "gives no usable image of a class"),
    (&[("--data", "bare/cat")], "holds no folders"),
    (
        &[("--data", "broken")],
        "cannot read image broken/cat/1.png",
    ),
    (
        &[("--data", "broken"), ("--skip-bad", "!")],
        "gives no usable image",
    ),
    (
        &[("--data", "table.csv")],
        "a column class, label, category",
    ),
    (&[("--data", "two.csv")], "is of two classes"),
    (&[("--data", "classes.json")], "neither a folder"),
    (
        &[("--split", "rest")],
        "there are train, validation and test",
    ),
    (&[("--batch-size", "0")], "--batch-size 0"),
    (
        &[("--weights", "nan.safetensors")],
        "text_projection has a number that is not finite",
    ),
    (&[("--weights", "large.safetensors")], "an embedding with "),
    (&[("--output", "mine")], "mine exists already"),
    (&[("--metrics", "mine")], "another --metrics"),
    (&[("--metrics", "out.html")], "are one file"),
    (&[("--metrics", "sorted/../out.html")], "are one file"),
    (
        &[("--output", "absent/out")],
        "--output absent/out: there is no folder",
    ),
    (
        &[("--metrics", "absent/out")],
        "--metrics absent/out: there is no folder",
    ),
    (&[("--metrics", "/proc/out")], "could not be written"),
];

/// A place with pictures in folders of two classes.
pub fn with_classes() -> Place {
    let place = place();
    place.write("classes.json", CLASSES);
    for (index, name) in ["cat/1", "cat/2", "dog/1"].into_iter().enumerate() {
        picture(
            &place.join(&format!("sorted/{name}.png")),
            [80 * index as u8; 3],
        );
    }
    place
}

#[test]
fn what_cannot_be_classified_is_refused_and_leaves_nothing() {
    let mut count = Count::new("zero-shot");
    let place = with_classes();
    assert_no_weights(&mut count, &place, |changes| zero_shot(&place, changes));
    place.write("mine", "mine");
    place.write("bad.json", "{");
    place.write("gap.json", CLASSES.replace("{}", "cat"));
    place.write("twice.json", CLASSES.replace("dog", "cat"));
    place.write("other.json", CLASSES.replace("dog", "wolf"));
    fs::create_dir_all(place.join("bare/cat")).unwrap();
    place.write("broken/cat/1.png", "no image");
    place.write("two.csv", "image,class\n00.png,cat\n00.png,dog\n");
    write_clip(&place.join("nan.safetensors"), Some(f32::NAN));
    write_clip(&place.join("large.safetensors"), Some(f32::MAX));
    for (changes, reason) in REFUSED {
        let answer = Answer::of(&mut zero_shot(&place, changes));
        count.refused(&format!("{changes:?}"), &answer, reason);
        assert!(written(&place).is_empty(), "{changes:?}");
    }
    assert_eq!(fs::read(place.join("mine")).unwrap(), b"mine");
}

#[test]
fn classes_without_pictures_and_prompts_that_are_cut_are_said() {
    let mut count = Count::new("zero-shot on what is odd");
    let place = with_classes();
    let long = format!("a photo of {} {{}}", "very ".repeat(200));
    place.write("long.json", CLASSES.replace("a photo of a {}.", &long));
    place.write("sorted/cat/notes.txt", "no image");
    picture(&place.join("sorted/wolf/1.png"), [9; 3]);
    let changes = [("--classes", "long.json"), ("--skip-bad", "!")];
    let answer = Answer::of(&mut zero_shot(&place, &changes));
    count.taken("odd", &answer);
    assert!(
        answer
            .err
            .contains("Longer than 16 tokens, and cut: 3 prompts"),
        "{}",
        answer.err
    );
    for said in [
        "without an image: bird",
        "Left out as bad: 2",
        "3 images of 3 classes",
    ] {
        assert!(answer.out.contains(said), "{said}: {}", answer.out);
    }
    let metrics = fs::read(place.join("out.json")).unwrap();
    let metrics: Value = serde_json::from_slice(&metrics).unwrap();
    assert_eq!(metrics["sources"]["cut"].as_array().unwrap().len(), 3);
    assert_eq!(metrics["classes"][2]["scores"]["top_1"], Value::Null);
    // All prompts begin alike and end alike, so that no class is nearer than another.
    assert_eq!(metrics["all"]["top_1"], 0.0);
    let page = fs::read_to_string(place.join("out.html")).unwrap();
    assert!(
        page.contains("Without an image, and in no score: bird."),
        "{page}"
    );
}
