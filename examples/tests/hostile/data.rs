//! Tables, split files and images.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::program::{Answer, Count, Place, picture, table};

/// Trains two steps on the data at `path`.
fn train(place: &Place, path: &Path, arguments: &[&str]) -> Answer {
    let _ = fs::remove_dir_all(place.join("run"));
    let mut command = place.small(arguments);
    command.args(["--output", "run", "--data"]).arg(path);
    Answer::of(&mut command)
}

#[test]
fn rows_of_a_table_are_read_or_refused_with_their_line() {
    let mut count = Count::new("rows of tables");
    let place = Place::new();
    for (row, reason) in [
        ("00.png\n", "line 14: the row has 1 cell"),
        ("00.png,red, round,train\n", "line 14: the row has 4 cells"),
        ("00.png,,train\n", "line 14: the caption is blank"),
        ("00.png, \t ,train\n", "the caption is blank"),
        (",red,train\n", "the image path is blank"),
        ("00.png,red,\n", "the split is blank"),
        ("00.png,red,tset\n", "unknown split"),
        ("00.png,red,test\n", "is in split test here but in train"),
        ("none.png,red,train\n", "none.png"),
        ("../none.png,red,train\n", "none.png"),
        ("/,red,train\n", "it is not a file"),
        ("/dev/zero,red,train\n", "it is not a file"),
        ("00.png,\"red,train\n", "line 14: a quote"),
        ("\"00.png,red,train\n", "a quote"),
        ("00.png,\"red\nround\",train\n", "line 14: a quote"),
        ("00.png,red\rblue,train\n", "carriage return"),
        ("00.png,red\u{0}.png,train\u{0}\n", "unknown split"),
        ("\u{0}.png,red,train\n", "cannot read image"),
        ("00.png;red;train\n", "the row has 1 cell"),
        ("00.png\tred\ttrain\n", "the row has 1 cell"),
    ] {
        let path = table(&place, row);
        count.refused(row, &train(&place, &path, &[]), reason);
        // All others are as good as without it.
        let answer = train(&place, &path, &["--skip-bad"]);
        count.taken(row, &answer);
        assert!(answer.out.contains("Left out as bad: "), "{}", answer.out);
        assert!(
            answer.out.contains("2 images, 2 captions"),
            "{}",
            answer.out
        );
    }
    for row in [
        "",
        "\n\n  \n",
        "00.png,\"red, round\",train",
        "00.png,the \"big\" one,train\r\n",
        "00.png,\u{feff}red,train\n",
        "00.png,<script>alert(1)</script>,train\n",
        "00.png,ä 青 🙂 e\u{301},train\n",
        " 00.png , red , TRAIN \n",
        "./00.png,red,train\n",
    ] {
        let path = table(&place, row);
        count.taken(row, &train(&place, &path, &[]));
    }
    let long = format!("00.png,{},train\n", "x".repeat(1_000_000));
    let path = table(&place, &long);
    let answer = train(&place, &path, &[]);
    count.taken("a word of a million characters", &answer);
    assert!(answer.out.contains("Cut 1 caption to"), "{}", answer.out);
    let longer = format!("00.png,{},train\n", "x".repeat(2_000_000));
    let path = table(&place, &longer);
    count.refused(
        "2 MB",
        &train(&place, &path, &["--skip-bad"]),
        "longer than 1 MiB",
    );
}

#[test]
fn whole_tables_are_refused_with_a_hint() {
    let mut count = Count::new("tables");
    let place = Place::new();
    table(&place, "");
    let random: Vec<u8> = (0..50_000_u32)
        .map(|x| (x.wrapping_mul(x) >> 7) as u8)
        .collect();
    let wide = b"\xff\xfei\0m\0a\0g\0e\0".to_vec();
    for (name, content, reason) in [
        ("empty.csv", b"".to_vec(), "no usable image"),
        ("header.csv", b"image,caption\n".to_vec(), "no usable image"),
        ("one.csv", b"00.png,red\n".to_vec(), "split"),
        (
            "semicolons.csv",
            b"image;caption\n00.png;red\n".to_vec(),
            "semicolons",
        ),
        (
            "tabs.csv",
            b"image\tcaption\n00.png\tred\n".to_vec(),
            ".tsv",
        ),
        (
            "commas.tsv",
            b"image,caption\n00.png,red\n".to_vec(),
            "a table needs two",
        ),
        (
            "names.csv",
            b"a,b,c\n00.png,train,red\n".to_vec(),
            "neither a header",
        ),
        (
            "twice.csv",
            b"image,caption,caption\n".to_vec(),
            "two columns",
        ),
        ("random.csv", random.clone(), "random.csv"),
        ("zeros.csv", vec![0; 3_000_000], "longer than 1 MiB"),
        ("utf16.csv", wide, "UTF-16"),
        (
            "latin.csv",
            b"image,caption\n00.png,gr\xfcn\n".to_vec(),
            "UTF-8",
        ),
        (
            "quote.csv",
            b"\"image,caption\n00.png,red\n".to_vec(),
            "a quote",
        ),
        ("empty.json", b"".to_vec(), "empty.json"),
        ("random.json", random, "random.json"),
        ("list.json", b"[]".to_vec(), "not a Karpathy split file"),
        ("object.json", b"{}".to_vec(), "images"),
        ("null.json", b"{\"images\": null}".to_vec(), "images"),
        ("none.json", b"{\"images\": []}".to_vec(), "no usable image"),
        ("number.json", b"{\"images\": [7]}".to_vec(), "images[0]"),
        ("deep.json", b"[".repeat(200_000), "deep.json"),
        (
            "coco.json",
            b"{\"images\": [{\"id\": 1, \"file_name\": \"00.png\"}]}".to_vec(),
            "COCO's own annotations",
        ),
        (
            "split.json",
            b"{\"images\": [{\"filename\": \"00.png\", \"split\": \"x\", \"sentences\": []}]}"
                .to_vec(),
            "unknown split",
        ),
        (
            "captions.json",
            b"{\"images\": [{\"filename\": \"00.png\", \"split\": \"train\", \"sentences\": []}]}"
                .to_vec(),
            "has no caption",
        ),
        (
            "text.txt",
            b"00.png red".to_vec(),
            "neither .json, .csv nor .tsv",
        ),
    ] {
        let path = place.write(name, content);
        count.refused(name, &train(&place, &path, &[]), reason);
    }
    assert!(!place.join("run").exists(), "refused data leave no folder");
    let answer = train(&place, place.path(), &[]);
    count.refused("a folder with many lists", &answer, "several lists");
}

#[test]
fn images_are_decoded_or_refused_before_the_first_step() {
    let mut count = Count::new("images");
    let place = Place::new();
    picture(&place.join("good.jpg"), [1, 2, 3]);
    picture(&place.join("good.png"), [1, 2, 3]);
    let [jpeg, png] = ["good.jpg", "good.png"].map(|name| fs::read(place.join(name)).unwrap());
    let mut huge = jpeg.clone();
    let frame = huge
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap()
        + 5;
    huge[frame..frame + 4].copy_from_slice(&[0xc3, 0x50, 0xc3, 0x50]);
    let mut flat = jpeg.clone();
    flat[frame..frame + 4].fill(0);
    let flipped = |at: usize| {
        let mut bytes = png.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("empty.png", Vec::new()),
        ("text.png", b"not a picture".to_vec()),
        ("html.jpg", b"<html>404</html>".to_vec()),
        ("half.png", png[..png.len() / 2].to_vec()),
        ("half.jpg", jpeg[..jpeg.len() / 3].to_vec()),
        ("magic.png", png[..8].to_vec()),
        ("header.png", png[..33].to_vec()),
        ("size.png", flipped(17)),
        ("sum.png", flipped(30)),
        ("pixels.png", flipped(50)),
        ("huge.jpg", huge),
        ("flat.jpg", flat),
        ("gif.png", b"GIF89a\x01\0\x01\0\x80\0\0".to_vec()),
    ];
    let mut names: Vec<String> = Vec::new();
    for (name, bytes) in bad {
        place.write(name, bytes);
        names.push(name.to_string());
    }
    fs::create_dir(place.join("folder.png")).unwrap();
    symlink(place.join("loop.png"), place.join("loop.png")).unwrap();
    symlink("/nowhere", place.join("dangling.png")).unwrap();
    let pipe = Command::new("mkfifo").arg(place.join("pipe.png")).status();
    assert!(pipe.unwrap().success());
    names.extend(["folder.png", "loop.png", "dangling.png", "pipe.png"].map(String::from));
    for name in &names {
        for split in ["train", "val", "test"] {
            let path = table(&place, &format!("{name},bad,{split}\n"));
            let strict = train(&place, &path, &[]);
            count.refused(name, &strict, name);
            assert!(strict.err.contains("line 14"), "{}", strict.err);
            assert!(!strict.out.contains("step 1"), "{}", strict.out);
            let lenient = train(&place, &path, &["--skip-bad"]);
            count.taken(name, &lenient);
            let expected = format!("1 (1 image of the split {split})");
            assert!(lenient.out.contains(&expected), "{}", lenient.out);
        }
    }
}
