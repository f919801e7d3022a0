//! Where the nodes of a cluster are: a small table in the store, so that no other service is needed.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use stormkeep_core::env::NodeId;
use tracing::{debug, error, info, warn};

/// The time to the next attempt after one that failed: nodes may start before the store does.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its host and port, as its peers reach it.
    pub authority: String,
    /// Its process: random bits, drawn at its start.
    pub process: u128,
}

/// The table cannot be read or written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the addresses of the nodes cannot be reached")]
pub struct AddressError;

/// The table. A row is written by its node alone, without a condition: the last write wins, and it may vanish when it was not
/// written for a few minutes. It is a hint and no more, since whoever is called by mistake turns the call away.
pub trait Addresses: Send + Sync + 'static {
    /// Writes where a node is.
    fn put(
        &self,
        node: NodeId,
        address: Address,
    ) -> impl Future<Output = Result<(), AddressError>> + Send;

    /// Reads where a node is; `None`: there is no row.
    fn get(
        &self,
        node: NodeId,
    ) -> impl Future<Output = Result<Option<Address>, AddressError>> + Send;
}

/// A table of one process, for tests. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct InMemory(Arc<Mutex<BTreeMap<NodeId, Address>>>);

impl Addresses for InMemory {
    async fn put(&self, node: NodeId, address: Address) -> Result<(), AddressError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, address);
        Ok(())
    }

    async fn get(&self, node: NodeId) -> Result<Option<Address>, AddressError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned())
    }
}

/// Writes where this node is, now and then again, until it is dropped. `every` should be a third of what a row lives; what fails
/// is tried again after a second.
///
/// If another process writes the same row in turn, two nodes have one number: that is said each time.
pub async fn announce<A: Addresses>(addresses: A, node: NodeId, address: Address, every: Duration) {
    let (mut written, mut failing) = (false, false);
    loop {
        match addresses.get(node).await {
            Ok(Some(other)) if other.process != address.process => {
                if written {
                    error!(
                        %node, other = other.authority, here = address.authority,
                        "two processes have the same node_id: give each a number of its own"
                    );
                } else {
                    info!(%node, was = other.authority, now = address.authority, "this node was here before");
                }
            }
            Ok(_) => {}
            Err(error) => debug!(%node, %error, "not known whether this node_id is used elsewhere"),
        }
        let wait = match addresses.put(node, address.clone()).await {
            Ok(()) => {
                (written, failing) = (true, false);
                every
            }
            Err(error) => {
                // Once, and not with every try.
                if !failing {
                    warn!(%node, %error, "peers may not find this node");
                }
                failing = true;
                RETRY_AFTER.min(every)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NodeId = NodeId(7);

    /// A table that cannot be written so many times.
    struct Late(InMemory, Mutex<u32>);

    impl Addresses for Late {
        async fn put(&self, node: NodeId, address: Address) -> Result<(), AddressError> {
            {
                let mut left = self.1.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(fewer) = left.checked_sub(1) {
                    *left = fewer;
                    return Err(AddressError);
                }
            }
            self.0.put(node, address).await
        }

        async fn get(&self, node: NodeId) -> Result<Option<Address>, AddressError> {
            self.0.get(node).await
        }
    }

    #[tokio::test]
    async fn a_node_that_starts_before_its_store_is_soon_found() {
        let table = InMemory::default();
        let late = Late(table.clone(), Mutex::new(1));
        let here = Address { authority: "10.0.0.7:2114".to_owned(), process: 1 };
        let announcing = tokio::spawn(announce(late, HERE, here.clone(), Duration::from_secs(100)));
        let found = async {
            while table.get(HERE).await != Ok(Some(here.clone())) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found)
            .await
            .expect("long before the interval");
        announcing.abort();
    }
}
