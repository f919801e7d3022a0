//! The data directory: locked by one process at a time, versioned, and refused if there is anything in it that this
//! build does not know.
//!
//! ```text
//! DIR/LOCK      locked by the process that has it open
//! DIR/FORMAT    version, id, shards; written once
//! DIR/EPOCHS    who owns each shard, in which epoch; replaced as a whole, durably
//! DIR/DOCUMENTS groups of consumers, and who delivers the events of each shard; the same way
//! DIR/CLEAN     after a clean close: where the log ends; removed at the next start
//! DIR/log/      segments: what was committed
//! DIR/store/    the fold of the log; it may be deleted, and is then built again
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use stormkeep_core::{
    env::{Document, DocumentKey, EpochRow},
    shard::{HashRange, ShardId, ShardInfo},
};

const VERSION: u32 = 1;
/// Shards of a new directory. One sequences more appends than two cores can take in.
const SHARDS_DEFAULT: u32 = 1;
/// Shards that a directory may have: their numbers fit in a global position.
pub const SHARDS_MAX: u32 = 1024;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The file system failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{}: another process uses this data directory: stop it, or give another --data", path.display())]
    Locked {
        /// Its lock file.
        path: PathBuf,
    },
    /// It has something that no data directory has.
    #[error("{}: not part of a data directory of Stormkeep: move it away, or give an empty --data", path.display())]
    Unknown {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file of its is damaged.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        what: String,
    },
    /// It is of another version.
    #[error("{}: version {found}; this build knows {VERSION}: use the build that wrote it, or export and import", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: i64,
    },
    /// It has another number of shards than was asked for.
    #[error("{}: shards = {found}, and --shards {asked} was asked for: leave it out, or export and import into a new directory", path.display())]
    Shards {
        /// The file.
        path: PathBuf,
        /// The number that it has.
        found: u32,
        /// The number that was asked for.
        asked: u32,
    },
    /// A number of shards that cannot be.
    #[error("shards: {asked}; from 1 to {SHARDS_MAX}")]
    NoSuchShards {
        /// The number that was asked for.
        asked: u32,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    version: u32,
    id: String,
    shards: u32,
}

/// Where a log ended when it was closed cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Clean {
    /// The offset behind the last record.
    pub(crate) end: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Documents {
    documents: Vec<DocumentRow>,
}

/// A [`Document`]; all bodies are text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentRow {
    version: u64,
    body: String,
    key: DocumentKey,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epochs {
    rows: Vec<EpochRow>,
}

/// An open data directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    id: u128,
    shards: u32,
    /// Holds the lock as long as it is open.
    _lock: File,
}

impl Directory {
    /// Opens a directory, and makes it if it is not there. `shards`: how many it must have; `None`: as many as it has.
    pub fn open(path: &Path, shards: Option<u32>) -> Result<Directory, DirectoryError> {
        if let Some(asked) = shards.filter(|n| !(1..=SHARDS_MAX).contains(n)) {
            return Err(DirectoryError::NoSuchShards { asked });
        }
        create_folders(path).map_err(at(path))?;
        refuse_unknown(path)?;
        let lock = lock(&path.join("LOCK"))?;
        remove_unfinished(path)?;
        let file = path.join("FORMAT");
        let way_out = "restore it from a backup";
        let format = match read::<toml::Table>(&file, way_out)? {
            Some(found) => format(&file, found)?,
            None => {
                let begun = ["log", "store", "EPOCHS"].map(|name| path.join(name));
                if let Some(begun) = begun.iter().find(|path| path.exists()) {
                    let what = format!(
                        "it is missing, but {} is there: restore it from a backup",
                        begun.display()
                    );
                    return Err(DirectoryError::Damaged { path: file, what });
                }
                let id = uuid::Uuid::new_v4().simple().to_string();
                let shards = shards.unwrap_or(SHARDS_DEFAULT);
                let format = Format { version: VERSION, id, shards };
                write(&file, &format).map_err(at(&file))?;
                format
            }
        };
        if let Some(asked) = shards.filter(|asked| *asked != format.shards) {
            return Err(DirectoryError::Shards { path: file, found: format.shards, asked });
        }
        let id = u128::from_str_radix(&format.id, 16).map_err(|_| DirectoryError::Damaged {
            path: file,
            what: format!("id {:?} is no number", format.id),
        })?;
        for folder in ["log", "store"].map(|name| path.join(name)) {
            fs::create_dir_all(&folder).map_err(at(&folder))?;
        }
        sync_folder(path).map_err(at(path))?;
        Ok(Directory { path: path.to_owned(), id, shards: format.shards, _lock: lock })
    }

    /// Its id: every segment of its log names it.
    pub(crate) fn id(&self) -> u128 {
        self.id
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log is.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the store is.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Its shards.
    pub fn shards(&self) -> Vec<ShardInfo> {
        let ranges = (0..).zip(HashRange::split_evenly(self.shards));
        let info =
            |(id, range)| ShardInfo { id: ShardId(id), range, parents: Vec::new(), closed: false };
        ranges.map(info).collect()
    }

    /// Who owns each shard that ever had an owner.
    pub(crate) fn epochs(&self) -> Result<BTreeMap<ShardId, EpochRow>, DirectoryError> {
        let way_out =
            "stop the server, delete it, and start: it is made anew from the fences in the log";
        let epochs = read::<Epochs>(&self.path.join("EPOCHS"), way_out)?.unwrap_or_default();
        Ok(epochs.rows.into_iter().map(|row| (row.shard, row)).collect())
    }

    /// Replaces the owners, durably.
    pub(crate) fn write_epochs(&self, rows: &BTreeMap<ShardId, EpochRow>) -> io::Result<()> {
        write(&self.path.join("EPOCHS"), &Epochs { rows: rows.values().copied().collect() })
    }

    /// The documents of the store: they are no fold of the log, and so not in the store's folder.
    pub(crate) fn documents(&self) -> Result<BTreeMap<DocumentKey, Document>, DirectoryError> {
        let way_out = "restore it from a copy; without it all groups of consumers are gone";
        let file = read::<Documents>(&self.path.join("DOCUMENTS"), way_out)?.unwrap_or_default();
        let document = |row: DocumentRow| {
            (row.key, Document { key: row.key, version: row.version, body: row.body.into() })
        };
        Ok(file.documents.into_iter().map(document).collect())
    }

    /// Replaces the documents, durably.
    pub(crate) fn write_documents(
        &self,
        documents: &BTreeMap<DocumentKey, Document>,
    ) -> io::Result<()> {
        let row = |document: &Document| {
            let body = String::from_utf8(document.body.to_vec());
            let body = body.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            Ok(DocumentRow { key: document.key, version: document.version, body })
        };
        let documents = documents.values().map(row).collect::<io::Result<_>>()?;
        write(&self.path.join("DOCUMENTS"), &Documents { documents })
    }

    /// Where the log ended, if it was closed cleanly.
    pub(crate) fn clean(&self) -> Result<Option<Clean>, DirectoryError> {
        read(&self.path.join("CLEAN"), "delete it: the log is then checked as after a crash")
    }

    /// Says that the log was closed cleanly.
    pub(crate) fn write_clean(&self, clean: Clean) -> io::Result<()> {
        write(&self.path.join("CLEAN"), &clean)
    }

    /// Says that the log may not end where it did.
    pub(crate) fn remove_clean(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join("CLEAN")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_folder(&self.path),
        }
    }
}

/// The version first: the rest of another one may look otherwise.
fn format(file: &Path, found: toml::Table) -> Result<Format, DirectoryError> {
    let damaged = |what: String| DirectoryError::Damaged { path: file.to_owned(), what };
    let version = found.get("version").and_then(toml::Value::as_integer);
    let version = version.ok_or_else(|| damaged("version: it is missing".to_owned()))?;
    if version != i64::from(VERSION) {
        return Err(DirectoryError::Version { path: file.to_owned(), found: version });
    }
    let format: Format =
        found.try_into().map_err(|error: toml::de::Error| damaged(error.message().to_owned()))?;
    if !(1..=SHARDS_MAX).contains(&format.shards) {
        return Err(damaged(format!("shards: {}; from 1 to {SHARDS_MAX}", format.shards)));
    }
    Ok(format)
}

fn at(path: &Path) -> impl Fn(io::Error) -> DirectoryError + '_ {
    |error| DirectoryError::Io { path: path.to_owned(), error }
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(at(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DirectoryError::Locked { path: path.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(at(path)(error)),
    }
}

/// Files that are replaced as a whole, and what they are called until they are finished.
const REPLACED: [(&str, &str); 4] = [
    ("FORMAT", "FORMAT.new"),
    ("EPOCHS", "EPOCHS.new"),
    ("DOCUMENTS", "DOCUMENTS.new"),
    ("CLEAN", "CLEAN.new"),
];

fn refuse_unknown(path: &Path) -> Result<(), DirectoryError> {
    for entry in fs::read_dir(path).map_err(at(path))? {
        let entry = entry.map_err(at(path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let replaced =
            REPLACED.iter().any(|(done, unfinished)| [*done, *unfinished].contains(&&*name));
        if !replaced && !["LOCK", "log", "store"].contains(&&*name) {
            return Err(DirectoryError::Unknown { path: entry.path() });
        }
    }
    Ok(())
}

/// Removes what was being written when a process ended.
fn remove_unfinished(path: &Path) -> Result<(), DirectoryError> {
    for file in REPLACED.map(|(_, unfinished)| path.join(unfinished)) {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&file)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Makes a folder and those above it, durably.
fn create_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new("."));
    create_folders(above)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => sync_folder(above),
    }
}

/// Reads a small file: TOML, and a last line with the CRC-32 of all before it.
fn read<T: DeserializeOwned>(path: &Path, way_out: &str) -> Result<Option<T>, DirectoryError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    let damaged = |what: String| DirectoryError::Damaged {
        path: path.to_owned(),
        what: format!("{what}: {way_out}"),
    };
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text".into()))?;
    let Some((body, sum)) = text.trim_end_matches('\n').rsplit_once("\n# crc32 ") else {
        return Err(damaged("its last line is no checksum".into()));
    };
    if sum != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
        return Err(damaged("its checksum does not match".into()));
    }
    toml::from_str(body).map(Some).map_err(|error| damaged(error.message().to_owned()))
}

/// Replaces a small file as a whole, durably.
fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let body = toml::to_string(value).map_err(io::Error::other)?;
    let body = body.trim_end();
    let text = format!("{body}\n# crc32 {:08x}\n", crc32fast::hash(body.as_bytes()));
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder(path.parent().unwrap_or(path))
}

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
