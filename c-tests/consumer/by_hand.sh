#!/bin/sh
# By hand: an installed tree, and cargo's own directory.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work"
libdir=$(libdir_of "$tree")

# compile ARGUMENT...
compile() { c "$here/program.c" "$@"; }

compile -o "$work/shared" -I"$tree/include" -L"$libdir" -lfmi -Wl,-rpath,"$libdir"
runs_shared "$work/shared"
# shellcheck disable=SC2046
compile -o "$work/static" -I"$tree/include/fmi" "$libdir/libfmi.a" $(native_libraries)
runs_static "$work/static"
# Nothing at all from outside: there is no libgcc_s in static form.
# shellcheck disable=SC2046
c -static "$here/program.c" -o "$work/whole" -I"$tree/include" "$libdir/libfmi.a" \
    $(native_libraries | sed 's/-lgcc_s/-lgcc_eh/')
runs "$work/whole"
if readelf -lW "$work/whole" | grep -q INTERP; then
    fail "$work/whole needs a loader"
fi

# Straight from cargo's directory, as a plain build leaves it: the link by SONAME lies there too.
export LD_LIBRARY_PATH="$FMI_ARTIFACT_DIR"
compile -o "$work/cargo_shared" -I"$FMI_SOURCE_DIR/include" -L"$FMI_ARTIFACT_DIR" -lfmi
runs_shared "$work/cargo_shared"
unset LD_LIBRARY_PATH
# shellcheck disable=SC2046
compile -o "$work/cargo_static" -I"$FMI_SOURCE_DIR/include" "$FMI_ARTIFACT_DIR/libfmi.a" $(native_libraries)
runs_static "$work/cargo_static"
