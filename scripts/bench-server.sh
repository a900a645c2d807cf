#!/usr/bin/env bash
# How long an honest pair takes at a rendezvous server that 10,000 idle
# connections burden, and the server's memory. To reach: 100 ms (p99), 128 MiB.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

# Both sides have a descriptor for each connection.
needed=12000
limit=$(ulimit -Hn)
if [ "$limit" != unlimited ] && [ "$limit" -lt "$needed" ]; then
    echo "$0: a process may have $limit descriptors here, and needs $needed" >&2
    exit 1
fi
echo "load before: $(cut -d ' ' -f 1-3 /proc/loadavg) on $(nproc) cores"
bounded 1200 cargo test --locked --release --test server -- --ignored --nocapture --exact \
    ten_thousand_idle_connections
