# Sourced by the scripts beside it, each of which links FMI in one way, as a project of somebody else's
# would. c-tests/CMakeLists.txt runs them, with these set:
#
#   CMAKE, CC, CXX     the tools
#   FMI_SOURCE_DIR     FMI's source tree
#   FMI_BUILD_DIR      a configured build tree of it
#   FMI_ARTIFACT_DIR   libfmi.so and libfmi.a, as cargo left them there
#   FMI_LAUNCHER       the fmi command, or empty
#   FMI_CONSUMERS      a directory to work in
# shellcheck shell=sh disable=SC2034
set -eu

name=$(basename "$0" .sh)
here=$(cd "$(dirname "$0")" && pwd)
work="$FMI_CONSUMERS/$name"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$FMI_SOURCE_DIR/Cargo.toml" | head -n 1)
soname="libfmi.so.$(echo "$version" | cut -d. -f1,2)"
# Where install.sh has moved what it had installed: the others use it.
tree="$FMI_CONSUMERS/moved here"
warnings="-Wall -Wextra -Wpedantic -Werror"

fail() {
    echo "consumer $name: $*" >&2
    exit 1
}

# skip REASON: for want of a tool; run.sh shows the line, and it is counted.
skip() {
    echo "SKIPPED: consumer $name: $*"
    exit 0
}

# quietly COMMAND...: shows the output of what fails.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        fail "failed: $*"
    }
}

# refused TEXT COMMAND...: the command must fail, and say TEXT.
refused() {
    text=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        fail "did not fail: $*"
    fi
    # CMake breaks the lines of its messages.
    tr -s ' \n' ' ' <"$work/log" | grep -qF "$text" || {
        cat "$work/log" >&2
        fail "did not say \"$text\": $*"
    }
}

# configure SOURCE BUILD ARGUMENT..., and build.
configure() {
    source=$1 build=$2
    shift 2
    quietly "$CMAKE" -S "$source" -B "$build" "$@"
}

build() { quietly "$CMAKE" --build "$@"; }

runs() {
    "$@" | grep '^FMI 0\.[0-9]*\.[0-9]*: 42$' >/dev/null || fail "$* did not print its line"
}

runs_shared() {
    runs "$1"
    ldd "$1" | grep -q 'libfmi\.so\.0\.' || fail "$1 does not need libfmi.so"
}

runs_static() {
    runs "$1"
    if ldd "$1" | grep -q libfmi; then
        fail "$1 needs libfmi.so, though it is linked statically"
    fi
}

# The programs of CMakeLists.txt. runs_all BUILD SHARED [CONFIG]
runs_all() {
    runs_shared "$1/${3:-.}/by_shared"
    runs_static "$1/${3:-.}/by_static"
    runs_static "$1/${3:-.}/by_original_name"
    if [ "$2" = ON ]; then
        runs_shared "$1/${3:-.}/by_choice"
    else
        runs_static "$1/${3:-.}/by_choice"
    fi
}

# What these compile has no warnings.
# shellcheck disable=SC2086
c() { quietly "$CC" -std=c11 $warnings "$@"; }
# shellcheck disable=SC2086
cxx() { quietly "$CXX" -std=c++17 $warnings "$@"; }

# libdir_of PREFIX
libdir_of() { dirname "$(find "$1" -name libfmi.a)"; }

# The linker arguments for libfmi.a, as shipped.
native_libraries() { sed 's/[^ ][^ ]*/-l&/g' "$FMI_SOURCE_DIR/cmake/native-static-libs.txt"; }

# files DIRECTORY: what is in it, sorted.
files() { (cd "$1" && find . ! -type d | sed 's|^\./||' | sort); }

# snapshot DIRECTORY: what would tell that it was written to.
snapshot() { (cd "$1" && find . -printf '%p %y %s %T@\n' | sort); }

# copy_source DIRECTORY: FMI's sources, with their times, without what was built of them.
copy_source() {
    mkdir -p "$1"
    tar -C "$FMI_SOURCE_DIR" --exclude=./target --exclude=./build --exclude=./.git -cf - . | tar -C "$1" -xf -
}

mkdir -p "$work"
