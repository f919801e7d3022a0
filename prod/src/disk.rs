//! One machine: a log and a store on local disk.
