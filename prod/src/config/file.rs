//! The TOML file. Its errors name the line.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, KEYS};
use crate::near;

pub(super) fn merge(config: &mut Config, path: &Path, text: &str) -> Result<(), ConfigError> {
    let place = |offset: usize| format!("{}:{}", path.display(), line_of(text, offset));
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        ConfigError::new(place(offset), error.message().trim_end())
    })?;
    let mut pending: Vec<(usize, String, &DeValue<'_>)> = Vec::new();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        let section = format!("{name}.");
        match value.get_ref() {
            DeValue::Table(inner) if KEYS.iter().any(|k| k.name.starts_with(&section)) => {
                for (key, value) in inner {
                    let name = format!("{section}{}", key.get_ref());
                    pending.push((key.span().start, name, value.get_ref()));
                }
            }
            value => pending.push((key.span().start, name.to_owned(), value)),
        }
    }
    // In the order of the file, so that the first error is told.
    pending.sort_by_key(|(offset, _, _)| *offset);
    for (offset, name, value) in pending {
        let error = |what: String| ConfigError::new(place(offset), what);
        if let DeValue::Table(_) = value {
            let sections = KEYS.iter().filter_map(|key| key.name.split_once('.'));
            let mut sections: Vec<&str> = sections.map(|(section, _)| section).collect();
            sections.dedup();
            let hint = near::hint(&name, sections);
            return Err(error(format!("[{name}]: this section is not known; {hint}")));
        }
        if !KEYS.iter().any(|key| key.name == name) {
            let hint = near::hint(&name, KEYS.iter().map(|key| key.name));
            return Err(error(format!("{name}: this key is not known; {hint}")));
        }
        let written = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
            DeValue::Boolean(flag) => flag.to_string(),
            other => {
                let what = format!("{name}: {} is no value here: write text or a number", other.type_str());
                return Err(error(what));
            }
        };
        config.set(&name, &written).map_err(error)?;
    }
    Ok(())
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}
