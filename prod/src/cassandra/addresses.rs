//! Where the nodes of Stormkeep are: a row for each, which vanishes when it is not written again.

use stormkeep_core::env::{NodeId, StoreError};
use uuid::Uuid;

use super::{CassandraStore, failure::Asked};
use crate::peers::{Address, AddressError, Addresses};

impl CassandraStore {
    async fn put_address(&self, node: NodeId, address: Address) -> Result<(), StoreError> {
        let here = self.link.get().await?;
        let process = Uuid::from_u128(address.process);
        let values = (i64::from(node.0), address.authority, process);
        self.execute(&here, &here.statements.put_address, values, Asked::Plain).await.map(drop)
    }

    async fn address(&self, node: NodeId) -> Result<Option<Address>, StoreError> {
        let here = self.link.get().await?;
        let values = (i64::from(node.0),);
        let answer = self.rows(&here, &here.statements.address, values, Asked::Plain).await?;
        let row = answer.maybe_first_row::<(String, Uuid)>();
        let row = row.map_err(|error| self.damaged("a row of node_addresses", &error))?;
        Ok(row.map(|(authority, process)| Address { authority, process: process.as_u128() }))
    }
}

impl Addresses for std::sync::Arc<CassandraStore> {
    async fn put(&self, node: NodeId, address: Address) -> Result<(), AddressError> {
        self.put_address(node, address).await.map_err(|_| AddressError)
    }

    async fn get(&self, node: NodeId) -> Result<Option<Address>, AddressError> {
        self.address(node).await.map_err(|_| AddressError)
    }
}
