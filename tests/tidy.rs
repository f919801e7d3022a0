//! The house stays one house: dependencies go one way, files stay small, links lead somewhere, and nothing is
//! left undone in silence.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files of the project with one of these endings.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rooms = vec![root()];
    while let Some(room) = rooms.pop() {
        for entry in
            fs::read_dir(&room).unwrap_or_else(|error| panic!("{}: {error}", room.display()))
        {
            let path = entry.unwrap_or_else(|error| panic!("{error}")).path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !["target", "found", ".git"].contains(&name) {
                    rooms.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

#[test]
fn a_file_is_one_noun() {
    for path in files(&[".rs"]) {
        let lines = read(&path).lines().count();
        assert!(lines <= 500, "{}: {lines} lines: two nouns?", path.display());
    }
}

#[test]
fn dependencies_go_one_way() {
    let manifest = |room: &str| read(&root().join(room).join("Cargo.toml"));
    let core = manifest("core");
    for above in ["stormkeep-sim", "stormkeep-tests", "madsim", "tokio"] {
        assert!(!core.contains(above), "core depends on {above}");
    }
    let sim = manifest("sim");
    assert!(!sim.contains("stormkeep-tests"));
}

#[test]
fn the_core_does_not_know_that_it_is_simulated() {
    for path in files(&[".rs"]).iter().filter(|p| p.components().any(|c| c.as_os_str() == "core")) {
        let text = read(path);
        for word in ["cfg(madsim)", "madsim::", "SystemTime::now", "Instant::now"] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
        // Tests of what a file keeps to itself stand at its end; nothing else may depend on being tested.
        let (code, tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, "mod tests {"));
        assert!(!code.contains("cfg(test)"), "{}: cfg(test)", path.display());
        let module = tests.lines().find(|l| !l.is_empty() && !l.starts_with("#["));
        let stands = matches!(module, Some("mod tests {" | "mod tests;"));
        assert!(stands, "{}: cfg(test): {module:?}", path.display());
        assert!(!tests.contains("cfg(test)"), "{}: cfg(test)", path.display());
    }
}

#[test]
fn nothing_is_left_undone_in_silence() {
    let words = ["TO", "FIX", "XX"].iter().zip(["DO", "ME", "X"]);
    let words: Vec<String> = words.map(|(a, b)| format!("{a}{b}")).collect();
    for path in files(&[".rs", ".md", ".toml"]) {
        let text = read(&path);
        for word in &words {
            assert!(!text.contains(word.as_str()), "{}: {word}", path.display());
        }
        for (number, line) in text.lines().enumerate() {
            let ignored = line.trim_start().starts_with("#[ignore");
            assert!(!ignored || line.contains('='), "{}:{number}: no reason", path.display());
        }
    }
}

#[test]
fn what_cargo_test_passes_over_is_run_by_ci() {
    let ci = read(&root().join(".ci/run"));
    let mut found = 0;
    for path in files(&[".rs"]) {
        let count = |text: &str| {
            text.lines().filter(|line| line.trim_start().starts_with("#[ignore")).count()
        };
        let ignored = count(&read(&path));
        if ignored == 0 {
            continue;
        }
        found += ignored;
        let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
        let target =
            parts.iter().rposition(|part| *part == "tests").and_then(|at| parts.get(at + 1));
        let target = target.map_or("", |name| name.trim_end_matches(".rs"));
        let step = format!("cargo test --workspace --test {target} -- --ignored");
        assert!(ci.contains(&step), "{}: no step of .ci/run is `{step}`", path.display());
    }
    assert!(found > 0);
}

#[test]
fn links_lead_somewhere() {
    for path in files(&[".md"]) {
        let text = read(&path);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let lead = path.parent().unwrap_or(Path::new(".")).join(target);
            assert!(lead.exists(), "{}: {target} leads nowhere", path.display());
        }
    }
}

#[test]
fn code_that_is_shown_is_code_that_is_run() {
    let run = read(&root().join("tests/clients/python/projection.py"));
    let mut blocks = 0;
    for page in ["docs/PROJECTIONS.md", "docs/HANDLERS.md"] {
        let text = read(&root().join(page));
        for block in text.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            assert!(run.contains(block), "{page}: this is not in projection.py:\n{block}");
            blocks += 1;
        }
    }
    assert_eq!(blocks, 3);
}

/// Licences that ask for no more than attribution. A dependency may offer others besides one of these.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_may_be_used() {
    let mut command = std::process::Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    assert!(packages.len() > 50, "only {} packages", packages.len());
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        let mut offers = licence.split(" OR ").flat_map(|offer| offer.split('/'));
        let fits = |offer: &str| {
            let parts = offer.trim_matches(['(', ')', ' ']).split(" AND ");
            parts.into_iter().all(|part| LICENCES.contains(&part.trim_matches(['(', ')', ' '])))
        };
        assert!(offers.any(fits), "{}: {licence}", package["name"]);
    }
}

#[test]
fn every_promise_has_its_oracle() {
    let table = read(&root().join("sim/src/oracle.rs"));
    for promise in [
        "durable",
        "linearizable",
        "gapless",
        "faithful",
        "fenced",
        "ordered",
        "live",
        "repeatable",
    ] {
        assert!(table.contains(&format!("| {promise} | `{promise}.rs`")), "{promise}");
        assert!(root().join(format!("sim/src/oracle/{promise}.rs")).exists(), "{promise}");
    }
}
