#!/usr/bin/env bash
# Builds the C examples against an installed FMI, as a user would: with CMake's
# find_package, else with pkg-config, else by hand.
#
#   scripts/build-examples.sh PREFIX OUTPUT_DIR [cmake|pkg-config|hand]
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

prefix=$(realpath -m "${1:?usage: build-examples.sh PREFIX OUTPUT_DIR [cmake|pkg-config|hand]}")
output=$(realpath -m "${2:?usage: build-examples.sh PREFIX OUTPUT_DIR [cmake|pkg-config|hand]}")
how=${3:-}
if [ -z "$how" ]; then
    if have cmake; then how=cmake; elif have pkg-config; then how=pkg-config; else how=hand; fi
fi
mkdir -p "$output"
echo "building the C examples ($how)"

case $how in
cmake)
    bounded 120 cmake -S examples/c -B "$output" "-DCMAKE_PREFIX_PATH=$prefix" >/dev/null
    bounded 300 cmake --build "$output"
    ;;
pkg-config)
    export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
    read -ra flags <<<"$(pkg-config --cflags --libs fmi)"
    for example in hello kmeans; do
        "${CC:-cc}" -std=c11 -O2 -Wall -Wextra -Wpedantic "examples/c/$example.c" -o "$output/$example" \
            "${flags[@]}" "-Wl,-rpath,$(pkg-config --variable=libdir fmi)"
    done
    ;;
hand)
    for example in hello kmeans; do
        compile_c "examples/c/$example.c" "$output/$example" "$prefix"
    done
    ;;
*)
    echo "not cmake, pkg-config or hand: $how" >&2
    exit 2
    ;;
esac
