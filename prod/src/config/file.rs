//! The file, whose errors name their line.

use std::{fs, path::Path};

use toml::de::DeTable;

use super::{ConfigError, Layer, names};

/// Tables of their own, which say themselves what is wrong in them.
pub(super) const TABLES: [&str; 6] =
    ["kinesis", "cassandra", "peers", "lambda", "webhook", "subscription"];
use crate::near;

pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
    parse(&path.display().to_string(), &text)
}

pub(super) fn parse(file: &str, text: &str) -> Result<Layer, ConfigError> {
    let place = |offset: usize| format!("{file}:{}", line_of(text, offset));
    let wrong = |error: toml::de::Error, name: Option<&str>| {
        let offset = error.span().map_or(0, |span| span.start);
        let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
        let what = format!("{name}{}", error.message().trim_end());
        ConfigError::Toml { place: place(offset), what }
    };
    let table = DeTable::parse(text).map_err(|error| wrong(error, None))?;
    let mut keys: Vec<(usize, &str)> =
        table.get_ref().keys().map(|key| (key.span().start, key.get_ref().as_ref())).collect();
    // In the order of the file, so that the first error is told.
    keys.sort_unstable();
    for (offset, name) in &keys {
        let known: Vec<String> = names().chain(TABLES.map(str::to_owned)).collect();
        if !known.iter().any(|known| known == *name) {
            let hint = near::hint(name, known.iter().map(String::as_str));
            return Err(ConfigError::Unknown { place: place(*offset), name: (*name).into(), hint });
        }
    }
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let name = keys.iter().rev().find(|(offset, _)| *offset <= at).map(|(_, name)| *name);
        wrong(error, name)
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}
