//! The HTML report.

use std::fs;
use std::path::Path;
use std::process::Command;

use safetensors::tensor::Dtype;

use super::files::{Files, N, everything};

#[test]
fn the_report_loads_nothing_from_outside() {
    let files = Files::new(&everything(Dtype::F32).0);
    files.succeed(&["--report", "out.html"]);
    let html = fs::read_to_string(files.path("out.html")).unwrap();
    for section in [
        "Retrieval",
        "Similarities",
        "Weights of the negatives",
        "Objectives",
        "Data",
    ] {
        assert!(html.contains(&format!(">{section}</h2>")), "{section}");
    }
    assert_eq!(html.matches("<svg ").count(), 2);
    assert!(!html.contains("<script") && !html.contains("NaN"));
    let outside = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http://") && !outside.contains("https://"));
}

/// The DOM of a page after a browser loaded it, and what the browser logged.
fn browse(page: &Path, size: &str, dark: bool) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_string());
    let output = Command::new(&browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args(["--enable-logging=stderr", "--log-level=0", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={size}"))
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

#[test]
#[ignore = "needs a browser, chromium or that of CHROMIUM: .ci/run browser"]
fn a_browser_shows_every_figure_at_any_width_and_in_dark_mode() {
    let files = Files::new(&everything(Dtype::F32).0);
    files.succeed(&["--report", "out.html"]);
    let (page, probe) = (files.path("out.html"), files.path("probe.html"));

    // The page as written loads without an error.
    let (dom, complaints) = browse(&page, "1200,900", false);
    assert!(
        dom.contains("<h1>Embedding audit</h1>") && dom.ends_with("</html>\n"),
        "{dom}"
    );
    assert!(!complaints.contains("CONSOLE"), "{complaints}");

    // Add a script that measures; the page's own policy, which forbids scripts, is removed.
    let html = fs::read_to_string(&page).unwrap();
    let policy = html
        .find("<meta http-equiv=\"Content-Security-Policy\"")
        .unwrap();
    let end = policy + html[policy..].find('>').unwrap() + 1;
    let script = r#"<script>
        const size = e => {
            const box = e.getBoundingClientRect();
            return `${box.width}x${box.height}`;
        };
        const sizes = selector => [...document.querySelectorAll(selector)].map(size).join(' ');
        const measured = {
            charts: sizes('.chart svg'),
            areas: sizes('.chart polygon'),
            cells: sizes('.heat td'),
            rows: String(document.querySelectorAll('tbody tr').length),
            wide: String(document.documentElement.scrollWidth - innerWidth),
            paper: getComputedStyle(document.body).backgroundColor,
        };
        for (const name in measured) document.body.setAttribute('data-' + name, measured[name]);
    </script></body>"#;
    let html = format!("{}{}", &html[..policy], &html[end..]).replace("</body>", script);
    fs::write(&probe, html).unwrap();
    let mut papers = Vec::new();
    for (size, dark) in [("1200,900", false), ("1200,900", true), ("500,900", false)] {
        let (dom, _) = browse(&probe, size, dark);
        let measured = |name: &str| {
            let start = dom.split(&format!(" data-{name}=\"")).nth(1);
            let value = start.and_then(|rest| rest.split('"').next());
            value
                .unwrap_or_else(|| panic!("no {name} in {dom}"))
                .to_string()
        };
        let sizes = |name: &str| -> Vec<[f64; 2]> {
            let measured = measured(name);
            let size = |size: &str| {
                let (width, height) = size.split_once('x').unwrap();
                [width.parse().unwrap(), height.parse().unwrap()]
            };
            measured.split(' ').map(size).collect()
        };
        let charts = sizes("charts");
        assert_eq!(charts.len(), 2);
        for [width, height] in charts {
            assert!(
                width > 300.0 && height > 150.0,
                "a chart of {width} × {height} at {size}"
            );
        }
        // Both distributions of both charts have an area.
        let areas = sizes("areas");
        assert_eq!(areas.len(), 4);
        assert!(
            areas
                .iter()
                .all(|[width, height]| *width > 50.0 && *height > 20.0),
            "{areas:?}"
        );
        assert_eq!(sizes("cells").len(), N * N);
        assert!(measured("rows").parse::<usize>().unwrap() > 40);
        assert_eq!(
            measured("wide"),
            "0",
            "the page is wider than the window of {size}"
        );
        papers.push(measured("paper"));
    }
    assert_ne!(papers[0], papers[1], "dark mode looks as light mode does");
}
