//! The shape of the source, as docs/ARCHITECTURE.md states it. Between crates the compiler holds it.

use std::fs;
use std::path::{Path, PathBuf};

/// What each module of the service may name of the others, besides itself.
const MODULES: [(&str, &[&str]); 7] = [
    ("api", &[]),
    ("service", &["api", "telemetry"]),
    ("http", &["service", "api", "telemetry"]),
    ("config", &["api", "service", "telemetry"]),
    ("cli", &["config", "http", "service", "api", "telemetry", "Quantd"]),
    ("telemetry", &[]),
    ("main", &["cli"]),
];
/// Who knows tensors of the core and nothing else of it.
const WITHOUT_QUANTIZATION: [&str; 3] = ["crates/quantd-codec/", "src/http/", "src/config/"];
const CORE: &str = "crates/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

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

/// Every source file of the product: its path, and its text.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["src", "crates"] {
        sources(&root().join(folder), &mut found);
    }
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/")
}

/// The file without the items that are for tests only, wherever they stand.
fn product(text: &str) -> String {
    let mut lines = text.lines();
    let mut kept = String::new();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            let mut item = lines.by_ref().skip_while(|line| line.starts_with("#["));
            if !item.next().is_some_and(|line| line.ends_with(';')) {
                item.find(|line| line.starts_with('}'));
            }
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// What stands behind each `prefix`.
fn named<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()
    })
}

#[test]
fn items_of_tests_are_told_from_the_product() {
    let text =
        "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\n#[rustfmt::skip]\nmod more {\n    x\n}\nc\n";
    assert_eq!(product(text), "a\nb\nc\n");
}

#[test]
fn dependencies_run_one_way() {
    for (file, text) in files() {
        let text = product(&text);
        if WITHOUT_QUANTIZATION.iter().any(|folder| file.starts_with(folder)) && !is_test(&file) {
            let other = named(&text, "quantd_core::").find(|name| *name != "tensor");
            assert_eq!(other, None, "{file} must know tensors only");
        }
        let Some(path) = file.strip_prefix("src/") else { continue };
        let module = path.split(['/', '.']).next().unwrap();
        if module == "lib" || is_test(&file) {
            continue;
        }
        let allowed = MODULES.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{file}: a module without a row"));
        for name in ["crate::", "quantd::"].into_iter().flat_map(|prefix| named(&text, prefix)) {
            assert!(
                name == module || name.is_empty() || allowed.contains(&name),
                "{file} names {name}, which {module} must not know"
            );
        }
    }
}

/// The length of functions is clippy's.
#[test]
fn files_stay_small_and_say_what_they_are() {
    for (file, text) in files() {
        let lines = text.lines().count();
        assert!(lines <= 500, "{file} has {lines} lines");
        let has_heading = text.starts_with("//!") || file.ends_with("tests.rs");
        assert!(has_heading, "{file} does not say what it is");
    }
}

#[test]
fn the_core_is_synchronous_and_knows_no_statuses() {
    for (file, text) in files() {
        if is_test(&file) {
            continue;
        }
        let text = product(&text);
        let absent = |words: &[&str]| {
            for word in words {
                assert!(!text.contains(word), "{file} has {word}");
            }
        };
        if file.starts_with(CORE) {
            absent(&["async fn", "std::fs", "std::env", "std::net", "Instant", "SystemTime"]);
        }
        if !file.starts_with("src/http/") {
            absent(&["StatusCode"]);
        }
        if ["src/api/", "src/service/"].iter().any(|folder| file.starts_with(folder)) {
            absent(&["axum", "hyper"]);
        }
        if !file.starts_with("src/config/") {
            absent(&["env::var"]);
        }
        let is_root = file.ends_with("/lib.rs") || file == "src/main.rs";
        if is_root && !file.contains("quantd-kernels") {
            assert!(text.contains("#![forbid(unsafe_code)]"), "{file} does not forbid unsafe code");
        }
    }
}

/// Whoever opens it for the first time should come to its end.
#[test]
fn the_readme_is_short() {
    assert!(fs::read(root().join("README.md")).unwrap().len() <= 12 << 10);
}

/// A path in the documents leads somewhere: from the root, or, of a file by its name alone, below
/// one of these folders.
#[test]
fn paths_that_documents_name_exist() {
    const FOLDERS: [&str; 8] =
        ["src/", "crates/", "tests/", "benches/", "docs/", "scripts/", "deploy/", "fuzz/"];
    let mut names = Vec::new();
    for folder in ["src", "crates", "tests", "benches"] {
        sources(&root().join(folder), &mut names);
    }
    let is_known = |name: &str| names.iter().any(|path| path.file_name().unwrap() == name);
    let pages = ["docs", "docs/performance"].into_iter().flat_map(|folder| {
        fs::read_dir(root().join(folder)).unwrap().map(|page| page.unwrap().path())
    });
    let pages = pages.filter(|page| page.is_file());
    for document in pages.chain(["README.md", "CONTRIBUTING.md"].map(|page| root().join(page))) {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            let path = document.parent().unwrap().join(link);
            assert!(path.exists(), "{} links to {link}", document.display());
        }
        let quoted = text.split('`').skip(1).step_by(2);
        for word in quoted.filter_map(|quoted| quoted.split_whitespace().next()) {
            let is_path = FOLDERS.iter().any(|folder| word.starts_with(folder));
            let is_found = match (is_path, word.ends_with(".rs")) {
                (true, _) => root().join(word).exists(),
                (false, true) => is_known(word),
                (false, false) => true,
            };
            assert!(is_found, "{} names {word}", document.display());
        }
    }
}
