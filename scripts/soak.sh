#!/usr/bin/env bash
# Runs the tests of the engine and of the rendezvous under many more random
# schedules and inputs than `make test`: FMI_SEEDS of them (default 100000). Then
# FMI_CLOSE_SEEDS random close schedules over real sockets (default 10000), and
# kills and cuts off ranks in all ways that the tests know.
# SOAK_SECONDS bounds each of the four (default two hours).
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

export FMI_SEEDS=${FMI_SEEDS:-100000}
heading "engine, $FMI_SEEDS seeds"
bounded "${SOAK_SECONDS:-7200}" cargo test --locked --release --lib engine -- --nocapture
heading "rendezvous, $FMI_SEEDS cases"
PROPTEST_CASES=$FMI_SEEDS bounded "${SOAK_SECONDS:-7200}" cargo test --locked --release --lib rendezvous
export FMI_CLOSE_SEEDS=${FMI_CLOSE_SEEDS:-10000}
heading "closing, $FMI_CLOSE_SEEDS schedules"
bounded "${SOAK_SECONDS:-7200}" cargo test --locked --release --test close_schedules -- --nocapture
heading "deaths, and what only looks like one"
FMI_SOAK=1 bounded "${SOAK_SECONDS:-7200}" cargo test --locked --release --test kill --test liveness -- --nocapture
