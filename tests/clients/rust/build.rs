//! Finds the published client among the dependencies and takes its samples out of it: `tests/api/streams.rs` and
//! `tests/api/persistent_subscriptions.rs` with `tests/common.rs`, which are compiled where they are, and the Rust sample of its README.

use std::{env, error::Error, fs, path::Path, process::Command};

/// The server that the README speaks to, which is replaced by the one that is to be checked.
const README_URL: &str = r#""kurrentdb://admin:changeit@localhost:2113""#;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=Cargo.lock");
    let cargo = env::var("CARGO")?;
    let output =
        Command::new(cargo).args(["metadata", "--format-version=1", "--locked"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata: no packages")?;
    let client = packages.iter().find(|package| package["name"] == "kurrentdb");
    let manifest = client.and_then(|package| package["manifest_path"].as_str());
    let client = Path::new(manifest.ok_or("kurrentdb is not among the dependencies")?);
    let client = client.parent().ok_or("a manifest has a folder")?;

    let readme = fs::read_to_string(client.join("README.md"))?;
    let sample = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    let sample = sample.ok_or("the client's README has no Rust sample any more")?;
    if sample.matches(README_URL).count() != 1 {
        return Err("the client's README speaks to another server than it did".into());
    }
    let sample = sample.replace(README_URL, "crate::url()");

    let tests = client.join("tests");
    let published = format!(
        "#[path = {:?}]\nmod common;\n#[path = {:?}]\nmod streams;\n#[path = {:?}]\nmod persistent_subscriptions;\nmod readme {{\n{sample}\npub fn run() -> Result<(), Box<dyn std::error::Error>> {{ main() }}\n}}\n",
        tests.join("common.rs"),
        tests.join("api").join("streams.rs"),
        tests.join("api").join("persistent_subscriptions.rs"),
    );
    fs::write(Path::new(&env::var("OUT_DIR")?).join("published.rs"), published)?;
    Ok(())
}
