#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stormkeep.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn load(text: &str, flags: Layer) -> Result<Config, ConfigError> {
    let (_folder, path) = file(text);
    Config::load(Some(&path), flags, std::iter::empty())
}

#[test]
fn flags_are_stronger_than_the_file() {
    let config = load("finish_s = 5\nidle_s = 7\n", Layer::default()).unwrap();
    assert_eq!(config.bounds.finish, Duration::from_secs(5));
    let flags = Layer { finish_s: Some(9), ..Layer::default() };
    let config = load("finish_s = 5\nidle_s = 7\n", flags).unwrap();
    assert_eq!(config.bounds.finish, Duration::from_secs(9));
    assert_eq!(config.bounds.idle, Duration::from_secs(7));
    assert_eq!(config.listen.port(), 2113);
}

#[test]
fn every_flag_has_its_name_in_the_environment() {
    let command = Layer::augment_args(Command::new("names"));
    for argument in command.get_arguments() {
        let name = format!("{ENVIRONMENT}{}", argument.get_id().as_str().to_uppercase());
        assert_eq!(argument.get_env().and_then(|n| n.to_str()), Some(&*name));
    }
    // Whatever a flag sets goes into the settings: each is over the file.
    let all = serde_json::to_value(Layer::default()).unwrap();
    assert_eq!(all.as_object().unwrap().len(), names().count());
}

#[test]
fn what_is_not_known_is_refused_with_a_suggestion() {
    let message = |error: Result<Config, ConfigError>| error.unwrap_err().to_string();
    let wrong = message(load("disk_resrve_bytes = 5", Layer::default()));
    assert!(
        wrong.ends_with("disk_resrve_bytes is not known; did you mean disk_reserve_bytes?"),
        "{wrong}"
    );
    let (_folder, path) = file("");
    let names = ["PATH", "STORMKEEP_LISTN"].map(str::to_owned);
    let wrong = message(Config::load(Some(&path), Layer::default(), names.into_iter()));
    assert_eq!(wrong, "environment: STORMKEEP_LISTN is not known; did you mean STORMKEEP_LISTEN?");
}

#[test]
fn a_value_that_cannot_be_names_its_key() {
    for (text, expected) in [
        ("idle_s = 0", "idle_s: 0; at least 1"),
        ("disk_segment_bytes = 1000", "disk_segment_bytes: 1000; from 4194304"),
        ("tls_key = \"key.pem\"", "tls_certificate: it is missing"),
        ("listen = \"everywhere\"", "invalid socket address"),
        ("shards = -1", "shards"),
        ("shards = ", "TOML"),
    ] {
        let error = load(text, Layer::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
