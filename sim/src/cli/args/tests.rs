use clap::CommandFactory;

use super::*;
use crate::{cli::fake, plan::Plan};

fn chaos(arguments: &[&str]) -> Result<ChaosArgs, String> {
    let all = ["sim", "chaos"].iter().chain(arguments);
    match Args::try_parse_from(all) {
        Ok(Args { command: Command::Chaos(args) }) => Ok(args),
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            assert_eq!(error.exit_code(), 2);
            Err(error.to_string())
        }
    }
}

#[test]
fn the_definition_holds_together() {
    Args::command().debug_assert();
}

#[test]
fn seeds() {
    assert_eq!(parse_seed("17"), Ok(17));
    assert_eq!(parse_seed("0xff"), Ok(255));
    assert_eq!(parse_seed("18446744073709551615"), Ok(u64::MAX));
    for wrong in ["", "-1", "+1", "0x", "0x+1", "1.5", "18446744073709551616", "abc"] {
        assert!(parse_seed(wrong).unwrap_err().contains("is no seed"), "{wrong}");
    }
}

#[test]
fn ranges_of_seeds() {
    assert_eq!(parse_seeds("0..1000"), Ok(0..1000));
    assert_eq!(parse_seeds("0x10..0x20"), Ok(16..32));
    assert!(parse_seeds("5..5").unwrap_err().contains("holds no seed"));
    assert!(parse_seeds("9..5").unwrap_err().contains("write 5..9"));
    assert!(parse_seeds("5").unwrap_err().contains("write A..B"));
    assert!(parse_seeds("1..=5").unwrap_err().contains("leave out their end"));
    assert!(parse_seeds("..5").unwrap_err().contains("is no seed"));
    assert!(parse_seeds("0..99999999999999999999").unwrap_err().contains("18446744073709551615"));
}

#[test]
fn spans_of_time() {
    assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(parse_time("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(parse_time("10m"), Ok(Duration::from_secs(600)));
    assert_eq!(parse_time("2h"), Ok(Duration::from_secs(7200)));
    for wrong in ["", "30", "s", "1.5s", "-1s", "10 m", "10d", "ten"] {
        assert!(parse_time(wrong).unwrap_err().contains("is no span"), "{wrong}");
    }
    assert!(parse_time("0s").unwrap_err().contains("no time at all"));
    assert!(parse_time("18446744073709551615h").unwrap_err().contains("more than a year"));
    assert!(parse_time("99999999999999999999s").is_err());
}

#[test]
fn what_to_replay() {
    assert_eq!(parse_target("17"), Ok(Target::Seed(17)));
    assert_eq!(parse_target("0x11"), Ok(Target::Seed(17)));
    assert_eq!(parse_target("17.toml"), Ok(Target::File("17.toml".into())));
    assert_eq!(parse_target("found/chaos-1.toml"), Ok(Target::File("found/chaos-1.toml".into())));
    for wrong in ["-1", "0xzz", "18446744073709551616"] {
        assert!(parse_target(wrong).unwrap_err().contains("is no seed"), "{wrong}");
    }
}

#[test]
fn bad_chaos_is_refused() {
    assert!(
        chaos(&["--seeds", "0..9", "--for", "1s"]).unwrap_err().contains("cannot be used with")
    );
    assert!(chaos(&["--scenario", "storm"]).unwrap_err().contains("chaos, launch-day"));
    assert!(chaos(&["--plant", "rose"]).unwrap_err().contains("no-batch-index"));
    assert!(chaos(&["--jobs", "0"]).is_err());
    let none = chaos(&["--canary", "--plant", "none"]).unwrap().options(1).unwrap_err();
    assert!(none.to_string().contains("--canary"));
}

#[test]
fn chaos_without_arguments_is_half_a_minute_of_fresh_seeds() {
    let args = chaos(&["--no-corpus"]).unwrap();
    assert!(args.is_default());
    let options = args.options(77).unwrap();
    assert_eq!((options.first_seed, options.limit), (77, Limit::Time(DEFAULT_TIME)));
    assert_eq!((options.scenario, options.plant), (Scenario::Chaos, Plant::None));
    assert!(options.jobs >= 1 && !options.stop_at_first && !options.canary);
}

#[test]
fn a_canary_has_its_own_defaults() {
    let options = chaos(&["--canary"]).unwrap().options(77).unwrap();
    assert_eq!((options.first_seed, options.limit), (77, Limit::Seeds(CANARY_SEEDS)));
    assert_eq!(options.plant, Plant::NoEpochCheck);
    assert!(options.stop_at_first && options.canary && options.corpus.is_empty());
    let args = chaos(&["--canary", "--plant", "no-batch-index", "--seeds", "5..8"]).unwrap();
    let options = args.options(77).unwrap();
    assert_eq!((options.first_seed, options.limit), (5, Limit::Seeds(3)));
    assert_eq!(options.plant, Plant::NoBatchIndex);
}

#[test]
fn a_file_has_its_own_scenario() {
    let replay = |target: &str, scenario| ReplayArgs {
        target: parse_target(target).unwrap(),
        scenario,
        plant: Some(Plant::NoBatchIndex),
        trace: false,
        json: false,
    };
    let plan = |scenario, seed| Plan { scenario, ..fake::plan(seed) };
    let calm = replay("9", Some(Scenario::Calm));
    let (file, path) = calm.file(plan).unwrap();
    assert_eq!((file.plan.seed, file.plan.scenario, path), (9, Scenario::Calm, None));
    assert_eq!(file.plan.plant, Plant::NoBatchIndex);
    let error = replay("x.toml", Some(Scenario::Calm)).file(plan).unwrap_err().to_string();
    assert!(error.contains("goes with a seed only"), "{error}");
    let error = replay("no-such.toml", None).file(plan).unwrap_err().to_string();
    assert!(error.contains("no-such.toml"), "{error}");
}
