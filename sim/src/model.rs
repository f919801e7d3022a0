//! Models of the services, each faulty in the ways that the real one is, with the limits that it
//! publishes. What a model promises is in the contract of the core's traits; where a real service and its
//! model differ, the model is what changes.

pub mod cassandra;
pub mod effects;
pub mod kinesis;
pub mod lambda;
pub mod links;
pub mod paxos;
