//! Planted faults: what the core would be without a part of its protocol, made outside of it, by
//! adapters that undo that part. The oracles must find each.

use serde::{Deserialize, Serialize};

/// A planted fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// The epoch check always sees the epoch that the node itself took.
    NoEpochCheck,
    /// The log renumbers batches as they land, so that the accept rule sees no repeats.
    NoBatchIndex,
}
