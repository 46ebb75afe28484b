use std::fs;
use std::io::Cursor;

use super::*;
use crate::data::testing::{archive, bad_beside_a_good_one, captions, png, refusal, two};
use crate::data::{Collection, Pictures, decode};

#[test]
fn an_archive_is_read_as_its_files_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut images = [[1, 2, 3], [4, 5, 6], [7, 8, 9]].map(png);
    let picture = image::load_from_memory(&images[2]).unwrap();
    let mut webp = Cursor::new(Vec::new());
    picture
        .write_to(&mut webp, image::ImageFormat::WebP)
        .unwrap();
    images[2] = webp.into_inner();
    let deep = format!("{}/{}.webp", "deep".repeat(40), "long".repeat(20));
    archive(
        &dir.path().join("train-0.tar"),
        &[
            ("./b.cls.txt", b"not the caption"),
            ("b.jpg", &images[0]),
            ("b.txt", " the first\nin two lines \n".as_bytes()),
            ("b.json", b"{\"caption\": \"another\", \"key\": 7}"),
            ("c.json", "{\"text\": [\"zwei\", \"ü 青\"]}".as_bytes()),
            ("._c.jpg", b"what some systems leave"),
            ("c.PNG", &images[1]),
            (&deep, &images[2]),
            (&deep.replace(".webp", ".txt"), b"\xef\xbb\xbfdeep"),
            ("README", b"no sample"),
        ],
    );
    let collection = Collection::read(dir.path().join("train-0.tar"), false).unwrap();
    let all = captions(&collection);
    assert_eq!(all[0], ["the first\nin two lines"]);
    assert_eq!(all[1], ["zwei", "ü 青"]);
    assert_eq!(all[2], ["deep"]);
    let mut pictures = Pictures::default();
    for (index, image) in images.iter().enumerate() {
        let alone = dir.path().join("alone.png");
        fs::write(&alone, image).unwrap();
        let expected = decode(&alone).unwrap();
        assert_eq!(collection.decode(index).unwrap(), expected);
        let path = collection.examples[index].image.path();
        assert_eq!(pictures.find(path).unwrap().decode().unwrap(), expected);
    }
    let path = collection.examples[1].image.path();
    assert_eq!(path, dir.path().join("train-0.tar/c.PNG"));
    assert!(pictures.find(&path.with_extension("gif")).is_err());
    assert_eq!(collection.examples[1].place, Place::Member(5));
    assert!(
        collection
            .examples
            .iter()
            .all(|one| one.split == Split::Train)
    );
}

#[test]
fn bad_samples_are_named_and_left_out_when_skipping() {
    let good = png([1; 3]);
    for (members, expected) in [
        (
            vec![("b.jpg", good.as_slice())],
            "member 3: sample b: it has no caption",
        ),
        (
            vec![("b.txt", b"b")],
            "sample b: it has no .jpg, .jpeg, .png, .webp",
        ),
        (
            vec![("b.txt", b"b"), ("b.gif", &good)],
            "sample b: it has no .jpg",
        ),
        (
            vec![("b.txt", b" \n"), ("b.png", &good)],
            "sample b: b.txt: it is blank",
        ),
        (
            vec![("b.txt", b"\xff"), ("b.png", &good)],
            "b.txt: it is not valid UTF-8",
        ),
        (
            vec![("b.json", b"{"), ("b.png", &good)],
            "sample b: b.json: EOF",
        ),
        (
            vec![("b.json", b"7"), ("b.png", &good)],
            "b.json: invalid type",
        ),
        (
            vec![("b.json", b"{}"), ("b.png", &good)],
            "it has no `caption`",
        ),
        (
            vec![("b.json", b"{\"caption\": null}"), ("b.png", &good)],
            "is no text",
        ),
        (
            vec![("b.json", b"{\"caption\": []}"), ("b.png", &good)],
            "is blank",
        ),
        (
            vec![("b.json", b"{\"caption\": [\"b\", 7]}"), ("b.png", &good)],
            "is no text",
        ),
        (
            vec![("b.txt", b"b"), ("b.png", b"no image")],
            "b.png: The image format",
        ),
        (
            vec![("b.txt", b"b"), ("b.png", &good[..40])],
            "cannot read image",
        ),
        (
            vec![("b.txt", b"b"), ("b.png", &good), ("b.jpg", &good)],
            "sample b: b.jpg is the second of its kind",
        ),
        (
            vec![("b.txt", &[b'x'; 2 << 20]), ("b.png", &good)],
            "longer than 1 MiB",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.tar");
        archive(
            &file,
            &[&[("a.png", good.as_slice()), ("a.txt", b"a")], &members[..]].concat(),
        );
        let skipped = bad_beside_a_good_one(&file, "test.tar, member 3: ", expected);
        assert_eq!(skipped.split, Some(Split::Test));
    }
}

/// The header of a member with another name, size or type, and a checksum that is right.
fn changed(header: &[u8], change: impl FnOnce(&mut ::tar::Header)) -> Vec<u8> {
    let mut header = ::tar::Header::from_byte_slice(header).clone();
    change(&mut header);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn what_is_wrong_with_an_archive_is_said_and_the_rest_of_it_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("train.tar");
    let whole = two(&file);
    // Of the third member, `b.png`.
    let third = 4 * 512;
    let with = |change: &dyn Fn(&mut ::tar::Header)| {
        let header = changed(&whole[third..third + 512], change);
        [&whole[..third], &header, &whole[third + 512..]].concat()
    };
    let name = |name: &'static str| {
        with(&move |header| {
            header.as_mut_bytes()[..100].fill(0);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        })
    };
    let kind = |kind| with(&move |header| header.set_entry_type(kind));
    let size = |size: u64| with(&move |header| header.set_size(size));
    let mut flipped = whole.clone();
    flipped[third + 3] ^= 1;
    for (content, expected) in [
        (
            whole[..third + 100].to_vec(),
            "member 3: the archive breaks off or is damaged",
        ),
        (
            whole[..third + 520].to_vec(),
            "member 3: the archive breaks off",
        ),
        (
            // A header of zeros ends it.
            [&whole[..third], &[0; 512], &whole[third + 512..]].concat(),
            "member 3: the archive breaks off or is damaged here: there is more behind",
        ),
        (
            whole[..third].to_vec(),
            "member 3: the archive breaks off or is damaged here: its end",
        ),
        (
            flipped,
            "member 3: the archive breaks off or is damaged here: archive header checksum",
        ),
        (size(1 << 63), "member 3: the archive breaks off"),
        (size(u64::MAX), "member 3: the archive breaks off"),
        (size(1 << 40), "b.png should have 1099511627776 bytes"),
        (
            name("/etc/b.png"),
            "/etc/b.png is no name of a file in an archive",
        ),
        (name("../b.png"), "../b.png is no name"),
        (name("c/../../b.png"), "c/../../b.png is no name"),
        (name("c.png"), "sample c: it has no caption"),
        (kind(::tar::EntryType::Symlink), "sample b: it has no .jpg"),
        (kind(::tar::EntryType::Link), "sample b: it has no .jpg"),
        (
            kind(::tar::EntryType::Directory),
            "sample b: it has no .jpg",
        ),
        (kind(::tar::EntryType::Fifo), "sample b: it has no .jpg"),
        (kind(::tar::EntryType::GNULongName), "train.tar, member"),
        (kind(::tar::EntryType::XHeader), "train.tar, member"),
    ] {
        fs::write(&file, content).unwrap();
        let error = refusal(&file);
        assert!(
            error.contains("train.tar, member ") && error.contains(expected),
            "{expected:?} is not in {error:?}"
        );
        let skipped = Collection::read(&file, true).unwrap();
        assert_eq!(captions(&skipped), [["a"]], "{expected}");
    }
    for (content, expected) in [
        (vec![], "its end is missing"),
        (vec![0; 1024], "gives no usable image"),
        (
            vec![7; 4096],
            "member 1: the archive breaks off or is damaged",
        ),
        (vec![0x1f, 0x8b, 8, 0], "it is compressed"),
    ] {
        fs::write(&file, content).unwrap();
        let error = refusal(&file);
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
}
