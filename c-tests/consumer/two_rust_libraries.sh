#!/bin/sh
# FMI and another static library written in Rust in one program, in either order; and beside the shared one.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work"
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
command -v rustc >/dev/null || skip "there is no rustc"
libdir=$(libdir_of "$tree")

for optimized in 0 3; do
    quietly rustc --edition=2024 --crate-type=staticlib -C opt-level=$optimized "$here/second.rs" -o "$work/libsecond.a"
    # compile PROGRAM ARGUMENT...
    compile() {
        program="$work/$1-$optimized"
        shift
        # shellcheck disable=SC2046
        c "$here/two_libraries.c" -o "$program" -I"$tree/include" "$@" $(native_libraries)
    }
    compile fmi_first "$libdir/libfmi.a" "$work/libsecond.a"
    runs_static "$program"
    compile fmi_last "$work/libsecond.a" "$libdir/libfmi.a"
    runs_static "$program"
    compile beside_shared "$work/libsecond.a" -L"$libdir" -lfmi -Wl,-rpath,"$libdir"
    runs_shared "$program"
done

# A library of another Rust release has one name that is there twice, as docs/linking.md says: this object
# stands for it.
echo 'int rust_eh_personality(void); int rust_eh_personality(void) { return 0; }' >"$work/other.c"
c -c "$work/other.c" -o "$work/other.o"
# shellcheck disable=SC2046
set -- "$here/program.c" -o "$work/other" -I"$tree/include" "$libdir/libfmi.a" "$work/other.o" $(native_libraries)
refused 'multiple definition of `rust_eh_personality' "$CC" "$@"
c "$@" -Wl,--allow-multiple-definition
runs_static "$work/other"
