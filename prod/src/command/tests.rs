#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Command::try_parse_from(line.split(' '))
}

#[test]
fn the_commands_are_as_they_are_told() {
    Command::command().debug_assert();
    for line in [
        "stormkeep serve",
        "stormkeep serve --data d --listen 127.0.0.1:0 --shards 4 --log-format json",
        "stormkeep serve --config f.toml --disk-reserve-bytes 5 --request-timeout-ms 500",
        "stormkeep append player-1 --type joined --data {} --metadata null --expected none",
        "stormkeep append player-1 --expected 7 --json",
        "stormkeep read $all --from start --type-prefix a --type-prefix b --json",
        "stormkeep read player-1 --from end --backwards --limit 5",
        "stormkeep follow $all --stream-prefix player- --limit 1 --url http://127.0.0.1:1",
        "stormkeep stats --all",
        "stormkeep export",
        "stormkeep export --data d backup.jsonl",
        "stormkeep import backup.jsonl --url http://127.0.0.1:1",
        "stormkeep verify d",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (line, kind) in [
        ("stormkeep", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("stormkeep server", ErrorKind::InvalidSubcommand),
        ("stormkeep serve --lisen 127.0.0.1:0", ErrorKind::UnknownArgument),
        ("stormkeep serve --listen nowhere", ErrorKind::ValueValidation),
        ("stormkeep serve --log-format xml", ErrorKind::InvalidValue),
        ("stormkeep append", ErrorKind::MissingRequiredArgument),
        ("stormkeep append s --data {}", ErrorKind::MissingRequiredArgument),
        ("stormkeep append s --expected some", ErrorKind::ValueValidation),
        ("stormkeep read $all --type-prefix a --stream-prefix b", ErrorKind::ArgumentConflict),
        ("stormkeep verify", ErrorKind::MissingRequiredArgument),
    ] {
        assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
    }
}
