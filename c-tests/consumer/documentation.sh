#!/bin/sh
# The blocks of docs/linking.md, as they stand: each makes ./program of program.c.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work/blocks" "$work/path_to_repo"
cp "$here/program.c" "$here/program.cpp" "$work"
copy_source "$work/path_to_repo/FMI"
# The page says lib, wherever this system keeps its libraries.
export PREFIX="$work/prefix"
configure "$FMI_SOURCE_DIR" "$work/fmi" -DFMI_CARGO_ARTIFACT_DIR="$FMI_ARTIFACT_DIR" -DCMAKE_INSTALL_LIBDIR=lib
quietly "$CMAKE" --install "$work/fmi" --prefix "$PREFIX"
cd "$work"

# One file for each block, by its language.
awk '/^```(sh|cmake)$/ { n++; file = sprintf("blocks/%02d.%s", n, substr($0, 4)); next }
     /^```/ { file = "" }
     file { print > file }' "$FMI_SOURCE_DIR/docs/linking.md"

count=0
for block in blocks/*; do
    rm -rf program build CMakeLists.txt
    case $block in
    *.sh)
        quietly sh -eu "$block"
        runs ./program
        ;;
    *.cmake)
        {
            echo 'cmake_minimum_required(VERSION 3.16)'
            echo 'project(program CXX)'
            echo 'set(CMAKE_CXX_STANDARD 17)'
            echo 'add_executable(program program.cpp)'
            cat "$block"
        } >CMakeLists.txt
        configure . build -DCMAKE_PREFIX_PATH="$PREFIX" -DFMI_CARGO_ARTIFACT_DIR="$FMI_ARTIFACT_DIR"
        build build
        runs build/program
        ;;
    esac
    count=$((count + 1))
done
[ "$count" -ge 8 ] || fail "only $count blocks in docs/linking.md"
