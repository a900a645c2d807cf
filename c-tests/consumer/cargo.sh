#!/bin/sh
# CMake runs cargo: the whole build of a project that contains FMI, twice, after a change, after a clean;
# by make, and by Ninja with one configuration and with several. What cargo has made is kept from run to
# run, for its dependencies take time.
. "$(dirname "$0")/support.sh"

export CARGO_PROFILE_DEV_DEBUG=false
# Where somebody's other projects are built.
export CARGO_TARGET_DIR="$work/elsewhere"
project="$work/a project"
kept="$work/kept cargo"
rm -rf "$project" "$work"/build-*
mkdir -p "$project/original/path_to_repo" "$kept"
cp "$here/program.cpp" "$project"
cp "$here/original/CMakeLists.txt" "$project/original"
fmi="$project/original/path_to_repo/FMI"
copy_source "$fmi"
snapshot "$project" >"$work/before"
touch "$work/mark"

# configure_with_cargo BUILD ARGUMENT...: unoptimized, and without the heavy parts.
configure_with_cargo() {
    mkdir -p "$1/path_to_repo/FMI"
    ln -sfn "$kept" "$1/path_to_repo/FMI/cargo"
    build=$1
    shift
    configure "$project/original" "$build" -DFMI_CARGO_PROFILE=dev -DFMI_FEATURES=capi "$@"
}

# relinked PROGRAM: since the mark was set.
relinked() { [ -n "$(find "$1" -newer "$work/mark")" ]; }

unwritten() { snapshot "$project" | diff "$work/before" - || fail "the source tree was written to"; }

for generator in "Unix Makefiles" Ninja "Ninja Multi-Config"; do
    build="$work/build-$generator"
    program="$build/original"
    case $generator in
    Ninja*) command -v ninja >/dev/null || continue ;;
    esac
    case $generator in
    *Multi*)
        # Of CMake 3.17.
        "$CMAKE" --help | grep -q 'Ninja Multi-Config' || continue
        program="$build/Debug/original"
        ;;
    esac
    configure_with_cargo "$build" -G "$generator"
    build "$build"
    runs_static "$program"
    runs_shared "$(dirname "$program")/by_shared"

    sleep 0.1
    touch "$work/mark"
    build "$build"
    if relinked "$program"; then
        fail "$generator: a second build was not idle"
    fi
    unwritten
    touch "$fmi/src/lib.rs"
    snapshot "$project" >"$work/before"
    build "$build"
    relinked "$program" || fail "$generator: a change of the sources did not come through"
    runs_static "$program"

    rm "$build/path_to_repo/FMI/lib/$soname"
    build "$build"
    runs_shared "$(dirname "$program")/by_shared"
    build "$build" --target clean
    build "$build"
    runs_static "$program"
    runs_shared "$(dirname "$program")/by_shared"
done
unwritten
[ ! -e "$CARGO_TARGET_DIR" ] || fail "the build went to CARGO_TARGET_DIR"
# FMI_FEATURES reached cargo.
if find "$kept" -name 'libclap*' | grep -q .; then
    fail "FMI_FEATURES=capi built the command line too"
fi

# What is wrong is said.
refused 'needs cargo to build' "$CMAKE" -S "$FMI_SOURCE_DIR" -B "$work/build-without-cargo" -DFMI_CARGO=
configure_with_cargo "$work/build-unknown" -DFMI_FEATURES=telepathy
refused 'telepathy' "$CMAKE" --build "$work/build-unknown"
configure_with_cargo "$work/build-flags" '-DFMI_CARGO_FLAGS=--quiet;--no-such-flag'
refused 'no-such-flag' "$CMAKE" --build "$work/build-flags"
configure_with_cargo "$work/build-cross" -DFMI_CARGO_TARGET=no-such-target
refused 'no-such-target' "$CMAKE" --build "$work/build-cross"
