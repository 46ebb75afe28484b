//! Tar shards and Parquet files: what every program makes of them, whole and damaged.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::program::{
    ALBEF, Answer, CLIP, Count, IT_CONTRAST, Place, Program, VISUAL_SEMANTIC, metrics, table,
};

/// The images of [`table`] as three shards, by their splits; the first has the members of `more`
/// too.
fn shards(place: &Place, more: &[(&str, &[u8])]) -> PathBuf {
    table(place, "");
    fs::create_dir_all(place.join("shards")).unwrap();
    for (split, range) in [("train", 0..8), ("val", 8..10), ("test", 10..12)] {
        let file = place.join(&format!("shards/{split}-0.tar"));
        let mut archive = tar::Builder::new(File::create(file).unwrap());
        let mut add = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).unwrap();
        };
        for index in range {
            let image = fs::read(place.join(&format!("{index:02}.png"))).unwrap();
            add(&format!("{index:02}.png"), &image);
            let caption = format!("picture number {index}");
            add(&format!("{index:02}.txt"), caption.as_bytes());
        }
        if split == "train" {
            more.iter().for_each(|(name, content)| add(name, content));
        }
        archive.finish().unwrap();
    }
    place.join("shards")
}

/// A file that `datasets` wrote.
fn parquet() -> Vec<u8> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/shards");
    fs::read(format!("{fixtures}/hugging_face.parquet")).unwrap()
}

/// Two steps of a program on the data called `data`.
fn train(place: &Place, program: Program, data: &str, arguments: &[&str]) -> Answer {
    let _ = fs::remove_dir_all(place.join("run"));
    let mut command = place.small_run(program, &["--output", "run", "--data", data]);
    command.args(arguments);
    Answer::of(&mut command)
}

#[test]
fn every_program_trains_on_shards() {
    let mut count = Count::new("programs on shards");
    let place = Place::new();
    shards(&place, &[]);
    let pattern = "shards/{train,val,test}-0.tar";
    for (program, data) in [
        (CLIP, "shards"),
        (CLIP, "./shards/../shards/{train,val,test}-{0..0}.tar"),
        (ALBEF, pattern),
        (VISUAL_SEMANTIC, "shards"),
        (IT_CONTRAST, pattern),
    ] {
        let answer = train(&place, program, data, &["--set", "data.shuffle_buffer=4"]);
        count.taken(data, &answer);
        // Wherever it goes on from.
        let run = place.join("run");
        let path = metrics(&run)["config"]["data"]["path"].clone();
        let path = path.as_str().unwrap();
        assert!(path.starts_with('/') && path.contains("shards"), "{path}");
        let more = ["--resume", "run", "--set", "schedule.steps=3"];
        let mut again = Command::new(program.file);
        again.args(more).args(["--plain"]).current_dir(place.path());
        count.taken("--resume", &Answer::of(&mut again));
    }
    let small = train(&place, CLIP, "shards", &["--set", "data.shuffle_buffer=3"]);
    count.refused("a buffer of 3", &small, "data.shuffle_buffer is 3");

    // What a run makes of them: regions for another system, embeddings.
    place.finished_on(CLIP, "clip", "shards", &[]);
    let from = ["--data", pattern, "--output"];
    let regions = ["regions", "--init", "clip"].into_iter();
    let regions = regions.chain(from).chain(["regions.safetensors"]);
    count.taken("regions", &Answer::of(&mut place.run(IT_CONTRAST, regions)));
    let file = ["--set", "regions.file=regions.safetensors"];
    count.taken("them", &train(&place, IT_CONTRAST, "shards", &file));
    let mut embed = Command::new(env!("CARGO_BIN_EXE_embed"));
    embed.args(["--weights", "clip"]).args(from);
    embed.arg("rows.safetensors").current_dir(place.path());
    count.taken("embed", &Answer::of(&mut embed));
}

#[test]
fn damaged_archives_are_refused_with_shard_and_member() {
    let mut count = Count::new("archives");
    let place = Place::new();
    let good = {
        shards(&place, &[]);
        fs::read(place.join("00.png")).unwrap()
    };
    let first = |more: &[(&str, &[u8])]| {
        shards(&place, more);
        fs::read(place.join("shards/train-0.tar")).unwrap()
    };
    let whole = first(&[]);
    let last = whole.len() - 1024;
    let mut lying = first(&[("x.png", &good)]);
    // Base 256, as sizes of 8 GiB and more are written.
    lying[last + 124..last + 136].copy_from_slice(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    let sum: u32 = (0..512)
        .map(|at| {
            if (148..156).contains(&at) {
                32
            } else {
                lying[last + at].into()
            }
        })
        .sum();
    lying[last + 148..last + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let twice = [("00.png", good.as_slice())];
    let latin: [(&str, &[u8]); 2] = [("x.png", &good), ("x.txt", b"gr\xfcn")];
    let half: [(&str, &[u8]); 2] = [("x.png", &good[..60]), ("x.txt", b"half")];
    for (name, content, reason) in [
        (
            "cut in a header",
            whole[..last - 1024 + 90].to_vec(),
            "train-0.tar, member 16: ",
        ),
        (
            "cut in a member",
            whole[..last - 500].to_vec(),
            "train-0.tar, member 16: ",
        ),
        (
            "cut at the end",
            whole[..last].to_vec(),
            "its end is missing",
        ),
        (
            "a size of 2^63",
            lying,
            "train-0.tar, member 17: the archive breaks off",
        ),
        (
            "twice",
            first(&twice),
            "member 1: sample 00: 00.png is the second",
        ),
        (
            "no caption",
            first(&[("x.png", &good)]),
            "sample x: it has no caption",
        ),
        (
            "no image",
            first(&[("x.txt", b"x")]),
            "member 17: sample x: it has no .jpg",
        ),
        (
            "latin",
            first(&latin),
            "member 17: sample x: x.txt: it is not valid UTF-8",
        ),
        ("half an image", first(&half), "train-0.tar/x.png"),
    ] {
        place.write("shards/train-0.tar", content);
        count.refused(name, &train(&place, CLIP, "shards", &[]), reason);
        let answer = train(&place, CLIP, "shards", &["--skip-bad"]);
        count.taken(name, &answer);
        assert!(
            answer.out.contains("Left out as bad: "),
            "{name}: {}",
            answer.out
        );
        assert!(!place.join("x.png").exists(), "nothing is unpacked");
    }
    for (name, content, reason) in [
        ("empty", vec![], "its end is missing"),
        ("zeros", vec![0; 10_240], "no image in the split train"),
        (
            "text",
            b"no archive at all".to_vec(),
            "member 1: the archive breaks off",
        ),
        ("compressed", vec![0x1f, 0x8b, 8, 0, 0, 0], "uncompress it"),
    ] {
        place.write("shards/train-0.tar", content);
        count.refused(name, &train(&place, CLIP, "shards", &[]), reason);
    }
}

#[test]
fn shards_that_are_not_there_or_no_files_are_refused() {
    let mut count = Count::new("names of shards");
    let place = Place::new();
    shards(&place, &[]);
    fs::create_dir_all(place.join("folder.tar")).unwrap();
    fs::create_dir_all(place.join("empty")).unwrap();
    symlink("/dev/zero", place.join("zero.tar")).unwrap();
    symlink("/nowhere", place.join("nowhere.parquet")).unwrap();
    let pipe = Command::new("mkfifo").arg(place.join("pipe.tar")).status();
    assert!(pipe.unwrap().success());
    let deep = format!("{}.tar", "{".repeat(10_000));
    for (data, reason) in [
        ("shards/train-{0..3}.tar", "train-1.tar of "),
        ("shards/{train,none}-0.tar", "none-0.tar of "),
        ("shards/train-{0..99999999}.tar", "stands for"),
        ("shards/train-0.{tar,parquet}", "two kinds"),
        ("shards/train-{0..1}.zip", "cannot read"),
        ("shards/train-0.tar.gz", "cannot read"),
        (&deep, "10000 braces"),
        ("folder.tar", "holds no list of captions"),
        ("empty", "holds no list of captions"),
        ("zero.tar", "neither a file nor a folder"),
        ("pipe.tar", "neither a file nor a folder"),
        ("{pipe,zero}.tar", "pipe.tar of "),
        ("nowhere.parquet", "cannot read"),
    ] {
        count.refused(data, &train(&place, CLIP, data, &[]), reason);
    }
    assert!(!place.join("run").exists(), "refused data leave no folder");
}

#[test]
fn damaged_tables_are_refused_and_nothing_panics() {
    let mut count = Count::new("Parquet files");
    let place = Place::new();
    let whole = parquet();
    let train = |content: &[u8]| {
        place.write("rows.parquet", content);
        train(
            &place,
            CLIP,
            "rows.parquet",
            &["--set", "data.batch_size=2"],
        )
    };
    count.taken("whole", &train(&whole));
    for length in [
        0,
        3,
        4,
        100,
        whole.len() / 2,
        whole.len() - 8,
        whole.len() - 1,
    ] {
        count.refused("cut", &train(&whole[..length]), "rows.parquet: ");
    }
    count.refused("text", &train(b"no table"), "rows.parquet: ");
    count.refused("zeros", &train(&[0; 5_000]), "rows.parquet: ");
    for at in (4..whole.len()).step_by(whole.len() / 40) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x81;
        count.answered("flipped", &train(&flipped));
    }
}
