//! The machine that the figures belong to, and the folders of a run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{peer::Place, process::said};

/// What a reader must know of the machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    date: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    /// Of the folder with the data. On `tmpfs` no flush means anything.
    file_system: String,
    /// Load average of the last minute, before the run: other work on the machine.
    load_before: String,
}

impl Machine {
    pub fn look(data: &Path) -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            date: said("date", &["-u", "+%F %H:%M UTC"]),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or(0).div_ceil(1 << 20),
            kernel: said("uname", &["-sr"]),
            file_system: said("stat", &["-f", "-c", "%T", &data.to_string_lossy()]),
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    pub fn line(&self) -> String {
        format!(
            "{}, {} cores, {} GiB, {}, data on {}, load average before {}",
            self.date, self.cores, self.memory_gib, self.kernel, self.file_system, self.load_before
        )
    }
}

/// The folders of a run. Data goes when this does.
pub struct Scratch {
    cache: PathBuf,
    data: PathBuf,
}

impl Scratch {
    pub fn open(folder: Option<PathBuf>) -> Result<Self> {
        let root = folder.unwrap_or_else(|| std::env::temp_dir().join("stormkeep-peers"));
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let root = root.canonicalize()?;
        let data = root.join(format!("data-{}", std::process::id()));
        let cache = root.join("programs");
        for folder in [&data, &cache] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(Self { cache, data })
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folders of one peer, its data empty.
    pub fn place(&self, name: &str) -> Result<Place> {
        let data = self.data.join(name);
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::create_dir_all(&data)?;
        Ok(Place { cache: self.cache.clone(), data })
    }

    /// Removes the data of one peer, once its server is stopped.
    pub fn clear(&self, name: &str) {
        // What is left is removed with the rest at the end.
        let _ = fs::remove_dir_all(self.data.join(name));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if fs::remove_dir_all(&self.data).is_err() {
            eprintln!("could not remove {}", self.data.display());
        }
    }
}
