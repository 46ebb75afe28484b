//! The report in the repository is what the program writes from the results in the repository.

use std::fs;
use std::path::Path;

use burn_contrastive_examples::compare::report::report;
use burn_contrastive_examples::compare::results::Results;

#[test]
fn the_report_in_the_repository_is_that_of_its_results() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let results = Results::read(&repository.join("examples/results/compare.json"));
    let results = results.unwrap().unwrap();
    // The same folders, so that links are the same.
    let copy = tempfile::tempdir().unwrap();
    for folder in ["docs", "examples/results"] {
        fs::create_dir_all(copy.path().join(folder)).unwrap();
    }
    let [source, markdown, page] = [
        "examples/results/compare.json",
        "docs/results.md",
        "examples/results/compare.html",
    ]
    .map(|name| copy.path().join(name));
    fs::write(&source, "").unwrap();
    report(&results, &source, Some(&markdown), Some(&page)).unwrap();
    let charts = [
        "docs/results-1.svg",
        "docs/results-2.svg",
        "docs/results-3.svg",
    ];
    let files = ["docs/results.md", "examples/results/compare.html"];
    assert_eq!(fs::read_dir(copy.path().join("docs")).unwrap().count(), 4);
    for name in charts.into_iter().chain(files) {
        let [written, here] =
            [copy.path(), repository].map(|root| fs::read_to_string(root.join(name)).unwrap());
        assert!(
            written == here,
            "{name} is not what `compare report` writes: see examples/README.md"
        );
    }
}
