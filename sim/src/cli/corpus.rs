//! The corpus: the seed files in `seeds/`, each a failure that was, and what must happen now.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::seedfile::{FileError, SeedFile};

/// A seed file and where it lies.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// What is in it.
    pub file: SeedFile,
}

/// The directory `seeds/`, here or in a directory above, so that the command works in every room.
pub fn directory() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let found = here.ancestors().map(|dir| dir.join("seeds")).find(|dir| dir.is_dir())?;
    Some(found.strip_prefix(&here).map_or(found.clone(), Path::to_owned))
}

/// Reads every `*.toml` of a directory, in order of their names. One that cannot be read is an error: a
/// corpus that shrinks in silence protects nothing.
pub fn load(directory: &Path) -> Result<Vec<Entry>, FileError> {
    let listed = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut paths = listed.map_err(|error| FileError::Io { path: directory.to_owned(), error })?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths.into_iter().map(|path| SeedFile::load(&path).map(|file| Entry { path, file })).collect()
}
