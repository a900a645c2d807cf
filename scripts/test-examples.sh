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

cxx_builds() {
    bounded 120 cmake -S examples/cxx -B "$out/cxx" "-DFMI_CARGO_ARTIFACT_DIR=$RELEASE" -DCMAKE_CXX_FLAGS=-Werror &&
        bounded 300 cmake --build "$out/cxx"
}

# getting_started_on RANKS [CONFIG]: every line of every rank.
getting_started_on() {
    local ranks=$1 sum=0 rank
    run "$ranks" "$out/cxx/getting_started" "${@:2}" >"$out/started" &&
        grep -q "the token has seen $ranks of $ranks ranks" "$out/started" || return 1
    for ((rank = 0; rank < ranks; rank++)); do
        sum=$((sum + rank + 1))
        grep -q "rank $rank has the weight 2.5" "$out/started" &&
            grep -q "up to rank $rank the numbers add up to $sum\$" "$out/started" || return 1
    done
    grep -q "the last number is $ranks, all add up to $sum\$" "$out/started"
}

# Two ranks that are told their numbers; where the server is stands in their fmi.json.
getting_started_by_its_file() {
    local server first port='' status=0
    "$fmi" serve --listen 127.0.0.1:0 >"$out/server" 2>&1 &
    server=$!
    for _ in {1..100}; do
        port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$out/server")
        [ -z "$port" ] || break
        sleep 0.05
    done
    sed "s/\"10000\"/\"$port\"/" examples/cxx/fmi.json >"$out/fmi.json"
    FMI_RANK=0 FMI_SIZE=2 bounded 30 "$out/cxx/getting_started" "$out/fmi.json" >"$out/started" 2>&1 &
    first=$!
    FMI_RANK=1 FMI_SIZE=2 bounded 30 "$out/cxx/getting_started" "$out/fmi.json" || status=1
    wait "$first" || status=1
    kill "$server"
    wait "$server" || true
    cat "$out/started" "$out/server"
    [ "$status" -eq 0 ] && grep -q 'the last number is 2, all add up to 3$' "$out/started"
}

getting_started_says_who_is_missing() {
    FMI_RANK=0 FMI_SIZE=2 FMI_TIMEOUT_MS=500 fails bounded 30 "$out/cxx/getting_started" >"$out/started" 2>&1 &&
        grep -q '^getting_started: .*rendezvous' "$out/started"
}

# The program itself compares with its serial run; the samples are the same everywhere.
regression_on() {
    run "$1" "$out/cxx/logistic_regression" >"$out/regression" &&
        grep -q 'accuracy: 0.9770 (9777 of 10007), as of the serial run' "$out/regression" &&
        grep -qE 'communication: [0-9.]+ ms in 100 allreduces' "$out/regression"
}

readme_shows_hello() {
    diff <(awk '/^```/ { inside = $0 == "```c"; next } inside' README.md) <(sed -n '/^#include/,$p' examples/c/hello.c)
}

# A test of linking builds the project that has them.
page_shows_the_three_lines() {
    local lines
    lines=$(awk '/^```/ { inside = $0 == "```cmake"; next } inside' docs/from-the-original.md)
    [ "$(grep -cxF "$lines" c-tests/consumer/original/CMakeLists.txt)" -eq 3 ]
}

check "README shows hello.c" readme_shows_hello
check "the page about the original shows its three lines" page_shows_the_three_lines
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
if have cmake && have c++; then
    check "C++ examples build by the original's three lines" cxx_builds
    for ranks in 1 4; do
        check "getting_started on $ranks rank(s)" getting_started_on "$ranks"
        check "logistic_regression on $ranks rank(s): as its serial run" regression_on "$ranks"
    done
    check "getting_started with an fmi.json" getting_started_on 2 examples/cxx/fmi.json
    check "getting_started by the server that its fmi.json names" getting_started_by_its_file
    check "getting_started without a server says so" getting_started_says_who_is_missing
else
    skip "C++ examples" "cmake or c++ is not installed"
fi

echo "examples: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
