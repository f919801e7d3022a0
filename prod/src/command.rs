//! The commands of `stormkeep`.
