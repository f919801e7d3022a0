//! The `sim` command as a process: what it prints, and its exit code.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(arguments).output().expect("the command starts")
}

/// The exit code, and all that was printed.
fn outcome(arguments: &[&str]) -> (i32, String) {
    let output = sim(arguments);
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code().expect("it was not killed"), text.concat())
}

/// A file for one test, made of the plan of a seed by a change.
fn seed_file(name: &str, change: impl Fn(String) -> String) -> PathBuf {
    let (code, plan) = outcome(&["plan", "7", "--scenario", "calm"]);
    assert_eq!(code, 0, "{plan}");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, change(plan)).expect("the file is written");
    path
}

#[test]
fn what_makes_no_sense_ends_with_2_and_says_what_to_do() {
    let other_version =
        seed_file("version.toml", |plan| plan.replace("version = 1", "version = 99"));
    let no_toml = seed_file("broken.toml", |plan| plan.replace('=', "==="));
    let unknown_key = seed_file("key.toml", |plan| plan.replace("shards = ", "shard = "));
    let no_nodes = seed_file("nodes.toml", |plan| {
        let line =
            plan.lines().find(|l| l.starts_with("nodes = ")).expect("it has nodes").to_owned();
        plan.replace(&line, "nodes = 0")
    });
    let path = |path: &PathBuf| path.to_str().expect("a plain path").to_owned();
    let cases: &[(&[&str], &str)] = &[
        (&["chaos", "--scenario", "mayhem"], "launch-day"),
        (&["chaos", "--seeds", "9..3"], "9..3"),
        (&["chaos", "--seeds", "0..99999999999999999999999"], "seeds"),
        (&["chaos", "--seeds", "1..9", "--for", "1s"], "--for"),
        (&["chaos", "--for", "soon"], "30s"),
        (&["live", "--server", "no/such/server"], "no/such/server"),
        (&["live", "--target", "moon"], "cluster"),
        (&["live", "--canary", "--target", "cluster"], "--canary"),
        (&["replay", "no-such-file.toml"], "no-such-file.toml"),
        (&["replay", &path(&other_version)], "version"),
        (&["replay", &path(&no_toml)], "TOML"),
        (&["replay", &path(&unknown_key)], "shard"),
        (&["replay", &path(&no_nodes)], "nodes"),
    ];
    for (arguments, says) in cases {
        let (code, text) = outcome(arguments);
        assert_eq!(code, 2, "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?} does not say {says:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_seed_comes_to_the_same_in_two_processes() {
    let digest = |()| {
        let (code, text) = outcome(&["replay", "11", "--json"]);
        assert_eq!(code, 0, "{text}");
        text.lines().last().expect("it prints its end").to_owned()
    };
    assert_eq!(digest(()), digest(()));
}

#[test]
fn a_planted_fault_ends_with_1_and_leaves_a_file_that_shows_it_again() {
    let found = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("found");
    let directory = found.to_str().expect("a plain path");
    let canary = [
        "chaos",
        "--canary",
        "--plant",
        "no-batch-index",
        "--seeds",
        "1..50",
        "--found",
        directory,
    ];
    let (code, text) = outcome(&canary);
    assert_eq!(code, 1, "{text}");
    let files: Vec<_> = fs::read_dir(&found).expect("files were written").flatten().collect();
    let file = files.first().expect("one at least").path();
    let (code, text) = outcome(&["replay", file.to_str().expect("a plain path")]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("VIOLATION of durable"), "{text}");
}
