#!/usr/bin/env bash
# Ranks behind NATs of every kind, in network namespaces: all pairs and long
# delays, with the figures, where `make test` tries a selection. Needs root.
# Arguments select tests, as those of cargo test do.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

scripts/dependencies.sh test
mkdir -p build/logs
log=$ROOT/build/logs/nat.log
# One test at a time: they print figures.
FMI_NAT=full bounded 900 cargo test --locked --test nat -- --nocapture --test-threads 1 "$@" 2>&1 | tee "$log"
! grep '^SKIPPED: ' "$log" >/dev/null || { echo "nothing was tested: no lab can be built here" >&2; exit 1; }
