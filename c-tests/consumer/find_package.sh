#!/bin/sh
# find_package() in both spellings, by every generator, and what it refuses.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work"

# Each project asks again in the other spelling.
for spelling in FMI fmi; do
    shared=$([ $spelling = FMI ] && echo ON || echo OFF)
    build="$work/$spelling"
    configure "$here" "$build" -DCMAKE_PREFIX_PATH="$tree" -DFMI_SPELLING=$spelling \
        -DBUILD_SHARED_LIBS="$shared" -DCMAKE_C_FLAGS="$warnings"
    build "$build"
    runs_all "$build" "$shared"
done

if command -v ninja >/dev/null; then
    configure "$here" "$work/ninja" -GNinja -DCMAKE_PREFIX_PATH="$tree"
    build "$work/ninja"
    runs_all "$work/ninja" OFF
    # Of CMake 3.17.
    if "$CMAKE" --help | grep -q 'Ninja Multi-Config'; then
        configure "$here" "$work/multi" -G'Ninja Multi-Config' -DCMAKE_PREFIX_PATH="$tree"
        for config in Debug Release; do
            build "$work/multi" --config $config
            runs_all "$work/multi" OFF $config
        done
    fi
fi

# asks ARGUMENTS...: a project that says find_package(ARGUMENTS) and no more.
asks() {
    mkdir -p "$work/asks"
    printf 'cmake_minimum_required(VERSION 3.16)\nproject(asks LANGUAGES %s)\nfind_package(%s)\n' \
        "${languages:-C}" "$*" >"$work/asks/CMakeLists.txt"
    rm -rf "$work/asks/build"
    "$CMAKE" -S "$work/asks" -B "$work/asks/build" -DCMAKE_PREFIX_PATH="$tree"
}

for languages in C CXX "C CXX" NONE; do
    quietly asks FMI REQUIRED
done
languages=NONE
for wanted in "${version%.*}" "$version"; do
    quietly asks fmi "$wanted" REQUIRED
done
# Another minor version is another ABI while the major one is 0.
for wanted in 0.0 0.99 1 1.0 "${version%.*}.999"; do
    refused 'compatible with requested version' asks fmi "$wanted" REQUIRED
done
quietly asks FMI REQUIRED COMPONENTS shared static
quietly asks FMI REQUIRED OPTIONAL_COMPONENTS fortran
refused 'fortran' asks FMI REQUIRED COMPONENTS static fortran
