//! The APIs: gRPC as the clients of KurrentDB speak it, and HTTP with JSON, on one port.

pub mod http;
pub mod listen;
