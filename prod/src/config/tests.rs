use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), file).unwrap();
    let environment = environment.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    let flags = flags.iter().map(|(k, v)| (format!("--{k}"), (*k).into(), (*v).into())).collect();
    let sources = Sources { file: None, folder: Some(folder.path().into()), environment, flags };
    let named = |error: ConfigError| {
        error.to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    Config::load(&sources).map(|(config, _)| config).map_err(named)
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let (config, file) = Config::load(&Sources::default()).unwrap();
    assert_eq!((config, file), (Config::default(), None));
}

#[test]
fn the_later_is_the_stronger() {
    let file = "listen = \"127.0.0.1:1\"\ndata = \"from-file\"\nshards = 2\n[limits]\nidle = \"7 s\"\n";
    let environment =
        [("STORMKEEP_LISTEN", "127.0.0.1:2"), ("STORMKEEP_DATA", "from-env"), ("PATH", "/bin")];
    let config = load(file, &environment, &[("listen", "127.0.0.1:3")]).unwrap();
    assert_eq!(config.listen, "127.0.0.1:3", "flags are the strongest");
    assert_eq!(config.data, Path::new("from-env"), "the environment beats the file");
    assert_eq!(config.shards, Some(2), "the file beats the defaults");
    assert_eq!(config.limits.idle, Duration::from_secs(7));
    assert_eq!(config.limits.head, Config::default().limits.head);
}

#[test]
fn a_named_file_must_be_there_and_replaces_the_usual_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), "shards = 2").unwrap();
    let mut sources = Sources { folder: Some(folder.path().into()), ..Sources::default() };
    let other = folder.path().join("other.toml");
    sources.file = Some(other.clone());
    assert!(Config::load(&sources).unwrap_err().place.ends_with("other.toml"));
    std::fs::write(&other, "shards = 3").unwrap();
    let (config, file) = Config::load(&sources).unwrap();
    assert_eq!((config.shards, file), (Some(3), Some(other.clone())));
    // Named by the environment.
    sources.file = None;
    sources.environment = vec![("STORMKEEP_CONFIG".into(), other.display().to_string())];
    assert_eq!(Config::load(&sources).unwrap().0.shards, Some(3));
}

#[test]
fn errors_name_the_place_and_suggest_the_right_word() {
    for (file, error) in [
        ("\nlisen = \"x:1\"", "stormkeep.toml:2: lisen: this key is not known; did you mean `listen`?"),
        ("[limits]\nconections = 5", "stormkeep.toml:2: limits.conections: this key is not known; did you mean `limits.connections`?"),
        ("[limit]\nidle = \"5 s\"", "stormkeep.toml:1: [limit]: this section is not known; did you mean `limits`?"),
        ("[limits]\nidle = 5", "stormkeep.toml:2: limits.idle: `5` is no duration above zero: write 500 ms, 10 s, 2 min or 1 h"),
        ("shards = 0", "stormkeep.toml:1: shards: `0` is no whole number from 1 to 1024"),
        ("shards = [1]", "stormkeep.toml:1: shards: array is no value here: write text or a number"),
        ("disk.segment_bytes = \"1 MiB\"", "stormkeep.toml:1: disk.segment_bytes: `1 MiB` is less than 4 MiB"),
        ("log.filter = \"info,=loud\"", "stormkeep.toml:1: log.filter: `info,=loud` is no filter"),
        ("log.format = \"xml\"", "stormkeep.toml:1: log.format: `xml` is neither text nor json"),
        ("limits = 5", "stormkeep.toml:1: limits: this key is not known; "),
        ("tls.key = \"k.pem\"", "tls: give both tls.certificate and tls.key, or neither"),
        ("shards = 1\nshards = ", "stormkeep.toml:2: "),
    ] {
        let found = load(file, &[], &[]).unwrap_err();
        assert!(found.starts_with(error), "{found}\n{error}");
    }
    let variable = load("", &[("STORMKEEP_LISTN", "x:1")], &[]).unwrap_err();
    let expected = "environment variable STORMKEEP_LISTN: not known; did you mean `STORMKEEP_LISTEN`?";
    assert_eq!(variable, expected);
    let value = load("", &[("STORMKEEP_LIMITS_PAGE_EVENTS", "many")], &[]).unwrap_err();
    assert!(value.starts_with("environment variable STORMKEEP_LIMITS_PAGE_EVENTS: limits.page_events: `many`"));
    let flag = load("", &[], &[("listen", "nowhere")]).unwrap_err();
    assert!(flag.starts_with("--listen: listen: `nowhere` is no host and port"), "{flag}");
}

#[test]
fn the_example_has_every_key_with_its_default() {
    let text = include_str!("../../../deploy/stormkeep.toml");
    let keys = text.lines().filter_map(|line| line.strip_prefix("#: "));
    let keys: Vec<&str> = keys.collect();
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with([' ', ':']) => rest,
        _ => line,
    });
    let uncommented = lines.collect::<Vec<_>>().join("\n");
    let mut config = Config::default();
    config.merge_file(Path::new("deploy/stormkeep.toml"), &uncommented).unwrap();
    let defaults = Config::default();
    for key in KEYS {
        assert!(keys.contains(&key.doc), "{}: {} is not in the example", key.name, key.doc);
        let shown = key.show(&config);
        assert!(shown.is_some(), "{} is not in the example", key.name);
        if let Some(default) = key.show(&defaults) {
            assert_eq!(shown, Some(default), "{}", key.name);
        }
    }
    // And it changes nothing as it stands.
    let mut config = Config::default();
    config.merge_file(Path::new("deploy/stormkeep.toml"), text).unwrap();
    assert_eq!(config, defaults);
}

#[test]
fn what_is_in_force_is_shown_shortly() {
    assert_eq!(Config::default().effective(), "data=./stormkeep-data listen=127.0.0.1:2113");
    let config = load("limits.idle = \"90 s\"", &[], &[]).unwrap();
    assert_eq!(config.effective(), "data=./stormkeep-data listen=127.0.0.1:2113 limits.idle=90 s");
}

#[test]
fn a_certificate_is_read_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("c.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("k.pem"), made.signing_key.serialize_pem()).unwrap();
    let bounds = |certificate: &str, key: &str| {
        let (tls_certificate, tls_key) = (Some(path(certificate)), Some(path(key)));
        Config { tls_certificate, tls_key, ..Config::default() }.bounds()
    };
    assert!(bounds("c.pem", "k.pem").unwrap().tls.is_some());
    assert!(Config::default().bounds().unwrap().tls.is_none());
    for (certificate, key, place) in
        [("none", "k.pem", "tls.certificate"), ("k.pem", "k.pem", "tls.certificate"), ("c.pem", "c.pem", "tls.key")]
    {
        let error = bounds(certificate, key).err().unwrap();
        assert_eq!(error.place, place, "{error}");
    }
}
