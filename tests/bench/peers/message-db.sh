#!/usr/bin/env bash
# message-db's SQL from npm. $1: the folder for it.
set -e
[ -e "$1/node_modules/@eventide/message-db/database/install.sh" ] && exit 0
command -v npm >/dev/null || { echo "needs npm"; exit 1; }
command -v psql >/dev/null || { echo "needs psql"; exit 1; }
mkdir -p "$1"
npm install --no-audit --no-fund --ignore-scripts --prefix "$1" @eventide/message-db@1.3.1
