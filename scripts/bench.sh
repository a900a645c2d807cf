#!/usr/bin/env bash
# Builds the benchmarks and runs them in turn with their peers; prints the table
# of scripts/bench.py. Arguments go there (--help lists them).
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

have python3 || { echo "python3 is missing: the statistics need it" >&2; exit 1; }
scripts/dependencies.sh build
scripts/install.sh build/install
mkdir -p build/bench
for program in pingpong startup idle_rss; do
    compile_c "benches/c/$program.c" "build/bench/$program" build/install
done
"${CC:-cc}" -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror benches/peers/tcp_floor.c -o build/bench/tcp_floor

bounded 1200 python3 scripts/bench.py --fmi "$RELEASE/fmi" --programs build/bench "$@"
