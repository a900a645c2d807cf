#!/bin/sh
# Every header of include/ alone, twice, before and after <fmi.h>: in the source tree, by "../include/...",
# and installed, under both of its names; in each C++ that it is for, by each compiler that is here. And all
# of them in two sources of one program. Headers that are added are found by themselves.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work/src"
include="$FMI_SOURCE_DIR/include"
# For old code, which stands beside include/.
ln -s "$include" "$work/include"
headers=$(cd "$include" && find . -name '*.h' | sed 's|^\./||' | sort)
compilers=$CXX
for compiler in g++ clang++; do
    if command -v $compiler >/dev/null && [ "$(realpath "$(command -v $compiler)")" != "$(realpath "$CXX")" ]; then
        compilers="$compilers $compiler"
    fi
done

# source_of FILE LINE...
source_of() {
    file="$work/src/$1"
    shift
    printf '%s\n' "$@" >"$file"
}
# One command a line.
: >"$work/commands"
# check COMPILER STANDARD INCLUDE_DIRECTORY SOURCE
check() { printf '%s -std=%s %s -fsyntax-only -I"%s" "%s"\n' "$1" "$2" "$warnings" "$3" "$work/src/$4" >>"$work/commands"; }

all_in_one=
for header in $headers; do
    id=$(echo "$header" | tr '/.' '__')
    source_of "$id-alone.cpp" "#include <$header>"
    source_of "$id-twice.cpp" "#include <$header>" "#include <$header>" "#include <fmi.h>"
    source_of "$id-after.cpp" "#include <fmi.h>" "#include <$header>"
    source_of "$id-relative.cpp" "#include \"../include/$header\"" "#include \"../include/fmi.h\""
    source_of "$id-installed.cpp" "#include <fmi/$header>" "#include <fmi.h>" "#include <fmi/fmi.h>"
    for standard in c++17 c++20; do
        for compiler in $compilers; do
            check "$compiler" $standard "$include" "$id-alone.cpp"
        done
    done
    for compiler in $compilers; do
        check "$compiler" c++17 "$include" "$id-twice.cpp"
        check "$compiler" c++17 "$include" "$id-after.cpp"
    done
    check "$CXX" c++17 "$work" "$id-relative.cpp"
    check "$CXX" c++17 "$tree/include" "$id-installed.cpp"
    check "$CXX" c++17 "$tree/include/fmi" "$id-alone.cpp"
    all_in_one="$all_in_one#include <$header>
"
done

# fmi.h is for C too, and for every C++.
for form in alone twice; do
    cp "$work/src/fmi_h-$form.cpp" "$work/src/fmi_h-$form.c"
    for standard in c11 c17; do
        check "$CC" $standard "$include" "fmi_h-$form.c"
    done
    for standard in c++11 c++14; do
        check "$CXX" $standard "$include" "fmi_h-$form.cpp"
    done
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
    source_of $part.cpp "$all_in_one" "int $part();" "int $part() { return static_cast<int>(fmi_version_number()); }"
done
source_of main.cpp "int first();" "int second();" "int main() { return first() != second(); }"
cxx -I"$include" "$work/src/first.cpp" "$work/src/second.cpp" \
    "$work/src/main.cpp" -o "$work/program" -L"$FMI_ARTIFACT_DIR" -lfmi
LD_LIBRARY_PATH="$FMI_ARTIFACT_DIR" quietly "$work/program"
