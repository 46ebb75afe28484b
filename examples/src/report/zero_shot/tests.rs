use serde_json::{Value, json};

use super::*;
use crate::report::tests::shown::{numbers_have_one_style, section, shows};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("class {class}")).collect()
}

/// An image of a class with cosines to classes, the nearest first.
fn image(class: usize, nearest: &[(usize, f64)]) -> Classified {
    Classified {
        image: format!("{class}.png").into(),
        class,
        nearest: nearest.to_vec(),
    }
}

/// Seven classes, the last without an image.
fn seven() -> ZeroShotReport {
    let images = [
        image(
            0,
            &[(0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6), (4, 0.5), (5, 0.4)],
        ),
        image(
            0,
            &[(1, 0.9), (0, 0.8), (2, 0.7), (3, 0.6), (4, 0.5), (5, 0.4)],
        ),
        image(
            0,
            &[(1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6), (5, 0.5), (0, 0.4)],
        ),
        image(
            1,
            &[(2, 0.9), (0, 0.8), (3, 0.7), (4, 0.6), (5, 0.5), (6, 0.4)],
        ),
    ];
    ZeroShotReport::new(ZeroShotSources::default(), &names(7), &images)
}

#[test]
fn hand_worked_scores() {
    let report = seven();
    assert_eq!(
        report.all,
        ClassScores {
            top_1: 25.0,
            top_k: 50.0
        }
    );
    assert_eq!(report.chance.top_1, 100.0 / 7.0);
    assert_eq!(report.chance.top_k, 500.0 / 7.0);
    assert_eq!(report.classes[0].scores.top_1, 100.0 / 3.0);
    assert_eq!(report.classes[0].scores.top_k, 200.0 / 3.0);
    assert_eq!(
        report.classes[1].scores,
        ClassScores {
            top_1: 0.0,
            top_k: 0.0
        }
    );
    assert!((report.mean_of_classes - 50.0 / 3.0).abs() < 1e-12);
    assert_eq!(report.absent(), names(7)[2..]);
    let cells = report.confusion.iter();
    let cells = cells.map(|cell| (&*cell.class, &*cell.taken_for, cell.count));
    let expected = [
        ("class 0", "class 0", 1),
        ("class 0", "class 1", 2),
        ("class 1", "class 2", 1),
    ];
    assert!(cells.eq(expected));
    let wrong: Vec<u64> = report.confused().iter().map(|cell| cell.count).collect();
    assert_eq!(wrong, [2, 1]);
    let right: Vec<bool> = report.examples.iter().map(|one| one.is_right).collect();
    assert_eq!(right, [false, false, true]);
    assert_eq!(report.examples[0].nearest.len(), 5);
}

#[test]
fn a_tie_never_helps() {
    let of = |class, nearest: &[(usize, f64)], classes| {
        let images = [image(class, nearest)];
        ZeroShotReport::new(ZeroShotSources::default(), &names(classes), &images)
    };
    // The first of equal ones is listed first.
    let tied = of(0, &[(0, 0.5), (1, 0.5), (2, 0.1)], 3);
    assert_eq!(
        tied.all,
        ClassScores {
            top_1: 0.0,
            top_k: 100.0
        }
    );
    assert_eq!(tied.confusion[0].taken_for, "class 1");
    let all = of(1, &[(0, 0.5), (1, 0.5)], 2);
    assert_eq!(all.confusion[0].taken_for, "class 0");
    // As near as five others, of which the list has all.
    let nearest = [0, 1, 2, 3, 4, 5].map(|class| (class, 0.5));
    assert_eq!(of(0, &nearest, 8).all.top_k, 0.0);
    assert_eq!(of(7, &nearest, 8).all.top_k, 0.0);
    assert_eq!(of(0, &nearest[..5], 5).all.top_k, 100.0);
    assert_eq!([2, 5, 6, 1000].map(ZeroShotReport::listed), [2, 5, 6, 6]);
}

#[test]
fn what_is_written_and_shown_are_the_same_numbers() {
    let report = seven();
    let folder = tempfile::tempdir().unwrap();
    let [page, metrics] = ["a.html", "a.json"].map(|name| folder.path().join(name));
    report.write(&page, Some(&metrics)).unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    let metrics: Value = serde_json::from_slice(&std::fs::read(metrics).unwrap()).unwrap();
    assert_eq!(metrics["all"], json!({"top_1": 25.0, "top_k": 50.0}));
    let nothing = json!({"top_1": null, "top_k": null});
    assert_eq!(metrics["classes"][6]["scores"], nothing);
    let tiles: Vec<_> = page.split("<div class=\"tile\">").skip(1).collect();
    let figures = [
        (&metrics["all"]["top_1"], &metrics["chance"]["top_1"]),
        (&metrics["all"]["top_k"], &metrics["chance"]["top_k"]),
        (&metrics["mean_of_classes"], &metrics["chance"]["top_1"]),
    ];
    for (tile, (value, chance)) in tiles.iter().zip(figures) {
        let (_, number) = tile.split_once("<dd class=\"number\">").unwrap();
        shows(number.split('<').next().unwrap(), [value]);
        let (_, below) = tile.split_once("chance ").unwrap();
        shows(below.split([' ', '<']).next().unwrap(), [chance]);
    }
    assert!(section(&page, "how").contains("class 6"), "it has no image");
    assert!(!section(&page, "classes").contains("class 6"));
    numbers_have_one_style(&page);
}

#[test]
fn of_many_classes_the_page_shows_the_confused_and_no_markup_of_theirs() {
    let mut names = names(200);
    names[150] = "<b>bold</b>".into();
    let images: Vec<_> = (0..200)
        .map(|class| {
            let taken_for = if class == 149 { 150 } else { class };
            image(class, &[(taken_for, 0.5), ((class + 7) % 200, 0.1)])
        })
        .collect();
    let report = ZeroShotReport::new(ZeroShotSources::default(), &names, &images);
    let page = report.to_html();
    let matrix = section(&page, "confusion");
    assert!(matrix.contains("class 149") && !matrix.contains("class 148"));
    assert!(page.contains("&lt;b&gt;bold") && !page.contains("<b>bold"));
    assert_eq!(section(&page, "classes").matches("<tr>").count(), 51);
}
