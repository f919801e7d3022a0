use super::*;
use crate::{
    fault::{Fault, Place, What},
    plan::{CoreKnobs, Latency, Links, LogKnobs, StoreKnobs, Workload},
    plant::Plant,
    scenario::Scenario,
};

/// A plan for tests: small and valid.
pub(crate) fn plan(seed: u64) -> Plan {
    let latency = Latency { usual_us: 500, tail_us: 5000, tail_per_mille: 10 };
    Plan {
        seed,
        scenario: Scenario::Chaos,
        plant: Plant::None,
        nodes: 5,
        shards: 3,
        chaos_ms: 60_000,
        rest_within_ms: 60_000,
        workload: Workload {
            clients: 8,
            think_ms: 50,
            timeout_ms: 2000,
            streams: 20,
            hot_per_mille: 500,
            read_per_mille: 300,
            eventual_per_mille: 300,
            retry_per_mille: 500,
            events_max: 4,
            event_bytes_max: 200,
            follow: true,
            all_followers: 1,
            read_all_per_mille: 100,
            backwards_per_mille: 200,
            describe_per_mille: 100,
            tombstone_per_mille: 10,
        },
        links: Links { peer: latency, client: latency, service: latency },
        log: LogKnobs {
            put: latency,
            lag: latency,
            timeout_ms: 1000,
            retention_ms: 86_400_000,
            put_bytes_per_s: 1_000_000,
            put_records_per_s: 1000,
            reads_per_s: 5,
            read_bytes_per_s: 2_000_000,
        },
        store: StoreKnobs {
            replica: latency,
            timeout_ms: 1000,
            row_us: 20,
            read_repair: true,
            hints: false,
        },
        core: CoreKnobs {
            heartbeat_ms: 1000,
            dead_after_ms: 4000,
            poll_ms: 300,
            poll_min_ms: 250,
            close_after_ms: 2000,
            batch_bytes_max: 100_000,
            tail_bytes_max: 1_000_000,
            heads_max: 1000,
            queue_max: 100,
            write_rows_max: 64,
            buggify_per_mille: 0,
        },
        delivery: None,
        faults: vec![
            Fault { at_ms: 1000, for_ms: 5000, what: What::Crash { node: 1 } },
            Fault { at_ms: 2000, for_ms: 500, what: What::ClockStep { node: 0, by_ms: -300 } },
            Fault {
                at_ms: 3000,
                for_ms: 500,
                what: What::CutOneWay { from: Place::Node(4), to: Place::Store },
            },
            Fault { at_ms: 4000, for_ms: 0, what: What::LogExpireCursors {} },
            Fault { at_ms: 5000, for_ms: 100, what: What::FlashCrowd { times: 20, streams: 3 } },
        ],
    }
}

fn text() -> String {
    SeedFile::of(plan(7), "a test").to_toml().unwrap()
}

fn error(text: &str) -> String {
    text.parse::<SeedFile>().unwrap_err().to_string()
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    let error = error(text);
    for word in words {
        assert!(error.contains(word), "{word:?} is not in:\n{error}");
    }
}

/// One fault of each kind, made of the kind's own fields, so that a new kind is tested as well.
fn one_of_each_kind() -> Vec<Fault> {
    let fields = "node = 1\ntimes = 2\nby_ms = 3\nppm = 4\nfrom = \"n0\"\nto = \"log\"\n\
                  per_mille = 5\nwithin_ms = 6\nnth = 7\nreplica = 2\nstreams = 8\n";
    let fault = |kind: &&str| {
        let mut lines: Vec<&str> = fields.lines().collect();
        loop {
            let text = format!("at_ms = 1\nkind = \"{kind}\"\n{}", lines.join("\n"));
            let error = match toml::from_str::<Fault>(&text) {
                Ok(fault) => return fault,
                Err(error) => error,
            };
            let unknown = error.message().split('`').nth(1).unwrap();
            assert!(error.message().starts_with("unknown field"), "{kind}: {error}");
            lines.retain(|line| !line.starts_with(&format!("{unknown} ")));
        }
    };
    What::KINDS.iter().map(fault).collect()
}

#[test]
fn every_kind_of_fault_goes_round() {
    let mut file = SeedFile::of(plan(1), "every kind");
    file.plan.faults = one_of_each_kind();
    assert_eq!(file.plan.faults.len(), What::KINDS.len());
    for (fault, kind) in file.plan.faults.iter().zip(What::KINDS) {
        assert_eq!(fault.what.kind(), *kind);
    }
    assert_eq!(file.to_toml().unwrap().parse(), Ok(file));
}

#[test]
fn goes_round_with_any_seed_and_expectation() {
    for seed in [0, 1 << 53, i64::MAX as u64 + 1, u64::MAX] {
        let mut file = SeedFile::of(plan(seed), "quotes \" and\nlines");
        assert_eq!(file.to_toml().unwrap().parse(), Ok(file.clone()));
        file.expect = Expect::Violation(Promise::NoPanic);
        assert_eq!(file.to_toml().unwrap().parse(), Ok(file));
    }
}

#[test]
fn says_what_is_wrong_with_the_file_itself() {
    says("}{", &["not TOML", "line 1"]);
    says("", &["version is missing", "version = 1"]);
    says(&text().replace("version = 1", ""), &["version is missing"]);
    says("version = 2\nanything = true", &["version = 2", "this build reads version 1"]);
    says("version = \"one\"", &["version = \"one\"", "this build reads version 1"]);
    says(&text().replace("expect = \"pass\"\n", ""), &["missing field `expect`"]);
    says(&text().replace("\"pass\"", "\"violation\""), &["promise is missing", "durable"]);
    says(&text().replace("\"pass\"", "\"pass\"\npromise = \"live\""), &["take it away"]);
    says(
        &text().replace("\"pass\"", "\"pas\""),
        &["unknown variant `pas`", "did you mean `pass`?"],
    );
    says(&format!("banana = 1\n{}", text()), &["unknown field `banana`", "line 1"]);
}

#[test]
fn says_what_is_wrong_with_a_key() {
    says(
        &text().replace("nodes = 5", "nods = 5"),
        &["unknown field `nods`", "did you mean `nodes`?"],
    );
    says(&text().replace("clients = 8", "client = 8"), &["did you mean `clients`?"]);
    says(&text().replace("clients = 8", "clients = -8"), &["invalid value", "-8", "line"]);
    says(&text().replace("clients = 8\n", ""), &["missing field `clients`"]);
    says(
        &text().replace("scenario = \"chaos\"", "scenario = \"choas\""),
        &["did you mean `chaos`?"],
    );
}

/// Files that were written before there was such a thing play as they did.
#[test]
fn what_a_file_is_too_old_to_know_of_does_not_happen() {
    let since = ["all_followers", "read_all_per", "backwards_per", "describe_per", "tombstone_per"];
    let old = |line: &&str| !since.iter().any(|name| line.starts_with(name));
    let text = text().replace("poll_min_ms = 250\n", "");
    let text: Vec<&str> = text.lines().filter(old).collect();
    let plan = text.join("\n").parse::<SeedFile>().unwrap().plan;
    let workload = &plan.workload;
    assert_eq!((workload.all_followers, workload.read_all_per_mille), (0, 0));
    assert_eq!((workload.describe_per_mille, plan.core.poll_min_ms), (0, 1000));
}

#[test]
fn says_what_is_wrong_with_a_fault() {
    let crash = "kind = \"crash\"\nnode = 1";
    assert!(text().contains(crash), "{}", text());
    let with = |fault: &str| text().replace(crash, fault);
    let mut kinds: Vec<&str> = What::KINDS.to_vec();
    kinds.extend(["unknown variant `crahs`", "did you mean `crash`?"]);
    says(&with("kind = \"crahs\"\nnode = 1"), &kinds);
    says(&with("kind = \"crash\"\nnod = 1"), &["unknown field `nod`", "did you mean `node`?"]);
    says(&with("kind = \"crash\"\nnode = 1\nextra = 2"), &["unknown field `extra`"]);
    says(&with("kind = \"log-expire-cursors\"\nextra = 2"), &["unknown field `extra`"]);
    says(&with("kind = \"crash\""), &["missing field `node`"]);
    says(&with("node = 1"), &["missing field `kind`"]);
    says(&with("kind = \"crash\"\nnode = 5"), &["plan.faults[0].node = 5", "0 to 4"]);
    says(&with("kind = \"replica-down\"\nreplica = 3"), &["plan.faults[0].replica = 3", "0 to 2"]);
    says(&with("kind = \"log-slow\"\ntimes = 0"), &["plan.faults[0].times = 0", "from 1"]);
    says(&with("kind = \"lose\"\nper_mille = 1001"), &["plan.faults[0].per_mille = 1001"]);
    says(&with("kind = \"cut\"\nfrom = \"n9\"\nto = \"log\""), &["faults[0].from = \"n9\"", "n4"]);
    says(&with("kind = \"cut\"\nfrom = \"log\"\nto = \"log\""), &["the same place"]);
    says(&with("kind = \"cut\"\nfrom = \"moon\"\nto = \"log\""), &["\"moon\" is no place"]);
}

#[test]
fn names_every_value_out_of_range() {
    let mut file = SeedFile::of(plan(1), "");
    file.plan.nodes = 0;
    file.plan.shards = 0;
    file.plan.chaos_ms = validate::PHASE_MS_MAX + 1;
    file.plan.workload.hot_per_mille = 1001;
    file.plan.links.peer.tail_per_mille = 1001;
    file.plan.workload.think_ms = 0;
    file.plan.faults.clear();
    let text = error(&file.to_toml().unwrap());
    for line in [
        "plan.nodes = 0: must be from 1 to 64",
        "plan.shards = 0: must be from 1 to 256",
        "plan.chaos_ms = 3600001: must be from 1 to 3600000",
        "plan.workload.hot_per_mille = 1001: must be from 0 to 1000",
        "plan.links.peer.tail_per_mille = 1001: must be from 0 to 1000",
        "plan.workload.think_ms = 0: must be from 1 to 3600000",
    ] {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
    file.plan = plan(1);
    file.plan.nodes = 65;
    says(&file.to_toml().unwrap(), &["plan.nodes = 65"]);
    file.plan = plan(1);
    file.plan.chaos_ms = 4500;
    says(&file.to_toml().unwrap(), &["plan.faults[4].at_ms = 5000", "plan.chaos_ms = 4500"]);
}

#[test]
fn judges_what_happened() {
    let violation =
        |promise| Violation { promise, expected: String::new(), seen: String::new(), at: 0 };
    let expect = Expect::Violation(Promise::Durable);
    assert_eq!(Expect::Pass.judge(None), Ok(()));
    assert_eq!(expect.judge(Some(&violation(Promise::Durable))), Ok(()));
    assert!(Expect::Pass.judge(Some(&violation(Promise::Live))).unwrap_err().contains("live"));
    assert!(expect.judge(None).unwrap_err().contains("no promise was"));
    assert!(expect.judge(Some(&violation(Promise::Live))).unwrap_err().contains("but live was"));
}

#[test]
fn saves_and_loads() {
    let dir = std::env::temp_dir().join(format!("stormkeep-seedfile-{}", std::process::id()));
    let path = dir.join("deep/chaos-1.toml");
    let file = SeedFile::of(plan(1), "a test");
    file.save(&path).unwrap();
    assert_eq!(SeedFile::load(&path).unwrap(), file);
    fs::write(&path, "version = 3").unwrap();
    let text = SeedFile::load(&path).unwrap_err().to_string();
    assert!(text.contains("chaos-1.toml: version = 3"), "{text}");
    fs::remove_dir_all(&dir).unwrap();
    assert!(SeedFile::load(&path).unwrap_err().to_string().contains("chaos-1.toml"));
}

#[test]
fn points_at_the_fault_that_is_wrong() {
    let text = text().replace("kind = \"flash-crowd\"", "kind = \"flash-mob\"");
    let line = 1 + text.lines().position(|line| line.contains("flash-mob")).unwrap();
    // The line where the fault begins: its head, time and duration stand before its kind.
    says(&text, &[&format!("line {}", line - 3)]);
}

/// What the scenarios make, a seed file must take.
#[test]
fn every_plan_of_every_scenario_is_valid() {
    for scenario in Scenario::ALL {
        for seed in 0..500 {
            let file = SeedFile::of(scenario.plan(seed), "");
            assert_eq!(file.to_toml().unwrap().parse(), Ok(file), "{scenario} {seed}");
        }
    }
}
