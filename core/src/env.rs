//! The five traits that the core knows the world by, and the one that gathers them.
//!
//! Each trait's docs are its contract: what it guarantees, and how it fails. `tests/contract` holds
//! every adapter to them.

mod clock;
mod handler;
mod log;
mod network;
mod store;

pub use clock::Clock;
pub use handler::{DeliverError, Delivered, Delivery, Handled, Handler, NoHandler};
pub use log::{Cursor, Log, LogError, LogRecord, Page, Position, Put, PutError, ReadLogError};
pub use network::{CallError, Network, NodeId};
pub use store::{
    Document, DocumentKey, EpochRow, NodeRow, Progress, Rewritten, Role, Row, Store, StoreError,
    Swap, Token,
};

/// A world to run in. The core is generic over this alone.
pub trait Env: Send + Sync + 'static {
    /// The ordered, durable record of each shard.
    type Log: Log;
    /// The queryable state.
    type Store: Store;
    /// Calls to peer nodes.
    type Network: Network;
    /// Time, tasks and randomness.
    type Clock: Clock;
    /// Where events are delivered.
    type Handler: Handler;

    /// The log.
    fn log(&self) -> &Self::Log;
    /// The store.
    fn store(&self) -> &Self::Store;
    /// The network.
    fn network(&self) -> &Self::Network;
    /// The clock.
    fn clock(&self) -> &Self::Clock;
    /// Where events are delivered.
    fn handler(&self) -> &Self::Handler;
}
