//! The pages in a headless browser: nothing overflows, in a wide window and on a phone, light and
//! dark.

use std::fs;
use std::path::Path;
use std::process::Command;

use burn_contrastive_examples::report::{Classified, ZeroShotReport, ZeroShotSources};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::files::{Files, N, Tensors, everything, floats, integers, random};
use super::sample;

/// A phone's width, that of a tablet, and a window's.
const WIDTHS: [u32; 3] = [390, 768, 1200];

/// The DOM of a page after a browser loaded it, and what the browser logged.
fn browse(page: &Path, dark: bool) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_string());
    let output = Command::new(&browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--hide-scrollbars", "--window-size=1200,900"])
        .args(["--enable-logging=stderr", "--log-level=0", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!dark)
        ))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap_or_else(|error| panic!("{browser}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// What `browser.js` measures of the page, which is not altered, in frames of these widths: a
/// browser's window has a least width.
fn measured(page: &Path, dark: bool) -> Vec<Value> {
    let html = fs::read_to_string(page).unwrap();
    let html = html.replace('&', "&amp;").replace('"', "&quot;");
    let frame = |width| {
        format!(
            "<iframe style=\"width:{width}px;height:900px;border:0\" srcdoc=\"{html}\"></iframe>"
        )
    };
    let outer = page.with_extension("frames.html");
    let frames = WIDTHS.map(frame).concat();
    let script = include_str!("browser.js");
    let document = format!(
        "<!doctype html><html style=\"color-scheme:light dark\"><body>{frames}<pre></pre>\
         <script>{script}</script></body></html>"
    );
    fs::write(&outer, document).unwrap();
    let (dom, _) = browse(&outer, dark);
    let (_, json) = dom.rsplit_once("<pre>").unwrap();
    let json = json.split("</pre>").next().unwrap();
    let json = json
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// Loads a page and checks what holds for any: returns the measures of each width.
#[track_caller]
fn checked(page: &Path, title: &str) -> Vec<Value> {
    let (dom, complaints) = browse(page, false);
    assert!(
        dom.contains(&format!("<h1>{title}</h1>")) && dom.ends_with("</html>\n"),
        "{dom}"
    );
    assert!(!complaints.contains("CONSOLE"), "{complaints}");
    let (light, dark) = (measured(page, false), measured(page, true));
    for (light, dark) in light.iter().zip(&dark) {
        assert_ne!(
            light["paper"], dark["paper"],
            "dark mode looks as light mode does"
        );
    }
    for of in light.iter().chain(&dark) {
        let width = &of["width"];
        assert_eq!(of["overflow"], json!([]), "in a window of {width}");
        assert_eq!(of["scrolling"], json!([]), "in a window of {width}");
        assert_eq!(of["gaps"], json!([]), "in a window of {width}");
        assert_eq!(of["scrollWidth"], *width);
        for size in sizes(of, "charts") {
            let [chart, height] = size;
            assert!(chart > 250.0 && height > 140.0, "{size:?} at {width}");
        }
        // The areas of the distributions are there.
        for size in sizes(of, "areas") {
            let [area, height] = size;
            assert!(area > 30.0 && height > 20.0, "{size:?} at {width}");
        }
    }
    let widths: Vec<_> = light.iter().map(|of| of["width"].clone()).collect();
    assert_eq!(json!(widths), json!(WIDTHS));
    light
}

fn sizes(of: &Value, name: &str) -> Vec<[f64; 2]> {
    serde_json::from_value(of[name].clone()).unwrap()
}

#[test]
#[ignore = "needs a browser, chromium or that of CHROMIUM: .ci/run browser"]
fn a_browser_shows_the_audit_of_every_objective() {
    let files = Files::new(&everything(Dtype::F32).0);
    files.succeed(&["--report", "out.html"]);
    for of in checked(&files.path("out.html"), "Embedding audit") {
        // Two distributions and the map.
        assert_eq!(sizes(&of, "charts").len(), 3);
        assert_eq!(sizes(&of, "areas").len(), 4);
        assert_eq!(of["cells"], N * N);
        assert!(of["rows"].as_u64().unwrap() > 40);
    }
}

#[test]
#[ignore = "needs a browser, chromium or that of CHROMIUM: .ci/run browser"]
fn a_browser_shows_the_audit_of_a_thousand_pairs() {
    const PAIRS: usize = 1_100;
    let tensor = |seed| floats(Dtype::F32, &[PAIRS, 4], &random(PAIRS * 4, seed));
    let labels: Vec<i64> = (0..PAIRS as i64).map(|pair| pair % 7).collect();
    let mut tensors: Tensors = ["image", "text", "teacher_image", "teacher_text"]
        .into_iter()
        .zip(1..)
        .map(|(name, seed)| (name.to_string(), tensor(seed)))
        .collect();
    tensors.insert("label".to_string(), integers(&labels));
    let files = Files::new(&tensors);
    let objectives = json!([{"objective": "info-nce"}, {"objective": "srcl"}]);
    fs::write(files.path("objectives.json"), objectives.to_string()).unwrap();
    files.succeed(&["--report", "out.html", "--objectives", "objectives.json"]);
    for of in checked(&files.path("out.html"), "Embedding audit") {
        assert_eq!(of["cells"], 16 * 16);
    }
}

#[test]
#[ignore = "needs a browser, chromium or that of CHROMIUM: .ci/run browser"]
fn a_browser_shows_the_report_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = sample::run(folder.path());
    let large = sample::large(folder.path());
    for (name, run) in [("run", run), ("large", large)] {
        let directory = folder.path().join(name);
        run.write(&directory).unwrap();
        let page = directory.join("report.html");
        let charts = fs::read_to_string(&page).unwrap().matches("<svg ").count();
        for of in checked(&page, &run.title) {
            assert_eq!(sizes(&of, "charts").len(), charts, "every chart is shown");
        }
    }
}

#[test]
#[ignore = "needs a browser, chromium or that of CHROMIUM: .ci/run browser"]
fn a_browser_shows_a_classification_into_many_classes() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<_> = (0..60)
        .map(|class| format!("{class}, a long name, ").repeat(3))
        .collect();
    // A third is right.
    let first = |image: usize| {
        if image.is_multiple_of(3) {
            image
        } else {
            image + 1 + image / 60
        }
    };
    let images = (0..600).map(|image| Classified {
        image: folder.path().join("absent.png"),
        class: image % 60,
        nearest: (0..6)
            .map(|near| ((first(image) + near) % 60, 0.5 - 0.1 * near as f64))
            .collect(),
    });
    let images: Vec<_> = images.collect();
    let report = ZeroShotReport::new(ZeroShotSources::default(), &names, &images);
    let page = folder.path().join("out.html");
    report.write(&page, None).unwrap();
    for of in checked(&page, "Zero-shot classification") {
        assert_eq!(of["cells"], 12 * 12);
    }
}
