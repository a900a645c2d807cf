#!/usr/bin/env bash
# Kills one rank of four in the middle of each operation, FMI_RUNS times (default
# 20), and prints how soon the last survivor knows.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

scripts/dependencies.sh build
bounded 3600 cargo test --locked --release --test kill -- --exact bench --ignored --nocapture
