//! The contract of the core's traits, checked against every family of adapters: the models of the simulator, the disk of
//! one machine, and the real services.
//!
//! A check is written once, over the traits alone; a family brings a world and the troubles that can be made in it. What a
//! family cannot show is a cell of the table with its reason. Where a real service and its model differ, the model is
//! what changes.

mod disk;
mod family;
mod log;
mod model;
mod network;
mod real;
mod store;
mod table;

use table::{Column, checks, print};

/// Prints the table of these families, and fails if any cell of it did.
fn judge(columns: &[Column]) {
    let names: Vec<_> = checks::<model::Model>().iter().map(|c| (c.name, c.sentence)).collect();
    assert!(print(&names, columns), "a family does not keep the contract: see the table");
}

#[test]
fn the_models_and_the_disk_keep_the_contract() {
    judge(&[model::column(), disk::column()]);
}

#[test]
#[ignore = "needs tests/services/up, and Cassandra for itself"]
fn all_families_keep_the_contract() {
    judge(&[model::column(), disk::column(), real::column()]);
}
