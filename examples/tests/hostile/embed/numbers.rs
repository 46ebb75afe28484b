//! The numbers of `zero-shot`, by hand from the embeddings that `embed` gives of the same pictures
//! and captions.

use std::collections::BTreeMap;
use std::fs;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::super::program::{Answer, Count, Place};
use super::{embed, place, zero_shot};

const NAMES: [&str; 7] = ["red", "green", "blue", "round", "square", "small", "none"];
const IMAGES: usize = 40;

/// The class of a picture; the last has none.
fn class(index: usize) -> usize {
    index % 6
}

/// The captions of each class.
fn prompts() -> Vec<Vec<String>> {
    let in_templates = |text: &&str| [format!("a {text} thing"), format!("{text}, once more")];
    let prompts = NAMES.map(|name| {
        let texts = [name, "dark"];
        let texts = if name == "red" {
            &texts[..]
        } else {
            &texts[..1]
        };
        texts.iter().flat_map(in_templates).collect()
    });
    prompts.to_vec()
}

/// Pictures of noise in the folders of their classes, a table of them with captions and classes,
/// and the classes.
fn with_pictures() -> Place {
    let place = place();
    let prompts: Vec<String> = prompts().concat();
    let mut table = String::from("image\tcaption\tclass\n");
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    // In the order of the folders.
    let mut indices: Vec<usize> = (0..IMAGES).collect();
    indices.sort_by_key(|&index| (NAMES[class(index)], index));
    for index in indices {
        let name = format!("sorted/{}/{index:02}.png", NAMES[class(index)]);
        let picture =
            image::RgbImage::from_fn(12, 12, |_, _| image::Rgb([(); 3].map(|()| noise())));
        fs::create_dir_all(place.join(&name).parent().unwrap()).unwrap();
        picture.save(place.join(&name)).unwrap();
        let caption = &prompts[index % prompts.len()];
        table += &format!("{name}\t{caption}\t{}\n", NAMES[class(index)]);
    }
    place.write("pictures.tsv", table);
    let mut classes: Vec<_> = NAMES.map(|name| json!(name)).to_vec();
    classes[0] = json!({"name": "red", "texts": ["red", "dark"]});
    let json = json!({"templates": ["a {} thing", "{}, once more"], "classes": classes});
    place.write("classes.json", json.to_string());
    place
}

fn unit(row: &[f64]) -> Vec<f64> {
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    row.iter().map(|x| x / norm).collect()
}

/// For each picture its class, and the cosine of each class with it.
fn cosines(place: &Place) -> Vec<(usize, Vec<f64>)> {
    let bytes = fs::read(place.join("pairs.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let paths = &header.metadata().as_ref().unwrap()["paths"];
    let paths: Vec<String> = serde_json::from_str(paths).unwrap();
    let index = |path: &String| {
        path[path.len() - 6..path.len() - 4]
            .parse::<usize>()
            .unwrap()
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let [images, texts] = ["image", "text"].map(|name| {
        let words = file.tensor(name).unwrap().data().as_chunks().0;
        let values: Vec<f64> = words
            .iter()
            .map(|&word| f32::from_le_bytes(word).into())
            .collect();
        values.chunks(6).map(unit).collect::<Vec<_>>()
    });
    let all: Vec<String> = prompts().concat();
    // The caption of a picture is the prompt of its number.
    let of = |prompt: &String| {
        let number = all.iter().position(|other| other == prompt).unwrap();
        let row = paths.iter().position(|path| index(path) == number).unwrap();
        &texts[row]
    };
    let classes = prompts().into_iter().map(|prompts| {
        let mut sum = vec![0.0; 6];
        for prompt in &prompts {
            sum.iter_mut()
                .zip(of(prompt))
                .for_each(|(sum, x)| *sum += x);
        }
        unit(&sum)
    });
    let classes: Vec<_> = classes.collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let of_image = |image: &Vec<f64>| classes.iter().map(|class| dot(image, class)).collect();
    let own = paths.iter().map(|path| class(index(path)));
    own.zip(images.iter().map(of_image)).collect()
}

/// What `metrics.json` must have of some pictures: top-1 and top-5.
fn scores<'a>(images: impl Iterator<Item = &'a (usize, Vec<f64>)>) -> Value {
    let rank = |(class, cosines): &(usize, Vec<f64>)| {
        cosines
            .iter()
            .filter(|other| **other >= cosines[*class])
            .count()
    };
    let ranks: Vec<usize> = images.map(rank).collect();
    let percent = |k: usize| {
        let found = ranks.iter().filter(|&&rank| rank <= k).count();
        100.0 * found as f64 / ranks.len() as f64
    };
    // Without a picture 0/0, which JSON has no number for.
    json!({"top_1": percent(1), "top_k": percent(5)})
}

fn metrics(place: &Place) -> Value {
    serde_json::from_slice(&fs::read(place.join("out.json")).unwrap()).unwrap()
}

#[test]
fn every_number_of_zero_shot_is_that_of_the_embeddings() {
    let mut count = Count::new("zero-shot: numbers");
    let place = with_pictures();
    let changes = [
        ("--data", "pictures.tsv"),
        ("--output", "pairs.safetensors"),
    ];
    count.taken("embed", &Answer::of(&mut embed(&place, &changes)));
    let cosines = cosines(&place);
    assert_eq!(cosines.len(), IMAGES);

    let answer = Answer::of(&mut zero_shot(&place, &[("--batch-size", "7")]));
    count.taken("folders", &answer);
    let found = metrics(&place);
    assert_eq!((&found["images"], &found["k"]), (&json!(IMAGES), &json!(5)));
    assert_eq!(found["sources"]["prompts"], 16);
    assert_eq!(found["all"], scores(cosines.iter()));
    assert_eq!(
        found["chance"],
        json!({"top_1": 100.0 / 7.0, "top_k": 500.0 / 7.0})
    );
    let mut sum = 0.0;
    for (class, name) in NAMES.into_iter().enumerate() {
        let of = || cosines.iter().filter(move |(own, _)| *own == class);
        let expected = json!({"name": name, "images": of().count(), "scores": scores(of())});
        assert_eq!(found["classes"][class], expected);
        sum += expected["scores"]["top_1"].as_f64().unwrap_or(0.0);
    }
    let mean = found["mean_of_classes"].as_f64().unwrap();
    assert!((mean - sum / 6.0).abs() < 1e-9, "{mean}");
    let mut cells = BTreeMap::new();
    for (class, cosines) in &cosines {
        let nearest = (0..7).max_by(|&a, &b| cosines[a].total_cmp(&cosines[b]));
        *cells.entry((*class, nearest.unwrap())).or_insert(0) += 1;
    }
    let cells = cells.into_iter().map(|((class, taken_for), count)| {
        json!({"class": NAMES[class], "taken_for": NAMES[taken_for], "count": count})
    });
    assert_eq!(found["confusion"], Value::from_iter(cells));
    // It takes them for different classes, some rightly.
    assert!(found["confusion"].as_array().unwrap().len() > 8, "{found}");
    let [top_1, top_5] = ["top_1", "top_k"].map(|key| found["all"][key].as_f64().unwrap());
    assert!(0.0 < top_1 && top_1 < top_5 && top_5 < 100.0, "{found}");
    // What the terminal says.
    assert!(
        answer.out.contains(&format!("{top_1:>6.1} %")),
        "{}",
        answer.out
    );

    fs::remove_file(place.join("out.html")).unwrap();
    fs::remove_file(place.join("out.json")).unwrap();
    let answer = Answer::of(&mut zero_shot(&place, &[("--data", "pictures.tsv")]));
    count.taken("table", &answer);
    let of_table = metrics(&place);
    for key in ["all", "classes", "confusion", "mean_of_classes"] {
        assert_eq!(of_table[key], found[key], "{key}");
    }
}
