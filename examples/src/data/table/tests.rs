use super::*;
use crate::data::Collection;
use crate::data::listing::LONGEST_LINE;
use crate::data::testing::picture;

/// Reads `text` as `captions.<extension>` beside the images `a.png` and `sub/b.png`.
fn collection(extension: &str, text: impl AsRef<[u8]>, skip_bad: bool) -> Result<Collection> {
    let dir = tempfile::tempdir().unwrap();
    picture(&dir.path().join("a.png"), [1; 3]);
    picture(&dir.path().join("sub/b.png"), [2; 3]);
    std::fs::write(dir.path().join(format!("captions.{extension}")), text).unwrap();
    Collection::read(dir.path(), skip_bad)
}

#[test]
fn rows_with_one_path_are_captions_of_one_image() {
    let collection = collection(
        "csv",
        "caption,split,image\n\"red, round\",train,a.png\nblau – ü 青,test,sub/b.png\n\
         red,train,a.png\nred,train,a.png\n",
        false,
    )
    .unwrap();
    let [a, b] = collection.examples.as_slice() else {
        panic!("two images")
    };
    assert_eq!(
        (a.captions.as_slice(), a.split),
        (
            ["red, round", "red", "red"].map(String::from).as_slice(),
            Split::Train
        )
    );
    assert_eq!(
        (b.captions.as_slice(), b.split),
        (["blau – ü 青".to_owned()].as_slice(), Split::Test)
    );
    assert_eq!((a.place, b.place), (Place::Line(2), Place::Line(3)));
}

#[test]
fn tsv_needs_no_quotes_and_headers_are_optional() {
    for text in [
        "a.png\tsaid \"yes\nsub/b.png\t\"quoted\"\n",
        "PATH\tTitle\na.png\tsaid \"yes\nsub/b.png\t\"quoted\"\n",
    ] {
        let collection = collection("tsv", text, false).unwrap();
        let captions: Vec<_> = collection
            .examples
            .iter()
            .map(|example| example.captions[0].as_str())
            .collect();
        assert_eq!(captions, ["said \"yes", "\"quoted\""]);
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    let collection = collection("csv", "\u{feff}image,caption\r\na.png,red\r\n", false).unwrap();
    assert_eq!(collection.examples[0].captions, ["red"]);
}

#[test]
fn bad_rows_are_named_by_line_and_counted_when_skipped() {
    let header = "image,caption,split\na.png,good,train\n";
    for (text, expected) in [
        (
            format!("{header}a.png\n"),
            "line 3: the row has 1 cell, line 1 has 3",
        ),
        (
            format!("{header}a.png,red, green,train\n"),
            "line 3: the row has 4 cells, line 1 has 3",
        ),
        (
            format!("{header}a.png,\"red,train\n"),
            "line 3: a quote (\") opens a cell",
        ),
        (
            format!("{header}a.png,red\rb.png,blue,train\n"),
            "line 3: a carriage return",
        ),
        (
            format!("{header}a.png,  ,train\n"),
            "line 3: the caption is blank",
        ),
        (
            format!("{header},red,train\n"),
            "line 3: the image path is blank",
        ),
        (
            format!("{header}a.png,red,maybe\n"),
            "line 3: unknown split \"maybe\"",
        ),
        (
            format!("{header}a.png,red,test\n"),
            "line 3: a.png is in split test here but in train in line 2",
        ),
        (
            format!("{header}none.png,red,train\n"),
            "line 3: cannot read image",
        ),
    ] {
        let error = collection("csv", &text, false).unwrap_err().to_string();
        assert!(
            error.contains("captions.csv")
                && error.contains(expected)
                && error.contains("--skip-bad"),
            "{error}"
        );
        let skipped = collection("csv", &text, true).unwrap();
        assert_eq!((skipped.examples.len(), skipped.skipped.len()), (1, 1));
        assert!(skipped.skipped[0].reason.contains(expected));
    }
}

#[test]
fn one_stray_quote_costs_its_own_row_and_no_other() {
    let text = "image,caption\na.png,\"red\nsub/b.png,blue\na.png,the \"big\" one\n";
    let skipped = collection("csv", text, true).unwrap();
    let captions = |index: usize| skipped.examples[index].captions.clone();
    assert_eq!(captions(0), ["blue"]);
    assert_eq!(captions(1), ["the \"big\" one"]);
    assert_eq!(skipped.skipped.len(), 1);
}

#[test]
fn a_first_row_that_is_neither_header_nor_row_is_refused_even_when_skipping() {
    for (text, expected) in [
        (
            "picture_path,split,caption\na.png,train,red\n",
            "line 1: neither a header",
        ),
        ("image,split,words\na.png,train,red\n", "line 1: neither"),
        ("image;caption\na.png;red\n", "semicolons"),
        ("a.png\tred\n", "call the file .tsv"),
        ("a.png\n", "a table needs two"),
        ("\"a.png,red\n", "line 1: a quote"),
        (
            "image,caption,caption\na.png,x,y\n",
            "two columns are called `caption`",
        ),
    ] {
        let error = format!("{:#}", collection("csv", text, true).unwrap_err());
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let utf_16 = b"\xff\xfei\0m\0a\0g\0e\0".as_slice();
    let error = format!("{:#}", collection("csv", utf_16, true).unwrap_err());
    assert!(error.contains("UTF-16"), "{error}");
    let endless = vec![b'x'; (LONGEST_LINE + 2) as usize];
    let error = format!("{:#}", collection("csv", endless, true).unwrap_err());
    assert!(error.contains("longer than 1 MiB"), "{error}");
}

#[test]
fn the_usual_names_of_columns_are_known() {
    for header in ["image_path,split,caption", "file_name,split,text"] {
        let text = format!("{header}\na.png,train,red\n");
        let collection = collection("csv", text, false).unwrap();
        assert_eq!(collection.examples[0].captions, ["red"]);
    }
}

#[test]
fn rows_that_are_not_utf_8_are_bad_rows() {
    let text = b"image,caption\na.png,good\na.png,\xff\xfe\nsub/b.png,fine\n";
    let error = collection("csv", text, false).unwrap_err().to_string();
    assert!(
        error.contains("line 3") && error.contains("UTF-8"),
        "{error}"
    );
    let skipped = collection("csv", text, true).unwrap();
    assert_eq!((skipped.examples.len(), skipped.skipped.len()), (2, 1));
}

#[test]
fn nothing_usable_is_an_error_even_when_skipping() {
    for text in ["", "image,caption\n", "image,caption\na.png,\n"] {
        let error = collection("csv", text, true).unwrap_err().to_string();
        assert!(error.contains("no usable image"), "{error}");
    }
}

#[test]
fn splits_by_hash_are_fixed_and_near_eighty_ten_ten() {
    let mut counts = HashMap::new();
    for image in 0..10_000 {
        *counts
            .entry(split_of(&format!("images/{image:05}.jpg")))
            .or_insert(0) += 1;
    }
    assert!(
        (7_800..8_200).contains(&counts[&Split::Train]),
        "{counts:?}"
    );
    assert!(
        (850..1_150).contains(&counts[&Split::Test])
            && (850..1_150).contains(&counts[&Split::Validation]),
        "{counts:?}"
    );
    // These may never change: a run's test images would become another's training images.
    // Computed apart from this code, in Python.
    assert_eq!(
        ["0.png", "11.png", "6.png"].map(split_of),
        [Split::Train, Split::Validation, Split::Test]
    );
}
