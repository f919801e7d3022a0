#!/usr/bin/env bash
# Redis from Debian's packages. $1: the folder for it.
source "$(dirname "$0")/debs.sh"
unpack "$1" usr/bin/redis-check-rdb redis-server redis-tools libjemalloc2 liblzf1
