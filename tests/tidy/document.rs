//! Rules for the documents.

use crate::files::files;

#[test]
fn every_document_has_one_title() {
    let documents = files(&["src", "core", "cluster", "proto", "tests", "jepsen", "."]);
    for file in documents.iter().filter(|file| file.name().ends_with(".md")) {
        let mut is_code = false;
        let titles = file.text.lines().filter(|line| {
            is_code ^= line.trim_start().starts_with("```");
            !is_code && line.starts_with("# ")
        });
        assert_eq!(titles.count(), 1, "titles of {}", file.name());
    }
}
