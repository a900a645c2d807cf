#!/usr/bin/env bash
# Runs every test: Rust (unit, conformance, launcher, header), C, examples.
# Goes on after a failure, so that one run shows all of them; ends with a count.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

scripts/dependencies.sh test
mkdir -p build/logs
log=$ROOT/build/logs/test.log
: >"$log"
broken=()

# suite SECONDS NAME COMMAND...
suite() {
    local seconds=$1 name=$2 start=$SECONDS
    shift 2
    heading "$name"
    bounded "$seconds" "$@" 2>&1 | tee -a "$log" || broken+=("$name")
    echo "-- $name: $((SECONDS - start)) s"
}

# The release build first: the launcher, C and example tests run what it makes.
suite 1200 "build and install" scripts/install.sh build/install
suite 1200 "Rust, with debug assertions" cargo test --locked --no-fail-fast
# The full grid of the conformance suite is for optimized code; what is shipped is checked as it is.
suite 1200 "conformance and library, release" \
    cargo test --locked --no-fail-fast --release --test conformance --test library
suite 900 "C" c-tests/run.sh build/c-tests "$RELEASE"
suite 600 "examples" scripts/test-examples.sh

heading "result"
scripts/count-tests.sh "$log"
if [ ${#broken[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${broken[@]}"
    exit 1
fi
