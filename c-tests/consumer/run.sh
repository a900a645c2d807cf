#!/bin/sh
# Installs FMI, moves the tree, and uses it in every way: find_package, add_subdirectory, pkg-config, by
# hand; shared and static.
#
#   consumer/run.sh FMI_BUILD_DIR WORK_DIR, with CMAKE, CC, CXX, FMI_SOURCE_DIR and FMI_ARTIFACT_DIR set
set -eu

here=$(cd "$(dirname "$0")" && pwd)
fmi_build=$1
work=$2
warnings="-Wall -Wextra -Wpedantic -Werror"

fail() {
    echo "consumer: $*" >&2
    exit 1
}

runs() {
    "$@" | grep '^FMI 0\.[0-9]*\.[0-9]*: 42$' >/dev/null || fail "$* did not print its line"
}

needs_library() {
    ldd "$1" | grep -q 'libfmi\.so\.0\.' || fail "$1 does not need libfmi.so"
}

needs_no_library() {
    if ldd "$1" | grep -q libfmi; then
        fail "$1 needs libfmi.so, though it is linked statically"
    fi
}

rm -rf "$work"
mkdir -p "$work"

before=$(cd "$FMI_SOURCE_DIR" && git status --porcelain --ignored 2>/dev/null || true)

"$CMAKE" --install "$fmi_build" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/moved here"
tree="$work/moved here"
libdir=$(dirname "$(find "$tree" -name libfmi.a)")
if grep -rl "$work/first" "$tree"/*/cmake "$tree"/*/pkgconfig "$tree"/*/*/cmake "$tree"/*/*/pkgconfig 2>/dev/null; then
    fail "a file of the install tree knows where it was installed"
fi
expected="include/fmi.h include/fmi/fmi.h"
[ "$(cd "$tree" && find include -name '*.h' | sort | tr '\n' ' ')" = "$expected " ] ||
    fail "the include tree is not $expected"

for spelling in FMI fmi; do
    for shared in ON OFF; do
        build="$work/find_package-$spelling-$shared"
        "$CMAKE" -S "$here" -B "$build" -DCMAKE_PREFIX_PATH="$tree" -DFMI_SPELLING=$spelling \
            -DBUILD_SHARED_LIBS=$shared -DCMAKE_C_FLAGS="$warnings" >/dev/null
        "$CMAKE" --build "$build" >/dev/null
        for program in by_shared by_static by_choice by_original_name; do
            runs "$build/$program"
        done
        needs_library "$build/by_shared"
        needs_no_library "$build/by_static"
        needs_no_library "$build/by_original_name"
        if [ $shared = ON ]; then
            needs_library "$build/by_choice"
        else
            needs_no_library "$build/by_choice"
        fi
    done
done

# Another minor version is another ABI while the major one is 0.
mkdir -p "$work/wrong"
printf 'cmake_minimum_required(VERSION 3.16)\nproject(wrong LANGUAGES C)\nfind_package(fmi 0.0 REQUIRED)\n' \
    >"$work/wrong/CMakeLists.txt"
if "$CMAKE" -S "$work/wrong" -B "$work/wrong/build" -DCMAKE_PREFIX_PATH="$tree" >/dev/null 2>&1; then
    fail "find_package(fmi 0.0) took this version"
fi

build="$work/add_subdirectory"
"$CMAKE" -S "$here" -B "$build" -DFMI_SUBDIRECTORY="$FMI_SOURCE_DIR" \
    -DFMI_CARGO_ARTIFACT_DIR="$FMI_ARTIFACT_DIR" >/dev/null
"$CMAKE" --build "$build" >/dev/null
for program in by_shared by_static by_choice by_original_name; do
    runs "$build/$program"
done
needs_library "$build/by_shared"

export PKG_CONFIG_PATH="$libdir/pkgconfig"
[ "$(pkg-config --modversion fmi)" ] || fail "pkg-config does not know fmi"
eval "$CC" $warnings "'$here/program.c'" -o "'$work/pc_shared'" "$(pkg-config --cflags --libs fmi)"
LD_LIBRARY_PATH="$libdir" runs "$work/pc_shared"
LD_LIBRARY_PATH="$libdir" needs_library "$work/pc_shared"
eval "$CC" "'$here/program.c'" -o "'$work/pc_static'" "$(pkg-config --cflags fmi)" -Wl,-Bstatic \
    "$(pkg-config --libs fmi)" -Wl,-Bdynamic "$(pkg-config --static --libs-only-l fmi | sed 's/-lfmi//')"
runs "$work/pc_static"
needs_no_library "$work/pc_static"

"$CC" $warnings -I"$tree/include" "$here/program.c" -o "$work/hand_shared" -L"$libdir" -lfmi -Wl,-rpath,"$libdir"
runs "$work/hand_shared"
needs_library "$work/hand_shared"
"$CC" $warnings -I"$tree/include/fmi" "$here/program.c" -o "$work/hand_static" "$libdir/libfmi.a" \
    $(sed 's/[^ ]*/-l&/g' "$FMI_SOURCE_DIR/cmake/native-static-libs.txt")
runs "$work/hand_static"
needs_no_library "$work/hand_static"

# Straight from cargo's directory, as a plain cargo build leaves it.
"$CC" $warnings -I"$FMI_SOURCE_DIR/include" "$here/program.c" -o "$work/cargo_shared" -L"$FMI_ARTIFACT_DIR" -lfmi
LD_LIBRARY_PATH="$FMI_ARTIFACT_DIR" runs "$work/cargo_shared"

after=$(cd "$FMI_SOURCE_DIR" && git status --porcelain --ignored 2>/dev/null || true)
[ "$before" = "$after" ] || fail "the source tree was written to: $after"
echo "consumers: all work"
