#!/bin/sh
# `cargo cinstall` installs what `cmake --install` does, but for the CMake package. What cargo has made is
# kept from run to run.
. "$(dirname "$0")/support.sh"

PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
command -v cargo-cinstall >/dev/null || skip "cargo-cinstall is not installed (cargo install cargo-c)"
prefix="$work/prefix"
rm -rf "$prefix"
libdir=$(libdir_of "$tree")
libdir=${libdir#"$tree"/}

cd "$FMI_SOURCE_DIR"
CARGO_PROFILE_DEV_DEBUG=false quietly cargo cinstall --locked --profile dev --no-default-features --features capi \
    --target-dir "$work/target" --prefix "$prefix" --libdir "$libdir"

files "$tree" | grep -v "^$libdir/cmake/" >"$work/expected"
files "$prefix" | diff "$work/expected" - || fail "the tree is not that of CMake"
diff -r "$tree/include" "$prefix/include" || fail "the headers are others"
for link in libfmi.so "$soname"; do
    [ -h "$prefix/$libdir/$link" ] || fail "$link is not a link"
done
readelf -dW "$prefix/$libdir/libfmi.so" >"$work/dynamic"
grep -qF "soname: [$soname]" "$work/dynamic" || fail "the SONAME is another"
grep -q NODELETE "$work/dynamic" || fail "build.rs had no say in the shared library"
exported() { nm -D --defined-only "$1" | cut -d' ' -f3 | sort; }
exported "$tree/$libdir/libfmi.so" >"$work/expected"
exported "$prefix/$libdir/libfmi.so" | diff "$work/expected" - || fail "the exports are others"

export PKG_CONFIG_PATH="$prefix/$libdir/pkgconfig"
# shellcheck disable=SC2046
c "$here/program.c" -o "$work/shared" $(pkg-config --cflags --libs fmi) -Wl,-rpath,"$prefix/$libdir"
runs_shared "$work/shared"
# shellcheck disable=SC2046
c "$here/program.c" -o "$work/static" $(pkg-config --cflags fmi) \
    "$prefix/$libdir/libfmi.a" $(pkg-config --static --libs-only-l fmi | sed 's/-lfmi//')
runs_static "$work/static"
