#!/usr/bin/env bash
# Runs the engine's tests under many more random schedules than `make test`:
# FMI_SEEDS of them (default 100000). SOAK_SECONDS bounds it (default two hours).
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

export FMI_SEEDS=${FMI_SEEDS:-100000}
heading "engine, $FMI_SEEDS seeds"
bounded "${SOAK_SECONDS:-7200}" cargo test --locked --release --lib engine -- --nocapture
