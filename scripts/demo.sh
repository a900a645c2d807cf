#!/usr/bin/env bash
# From a fresh clone to a distributed job: builds FMI, installs it under
# build/install, builds the C examples against that, and runs k-means on
# RANKS (default 4) ranks over TCP.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

scripts/dependencies.sh build
heading "library and fmi command"
scripts/install.sh build/install
heading "example"
scripts/build-examples.sh build/install build/examples
heading "k-means on ${RANKS:-4} ranks"
bounded 60 "$RELEASE/fmi" run -n "${RANKS:-4}" -- build/examples/kmeans examples/data/digits.csv
