#!/usr/bin/env bash
# PostgreSQL: the one that is there, or Debian's. $1: a folder, whose file `bin` then names the folder of its programs.
set -e
find_it() { ls -d /usr/lib/postgresql/15/bin/initdb 2>/dev/null | tail -1; }
mkdir -p "$1"
if [ -z "$(find_it)" ]; then
    [ "$(id -u)" = 0 ] || { echo "PostgreSQL 15 is not there, and installing it needs root"; exit 1; }
    # Debian's package would make a cluster and start it.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    apt-get install -y --no-install-recommends postgresql-15 ||
        { apt-get update && apt-get install -y --no-install-recommends postgresql-15; }
fi
dirname "$(find_it)" >"$1/bin"
