#!/usr/bin/env bash
# NATS from Debian's package. $1: the folder for it.
source "$(dirname "$0")/debs.sh"
unpack "$1" usr/sbin/nats-server nats-server
