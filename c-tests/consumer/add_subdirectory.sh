#!/bin/sh
# add_subdirectory(): as projects of the original say it, and deep inside of another project. The
# libraries are built already; cargo.sh has the build itself.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work"
artifacts="-DFMI_CARGO_ARTIFACT_DIR=$FMI_ARTIFACT_DIR"

for shared in ON OFF; do
    configure "$here" "$work/$shared" -DFMI_SUBDIRECTORY="$FMI_SOURCE_DIR" "$artifacts" -DBUILD_SHARED_LIBS=$shared
    build "$work/$shared"
    runs_all "$work/$shared" $shared
done

# The original's project stands beside a copy of FMI, as its lines say.
mkdir -p "$work/project/original/path_to_repo"
cp "$here/program.cpp" "$work/project"
cp "$here/original/CMakeLists.txt" "$work/project/original"
copy_source "$work/project/original/path_to_repo/FMI"
snapshot "$work/project" >"$work/before"
for standard in 14 17 20; do
    # The target FMI brings C++17 to a project that asked for less.
    least=$([ "$standard" = 20 ] && echo 202002L || echo 201703L)
    build="$work/original-$standard"
    configure "$work/project/original" "$build" -DSTANDARD="$standard" "$artifacts" \
        -DCMAKE_CXX_FLAGS="$warnings" -DLEAST_CXX="$least"
    build "$build"
    runs_static "$build/original"
    runs_shared "$build/by_shared"
done
quietly "$CMAKE" --install "$build" --prefix "$work/prefix"
[ "$(files "$work/prefix")" = bin/original ] || fail "FMI installs itself with another's project"
snapshot "$work/project" | diff "$work/before" - || fail "the source tree was written to"

configure "$here/nested" "$work/nested" -DFMI_SUBDIRECTORY="$FMI_SOURCE_DIR" "$artifacts"
build "$work/nested"
runs_static "$work/nested/nested"
runs_shared "$work/nested/by_shared"
runs_static "$work/nested/outer/inner/inner"

mkdir -p "$work/empty"
refused 'there is no libfmi.so' "$CMAKE" -S "$FMI_SOURCE_DIR" -B "$work/missing" -DFMI_CARGO_ARTIFACT_DIR="$work/empty"
