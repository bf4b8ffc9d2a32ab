//! The shape of the source, as docs/ARCHITECTURE.md states it.

use std::fs;
use std::path::{Path, PathBuf};

/// What each module may name of the others, besides itself.
const EDGES: [(&str, &[&str]); 11] = [
    ("tensor", &[]),
    ("kernels", &["tensor"]),
    ("codec", &["tensor"]),
    ("quant", &["kernels", "tensor"]),
    ("api", &["quant", "codec", "kernels", "tensor"]),
    ("service", &["api", "quant", "codec", "kernels", "tensor", "telemetry"]),
    ("http", &["service", "api", "codec", "kernels", "tensor", "telemetry"]),
    ("config", &["api", "codec", "kernels", "service", "telemetry"]),
    (
        "cli",
        &["config", "http", "service", "api", "quant", "codec", "tensor", "telemetry", "Quantd"],
    ),
    ("telemetry", &[]),
    ("main", &["cli"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file: its path below `src`, and its text.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The file without its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap()
}

fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

#[test]
fn dependencies_run_one_way() {
    for (file, text) in files() {
        let module = module(&file);
        if module == "lib" || file.contains("tests") {
            continue;
        }
        let allowed = EDGES.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{file}: a module without a row"));
        for prefix in ["crate::", "quantd::"] {
            for (at, _) in product(&text).match_indices(prefix) {
                let rest = &text[at + prefix.len()..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap();
                let named = &rest[..end];
                assert!(
                    named == module || named.is_empty() || allowed.contains(&named),
                    "src/{file} names {named}, which {module} must not know"
                );
            }
        }
    }
}

#[test]
fn files_and_functions_stay_small_and_say_what_they_are() {
    for (file, text) in files() {
        let lines = text.lines().count();
        assert!(lines <= 500, "src/{file} has {lines} lines");
        let has_heading = text.starts_with("//!") || file.ends_with("tests.rs");
        assert!(has_heading, "src/{file} does not say what it is");
    }
}

#[test]
fn the_core_is_synchronous_and_knows_no_statuses() {
    let absent = |file: &str, text: &str, words: &[&str]| {
        for word in words {
            assert!(!product(text).contains(word), "src/{file} has {word}");
        }
    };
    for (file, text) in files() {
        if file.ends_with("tests.rs") {
            continue;
        }
        let module = module(&file);
        if ["tensor", "codec", "kernels", "quant"].contains(&module) {
            absent(&file, &text, &["async fn", "tokio", "std::fs", "std::env", "Instant", "axum"]);
        }
        if module != "kernels" {
            absent(&file, &text, &["unsafe {", "unsafe fn", "unsafe impl"]);
        }
        if module != "http" {
            absent(&file, &text, &["StatusCode"]);
        }
        if ["api", "service"].contains(&module) {
            absent(&file, &text, &["axum", "hyper"]);
        }
        if module != "config" && module != "main" {
            absent(&file, &text, &["env::var"]);
        }
    }
}
