//! The files of the repository, as the rules look at them.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository.
pub(crate) struct Source {
    path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Its path from the repository's root.
    pub(crate) fn name(&self) -> String {
        let name = self.path.strip_prefix(root()).unwrap_or(&self.path);
        name.display().to_string()
    }

    /// The module of `src/` that it belongs to.
    pub(crate) fn module(&self) -> String {
        let name = self.name();
        let name = name.strip_prefix("src/").unwrap_or(&name);
        let first = name.split('/').next().unwrap_or(name);
        first.strip_suffix(".rs").unwrap_or(first).to_owned()
    }

    /// The text without whole lines of comment.
    pub(crate) fn code(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn sources(directories: &[&str]) -> Vec<Source> {
    let mut found = files(directories);
    found.retain(|file| file.path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!found.is_empty(), "the check looks at nothing");
    found
}

/// The texts in `directories`, and below all of them but `.`; what is absent is passed over.
pub(crate) fn files(directories: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for directory in directories {
        let is_root = *directory == ".";
        let path = if is_root { root().to_owned() } else { root().join(directory) };
        collect(&path, !is_root, &mut found);
    }
    found
}

fn collect(directory: &Path, descends: bool, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let is_built = path.ends_with("target");
            if descends && !is_built {
                collect(&path, descends, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push(Source { path, text });
        }
    }
}
