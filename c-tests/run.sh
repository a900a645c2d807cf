#!/bin/sh
# Builds and runs the tests of the C API against a library that cargo has built.
#
#   c-tests/run.sh BUILD_DIR [ARTIFACT_DIR [FMI_COMMAND]]
#
# ARTIFACT_DIR holds libfmi.so and libfmi.a (default: target/release). FMI_COMMAND is the fmi command for
# the ranks that are processes (default: ARTIFACT_DIR/fmi). What is missing is an error, unless FMI_COMMAND
# is "none"; only what few machines have (cargo-c) is skipped, and said so.
set -eu

source_dir=$(cd "$(dirname "$0")/.." && pwd)
build_dir=${1:?usage: c-tests/run.sh BUILD_DIR [ARTIFACT_DIR [FMI_COMMAND]]}
artifact_dir=${2:-$source_dir/target/release}
artifact_dir=$(cd "$artifact_dir" && pwd)
launcher=${3:-$artifact_dir/fmi}

fail() {
    echo "c-tests/run.sh: $*" >&2
    exit 1
}

for tool in cmake ctest pkg-config valgrind cc c++; do
    command -v "$tool" >/dev/null ||
        fail "there is no $tool: install cmake, pkg-config, valgrind and g++"
done
for library in libfmi.so libfmi.a; do
    [ -e "$artifact_dir/$library" ] || fail "there is no $artifact_dir/$library: run cargo build --lib"
done
if [ "$launcher" = none ]; then
    echo "c-tests/run.sh: NOT RUN, as asked: tests that need the fmi command (ranks that are processes, fork, signals, exits)"
    launcher=
else
    [ -x "$launcher" ] || fail "there is no $launcher: run cargo build, or say none"
fi

generator=
if command -v ninja >/dev/null; then
    generator=-GNinja
fi
cmake -S "$source_dir" -B "$build_dir" $generator -DCMAKE_BUILD_TYPE=Release -DFMI_BUILD_TESTS=ON \
    -DFMI_CARGO_ARTIFACT_DIR="$artifact_dir" -DFMI_LAUNCHER="$launcher"
cmake --build "$build_dir" --parallel
cd "$build_dir"
# Ranks that are threads spin: two tests at once would only take each other's cores.
status=0
ctest --output-on-failure --no-tests=error || status=$?
# CTest shows the output of tests that fail; these did not run.
grep -h '^SKIPPED: ' Testing/Temporary/LastTest.log || true
exit $status
