#!/bin/sh
# Every header of include/ alone. All of them: in either order, twice, before and after <fmi.h>, by
# "../include/...", installed under both of their names, in two sources of one program; in every
# C++ that they are for, by every compiler that is here. Headers that are added are found by themselves.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work/src"
include="$FMI_SOURCE_DIR/include"
# For old code, which stands beside include/.
ln -s "$include" "$work/include"
headers=$(cd "$include" && find . -name '*.h' | sed 's|^\./||' | sort)
others=
for compiler in g++ clang++; do
    if command -v $compiler >/dev/null &&
        [ "$(realpath "$(command -v $compiler)")" != "$(realpath "$(command -v "$CXX")")" ]; then
        others="$others $compiler"
    fi
done

# source_of FILE LINE...
source_of() {
    file="$work/src/$1"
    shift
    printf '%s\n' "$@" >"$file"
}
# includes FORMAT: of all headers, in order.
# shellcheck disable=SC2059,SC2086
includes() { printf "$1\n" $headers; }

# One command a line. check COMPILER STANDARD INCLUDE_DIRECTORY SOURCE
: >"$work/commands"
check() { printf '%s -std=%s %s -fsyntax-only -I"%s" "%s"\n' "$1" "$2" "$warnings" "$3" "$work/src/$4" >>"$work/commands"; }

# Alone by one compiler: a compile takes a second where a header brings the standard library.
for header in $headers; do
    id=$(echo "$header" | tr '/.' '__')
    source_of "$id-alone.cpp" "#include <$header>"
    check "$CXX" c++17 "$include" "$id-alone.cpp"
done

source_of all.cpp "$(includes '#include <%s>')"
source_of reversed.cpp "$(includes '#include <%s>' | sort -r)"
source_of twice.cpp "#include <fmi.h>" "$(includes '#include <%s>')" "$(includes '#include <%s>')" "#include <fmi.h>"
for compiler in "$CXX" $others; do
    for standard in c++17 c++20; do
        check "$compiler" $standard "$include" all.cpp
    done
    check "$compiler" c++17 "$include" reversed.cpp
    check "$compiler" c++17 "$include" twice.cpp
done
source_of relative.cpp "$(includes '#include "../include/%s"')"
check "$CXX" c++17 "$work/src" relative.cpp
source_of installed.cpp "$(includes '#include <fmi/%s>')" "#include <fmi.h>"
check "$CXX" c++17 "$tree/include" installed.cpp
check "$CXX" c++17 "$tree/include/fmi" all.cpp

# fmi.h is for C too, and for every C++.
source_of c.c "#include <fmi.h>" "#include <fmi.h>"
cp "$work/src/c.c" "$work/src/c.cpp"
for standard in c11 c17; do
    check "$CC" $standard "$include" c.c
done
for standard in c++11 c++14; do
    check "$CXX" $standard "$include" c.cpp
done

# shellcheck disable=SC2016
# As many at once as there are processors; what fails is shown, and fails all.
xargs -d '\n' -P "$(getconf _NPROCESSORS_ONLN)" -I{} sh -c 'eval "$1" || { echo "failed: $1"; exit 1; }' sh '{}' \
    <"$work/commands" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    fail "a header is not complete in itself"
}

# What is not inline is there twice.
for part in first second; do
    source_of $part.cpp "$(includes '#include <%s>')" "int $part();" \
        "int $part() { return static_cast<int>(fmi_version_number()); }"
done
source_of main.cpp "int first();" "int second();" "int main() { return first() != second(); }"
cxx -I"$include" "$work/src/first.cpp" "$work/src/second.cpp" \
    "$work/src/main.cpp" -o "$work/program" -L"$FMI_ARTIFACT_DIR" -lfmi
LD_LIBRARY_PATH="$FMI_ARTIFACT_DIR" quietly "$work/program"
