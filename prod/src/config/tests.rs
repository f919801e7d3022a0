#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stormkeep.toml");
    std::fs::write(&path, text).unwrap();
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
    // Whatever a flag sets goes into the settings: each is over the file, and beside them are its tables.
    let all = serde_json::to_value(Layer::default()).unwrap();
    assert_eq!(all.as_object().unwrap().len(), names().count() + file::TABLES.len());
}

#[test]
fn what_is_not_known_is_refused_with_a_suggestion() {
    let message = |error: Result<Config, ConfigError>| error.unwrap_err().to_string();
    let wrong = message(load("disk_resrve_bytes = 5", Layer::default()));
    assert!(
        wrong.ends_with("disk_resrve_bytes is not known; did you mean `disk_reserve_bytes`?"),
        "{wrong}"
    );
    let (_folder, path) = file("");
    let names = ["PATH", "STORMKEEP_LISTN"].map(str::to_owned);
    let wrong = message(Config::load(Some(&path), Layer::default(), names.into_iter()));
    assert_eq!(
        wrong,
        "environment: STORMKEEP_LISTN is not known; did you mean `STORMKEEP_LISTEN`?"
    );
}

#[test]
fn what_kubernetes_tells_a_pod_is_no_setting() {
    let load = |names: &[&str]| {
        let (_folder, path) = file("");
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        Config::load(Some(&path), Layer::default(), names.into_iter()).map(drop)
    };
    let told = [
        "STORMKEEP_SERVICE_HOST",
        "STORMKEEP_SERVICE_PORT",
        "STORMKEEP_SERVICE_PORT_GRPC",
        "STORMKEEP_PORT",
        "STORMKEEP_PORT_2113_TCP",
        "STORMKEEP_PORT_2113_TCP_ADDR",
        "STORMKEEP_CLIENT_SERVICE_HOST",
        "STORMKEEP_CLIENT_PORT_2113_TCP_PROTO",
    ];
    load(&told).unwrap();
    // Somebody's own mistake, there and elsewhere.
    let mistaken = [&told[..], &["STORMKEEP_LISTN"]].concat();
    for names in [&mistaken[..], &["STORMKEEP_LISTN"], &["STORMKEEP_PORT"]] {
        let wrong = load(names).unwrap_err().to_string();
        let name = names.last().unwrap();
        assert!(wrong.starts_with(&format!("environment: {name} is not known")), "{wrong}");
    }
}

#[test]
fn a_value_that_cannot_be_names_its_key() {
    for (text, expected) in [
        ("idle_s = 0", "idle_s: 0; at least 1"),
        ("disk_segment_bytes = 1000", "disk_segment_bytes: 1000; from 4194304"),
        ("tls_key = \"key.pem\"", "tls_certificate: it is missing"),
        ("listen = \"everywhere\"", "invalid socket address"),
        ("shards = -1", "shards"),
        ("shards = ", "toml:1: "),
        ("request_timeout_ms = 0", "request_timeout_ms: 0; at least 1"),
        ("page_events_max = 10001", "page_events_max: 10001; from 1 to 10000"),
        ("bodies_bytes_max = 5", "bodies_bytes_max: 5; at least body_bytes_max"),
        ("log_format = \"xml\"", "log_format: unknown variant"),
    ] {
        let error = load(text, Layer::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn whatever_is_wrong_in_the_file_is_told_with_its_line() {
    let error = |text: &str| {
        let error = file::parse("stormkeep.toml", text).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let known = "stormkeep.toml:3: lisen is not known; did you mean `listen`?";
    assert_eq!(error("shards = 1\n\nlisen = \"x\""), known);
    assert_eq!(
        error("shards = 1\n[limits]\nidle_s = 5"),
        "stormkeep.toml:2: limits is not known; known are ".to_owned()
            + &names()
                .chain(file::TABLES.map(str::to_owned))
                .map(|n| format!("`{n}`"))
                .collect::<Vec<_>>()
                .join(", ")
    );
    let value = error("shards = 1\nidle_s = \"long\"");
    assert!(value.starts_with("stormkeep.toml:2: idle_s: invalid type: string"), "{value}");
    assert!(error("shards = 1\n\n= 5").starts_with("stormkeep.toml:3: "));
    assert!(error("shards = 1\nshards = 2").starts_with("stormkeep.toml:2: "));
}

#[test]
fn what_is_set_is_told() {
    assert_eq!(load("", Layer::default()).unwrap().set, "");
    let flags = Layer { data: Some("d".into()), shards: Some(2), ..Layer::default() };
    assert_eq!(load("log_level = \"debug\"", flags).unwrap().set, "log_level=debug shards=2");
}

#[test]
fn a_cluster_needs_all_its_parts_and_nothing_else() {
    let error = |text: &str| load(text, Layer::default()).unwrap_err().to_string();
    let both = "log = \"kinesis\"\nstore = \"cassandra\"\n";
    assert!(error("log = \"kinesis\"").starts_with("store: a log on Kinesis needs"));
    assert!(error("store = \"cassandra\"").starts_with("log: a store in Cassandra needs"));
    assert!(error(both).starts_with("node_id: it is missing"));
    assert!(error("node_id = 3").starts_with("node_id: it is set, but nothing of a cluster"));
    assert!(error("[kinesis]\nstream = \"s\"").starts_with("kinesis: it is set, but"));
    let node = format!("{both}node_id = 3\n");
    assert!(error(&format!("{node}shards = 2")).starts_with("shards: they are those of"));
    assert!(error(&format!("{node}data = \"d\"")).starts_with("data: a node of a cluster"));
    let wrong = error(&format!("{node}[kinesis]\nstream = \"a stream\""));
    assert!(wrong.starts_with("kinesis.stream: \"a stream\""), "{wrong}");
    let wrong = error(&format!("{node}[cassandra]\nkeyspaces = \"k\""));
    assert!(wrong.contains("unknown field `keyspaces`"), "{wrong}");
    let wrong = error(&format!("{node}[peers]\nadvertise = \"0.0.0.0:2114\""));
    assert!(wrong.starts_with("peers.advertise: "), "{wrong}");
    let config = load(&format!("{node}[cassandra]\nkeyspace = \"k\""), Layer::default()).unwrap();
    let cluster = config.cluster.unwrap();
    assert_eq!((cluster.node.0, cluster.cassandra.keyspace.as_str()), (3, "k"));
}

#[test]
fn followers_are_kept_alive_more_often_than_idle_connections_are_closed() {
    let config = load("idle_s = 8", Layer::default()).unwrap();
    assert_eq!(config.http.heartbeat, Duration::from_secs(2));
}

/// `#: what it means` and `#name = value` for each, in the order of the flags.
#[test]
fn the_example_has_every_setting_with_its_default() {
    let text = include_str!("../../../deploy/stormkeep.toml");
    let command = Layer::augment_args(Command::new("names"));
    for argument in command.get_arguments() {
        let help = argument.get_help().unwrap().to_string();
        let entry = format!("#: {help}\n#{} = ", argument.get_id());
        assert!(text.contains(&entry), "deploy/stormkeep.toml lacks:\n{entry}");
    }
    assert_eq!(file::parse("as it stands", text).unwrap(), Layer::default());
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with([' ', ':']) => rest,
        _ => line,
    });
    let uncommented = lines.collect::<Vec<_>>().join("\n");
    let layer = file::parse("uncommented", &uncommented).unwrap();
    let all = serde_json::to_value(&layer).unwrap();
    let missing = all.as_object().unwrap().iter().find(|(_, value)| value.is_null());
    assert_eq!(missing, None);
    // The tables as well: what has no default is an example there, too.
    let written: serde_json::Value = toml::from_str(&uncommented).unwrap();
    for (table, defaults) in [
        ("kinesis", serde_json::to_value(kinesis::Settings::default()).unwrap()),
        ("cassandra", serde_json::to_value(cassandra::Settings::default()).unwrap()),
        ("peers", serde_json::to_value(peers::Settings::default()).unwrap()),
        ("lambda", serde_json::to_value(push::LambdaSettings::default()).unwrap()),
        ("webhook", serde_json::to_value(push::WebhookSettings::default()).unwrap()),
    ] {
        for (name, default) in defaults.as_object().unwrap() {
            let value = written[table].get(name);
            let value =
                value.unwrap_or_else(|| panic!("deploy/stormkeep.toml: {table} lacks {name}"));
            let has_none = default.is_null() || *default == serde_json::json!({});
            assert!(has_none || value == default, "{table}.{name}: {value} is not {default}");
        }
    }
    // Those that have no default are examples.
    let layer =
        Layer { shards: None, tls_certificate: None, tls_key: None, threads: None, ..layer };
    // What only a cluster may set.
    let layer = Layer { node_id: None, role: None, kinesis: None, cassandra: None, ..layer };
    let layer = Layer { peers: None, ..layer };
    let layer = Layer { lambda: None, webhook: None, subscription: None, ..layer };
    let config = |layer: Layer| Config { set: String::new(), ..layer.checked().unwrap() };
    assert_eq!(format!("{:?}", config(layer)), format!("{:?}", config(Layer::default())));
}
