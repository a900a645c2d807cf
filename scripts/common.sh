# Sourced by the other scripts, which stand in the project's root afterwards.
# Says where things are, and how to bound what may hang.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
ROOT=$PWD

# Wherever cargo builds, also when the user's configuration moved it.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
RELEASE=$CARGO_TARGET_DIR/release
# The other scripts use these.
export ROOT RELEASE

have() { command -v "$1" >/dev/null 2>&1; }

# heading TEXT: what comes next, findable in a long log.
heading() { printf '\n== %s\n' "$*"; }

# bounded SECONDS COMMAND...: a hang is a failure, not a wait.
bounded() {
    local seconds=$1 status=0
    shift
    timeout --kill-after=10 "$seconds" "$@" || status=$?
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        echo "$0: not done after $seconds s: $*" >&2
    fi
    return "$status"
}

# build_release: the library in all its forms, and the fmi command.
build_release() {
    bounded 1200 cargo build --release --locked --lib --bins
    # build.rs makes this link, but does not run again when only the link is gone.
    local soname
    soname=$(soname)
    [ -e "$RELEASE/$soname" ] || ln -sf libfmi.so "$RELEASE/$soname"
}

version() { sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1; }

# soname: libfmi.so.0.<minor> while the major version is 0 (see build.rs).
soname() { echo "libfmi.so.$(version | cut -d. -f1,2)"; }

# compile_c SOURCE PROGRAM PREFIX: a C program against the FMI installed in
# PREFIX, without the help of cmake or pkg-config.
compile_c() {
    "${CC:-cc}" -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror "-I$3/include" "$1" -o "$2" \
        "-L$3/lib" -lfmi "-Wl,-rpath,$(realpath "$3")/lib"
}
