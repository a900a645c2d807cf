#!/usr/bin/env bash
# Builds the examples in every way a user may, runs them, and holds their output
# against what it must be. The last line counts.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

passed=0 failed=0 skipped=0
out=build/test-examples
prefix=$ROOT/build/install
fmi=$RELEASE/fmi
rm -rf "$out"
mkdir -p "$out"

# check NAME COMMAND...: the command must succeed; its output is shown if not.
check() {
    local name=$1
    shift
    if "$@" >"$out/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok       $name"
    else
        failed=$((failed + 1))
        echo "FAILED   $name"
        sed 's/^/    /' "$out/log"
    fi
}

skip() {
    skipped=$((skipped + 1))
    echo "SKIPPED  $1: $2"
}

run() { bounded 60 "$fmi" run -n "$1" -- "${@:2}"; }

# Without the rank prefix that the launcher puts before each line.
results() { grep -oE '(iteration|label agreement|centroids).*' "$1"; }

kmeans_on() {
    run "$1" "$out/hand/kmeans" examples/data/digits.csv >"$out/kmeans.$1" && results "$out/kmeans.$1" >"$out/result.$1"
}

# Whole output, the hash of the centroids' bits included.
kmeans_is_as_on_one() {
    [ -s "$out/result.1" ] && kmeans_on "$1" && diff "$out/result.1" "$out/result.$1"
}

kmeans_is_right() {
    # What scikit-learn's KMeans finds from the same first centroids (n_init=1).
    grep -q 'iteration 20: inertia 1167946.089871,' "$out/result.1" &&
        grep -q 'label agreement: 0.788536 (1417 of 1797)' "$out/result.1"
}

kmeans_reports_every_rank() { [ "$(grep -cE 'rank [0-3]: [0-9.]+ ms in FMI' "$out/kmeans.4")" -eq 4 ]; }

fails() { ! "$@"; }

kmeans_names_the_file() {
    fails run 3 "$out/hand/kmeans" /nonexistent.csv >"$out/missing" 2>&1 && grep -q '/nonexistent.csv: No such file' "$out/missing"
}

hello_greets() {
    run 4 "$1/hello" >"$out/hello" &&
        for rank in 0 1 2 3; do
            grep -q "rank $rank of 4: greeted by rank $(((rank + 3) % 4)), the ranks sum to 6" "$out/hello" || return 1
        done
}

readme_shows_hello() {
    diff <(awk '/^```/ { inside = $0 == "```c"; next } inside' README.md) <(sed -n '/^#include/,$p' examples/c/hello.c)
}

check "README shows hello.c" readme_shows_hello
for how in hand pkg-config cmake; do
    if [ "$how" != hand ] && ! have "$how"; then
        skip "examples built by $how" "$how is not installed"
        continue
    fi
    check "examples build by $how" scripts/build-examples.sh "$prefix" "$out/$how" "$how"
    check "hello built by $how" hello_greets "$out/$how"
done
check "kmeans on 1 rank" kmeans_on 1
check "kmeans finds what scikit-learn finds" kmeans_is_right
for ranks in 2 3 4; do
    check "kmeans on $ranks ranks: the same bits as on 1" kmeans_is_as_on_one "$ranks"
done
check "kmeans reports the time of every rank" kmeans_reports_every_rank
check "kmeans without its file fails and names it" kmeans_names_the_file
check "kmeans without points for its clusters fails" fails run 2 "$out/hand/kmeans" examples/data/digits.csv 2000

echo "examples: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
