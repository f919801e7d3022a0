#!/usr/bin/env bash
# SierraDB from crates.io, built with its own lock file. $1: the folder for it.
set -e
[ -x "$1/bin/sierradb" ] && exit 0
mkdir -p "$1"
cd "$1" # away from this repository's compiler flags
cargo install sierradb-server --version 0.3.1 --locked --root "$1" --target-dir "$1/target"
rm -rf "$1/target"
