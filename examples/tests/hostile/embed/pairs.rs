//! Files of embeddings: what is embedded, and what is searched.

use std::fs;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::super::program::{Answer, Count, Place};
use super::{assert_no_weights, embed, place, search, write_clip, written};

#[test]
fn what_cannot_be_embedded_is_refused_and_leaves_nothing() {
    let mut count = Count::new("embed");
    let place = place();
    assert_no_weights(&mut count, &place, |changes| embed(&place, changes));
    place.write("mine", "mine");
    fs::create_dir(place.join("folder")).unwrap();
    place.write("header.csv", "image,caption\n");
    place.write("broken.png", "no image");
    place.write(
        "broken.csv",
        "image,caption\nbroken.png,broken\n00.png,good\n",
    );
    place.write("all-broken.csv", "image,caption\nbroken.png,broken\n");
    place.write("train.csv", "image,caption,split\n00.png,good,train\n");
    place.write("nothing.csv", "image,caption\n00.png,\n");
    for (changes, reason) in [
        (&[("--batch-size", "0")][..], "--batch-size 0"),
        (&[("--batch-size", "-1")], "unexpected argument"),
        (&[("--device", "tpu")], "no backend is called `tpu`"),
        (
            &[("--split", "rest")],
            "there are train, validation and test",
        ),
        (
            &[("--data", "train.csv"), ("--split", "val")],
            "no image in split val",
        ),
        (&[("--data", "absent")], "cannot read absent"),
        (&[("--data", "folder")], "holds no list of captions"),
        (&[("--data", "header.csv")], "gives no usable image"),
        (&[("--data", "nothing.csv")], "the caption is blank"),
        (&[("--data", "broken.csv")], "cannot read image broken.png"),
        (
            &[("--data", "all-broken.csv"), ("--skip-bad", "!")],
            "gives no usable image",
        ),
        (&[("--output", "mine")], "mine exists already"),
        (&[("--output", "folder")], "folder exists already"),
        (&[("--output", "absent/out")], "there is no folder absent"),
        (&[("--output", "mine/out")], "there is no folder mine"),
        (&[("--output", "/proc/out")], "cannot be written"),
        (&[("--output", "out/")], "cannot be written"),
        (&[("--output", "/dev/full")], "exists already"),
    ] {
        let answer = Answer::of(&mut embed(&place, changes));
        count.refused(&format!("{changes:?}"), &answer, reason);
        assert!(written(&place).is_empty(), "{changes:?}");
    }
    assert_eq!(fs::read(place.join("mine")).unwrap(), b"mine");

    let changes = [("--data", "broken.csv"), ("--skip-bad", "!")];
    let answer = Answer::of(&mut embed(&place, &changes));
    count.taken("--skip-bad", &answer);
    assert!(answer.out.contains("Left out as bad: 1"), "{}", answer.out);
    let file = fs::read(place.join("out.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(file.tensor("image").unwrap().shape(), [1, 6]);
}

/// Writes a file as `embed` does, with changes to its parts.
fn rewrite(place: &Place, name: &str, change: impl Fn(&mut Value, &mut Vec<usize>, &mut Vec<u8>)) {
    let bytes = fs::read(place.join("pairs.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut notes = json!(header.metadata().clone().unwrap());
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let image = file.tensor("image").unwrap();
    let (mut shape, mut values) = (image.shape().to_vec(), image.data().to_vec());
    change(&mut notes, &mut shape, &mut values);
    let notes: Option<_> = serde_json::from_value(notes).unwrap();
    let named = if shape.is_empty() { "other" } else { "image" };
    if shape.is_empty() {
        shape = image.shape().to_vec();
    }
    let image = TensorView::new(Dtype::F32, shape, &values).unwrap();
    let text = file.tensor("text").unwrap();
    let tensors = [(named, image), ("text", text)];
    safetensors::serialize_to_file(tensors, notes, &place.join(name)).unwrap();
}

#[test]
fn what_cannot_be_searched_is_refused_and_leaves_nothing() {
    let mut count = Count::new("search");
    let place = place();
    let made = Answer::of(&mut embed(&place, &[("--output", "pairs.safetensors")]));
    count.taken("embed", &made);
    let whole = fs::read(place.join("pairs.safetensors")).unwrap();
    place.write("cut.safetensors", &whole[..whole.len() - 5]);
    place.write("mine", "mine");
    rewrite(&place, "no-notes", |notes, _, _| *notes = Value::Null);
    rewrite(&place, "no-paths", |notes, _, _| {
        notes["paths"] = json!("{")
    });
    rewrite(&place, "few-paths", |notes, _, _| {
        notes["paths"] = json!("[\"00.png\"]")
    });
    rewrite(&place, "no-image", |_, shape, _| shape.clear());
    rewrite(&place, "narrow", |_, shape, values| {
        shape[1] = 3;
        values.truncate(values.len() / 2);
    });
    write_clip(&place.join("other.safetensors"), Some(0.5));
    for (changes, reason) in [
        (&[("--top", "0")][..], "--top 0"),
        (&[("--text", "")], "--text"),
        (&[("--embeddings", "absent")], "absent: could not be opened"),
        (&[("--embeddings", ".")], "is a folder"),
        (&[("--embeddings", "table.csv")], "not a safetensors file"),
        (&[("--embeddings", "cut.safetensors")], "cut off"),
        (
            &[("--embeddings", "clip.safetensors")],
            "no file that embed wrote",
        ),
        (&[("--embeddings", "no-notes")], "no file that embed wrote"),
        (&[("--embeddings", "no-paths")], "no file that embed wrote"),
        (&[("--embeddings", "few-paths")], "no file that embed wrote"),
        (&[("--embeddings", "no-image")], "no file that embed wrote"),
        (&[("--embeddings", "narrow")], "3 numbers"),
        (&[("--weights", "other.safetensors")], "by other weights"),
        (&[("--weights", "absent")], "absent"),
        (&[("--tokenizer", "")], "name its tokenizer"),
        (&[("--output", "mine")], "mine exists already"),
        (&[("--output", "absent/out")], "there is no folder absent"),
        (&[("--output", "/proc/out")], "could not be written"),
    ] {
        let answer = Answer::of(&mut search(&place, changes));
        count.refused(&format!("{changes:?}"), &answer, reason);
        assert!(written(&place).is_empty(), "{changes:?}");
    }
    assert_eq!(fs::read(place.join("mine")).unwrap(), b"mine");
}

#[test]
fn pictures_that_are_gone_are_shown_as_such_and_those_without_numbers_stand_last() {
    let mut count = Count::new("search of what is partly gone");
    let place = place();
    let made = Answer::of(&mut embed(&place, &[("--output", "pairs.safetensors")]));
    count.taken("embed", &made);
    fs::rename(place.join("03.png"), place.join("away")).unwrap();
    let long = "long ".repeat(10_000);
    let answer = Answer::of(&mut search(&place, &[("--top", "1000"), ("--text", &long)]));
    count.taken("all pictures", &answer);
    assert_eq!(answer.out.matches(".png").count(), 12);
    let page = fs::read_to_string(place.join("out.html")).unwrap();
    assert_eq!(page.matches("data:image/").count(), 11);
    assert_eq!(page.matches("no image").count(), 1);

    fs::rename(place.join("away"), place.join("03.png")).unwrap();
    rewrite(&place, "nan", |_, _, values| {
        values[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let changes = [("--embeddings", "nan"), ("--output", "")];
    let answer = Answer::of(&mut search(&place, &changes));
    count.taken("NaN", &answer);
    let last = answer.out.lines().last().unwrap();
    assert!(last.contains("NaN") && last.contains("00.png"), "{last}");
    assert_eq!(answer.out.matches("NaN").count(), 1);

    // A text that has no place among the pictures.
    write_clip(&place.join("large.safetensors"), Some(f32::MAX));
    let weights = ("--weights", "large.safetensors");
    let made = Answer::of(&mut embed(&place, &[weights, ("--output", "large")]));
    count.taken("embed", &made);
    let changes = [
        weights,
        ("--embeddings", "large"),
        ("--output", "out-large"),
    ];
    let answer = Answer::of(&mut search(&place, &changes));
    count.refused("too large", &answer, "an embedding with ");
    assert!(!place.join("out-large").exists());
}
