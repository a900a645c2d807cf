#!/bin/sh
# What `cmake --install` puts where, and that the tree may be moved: the scripts after this one use it
# where it was moved to.
. "$(dirname "$0")/support.sh"

# installed PREFIX LIBDIR INCLUDEDIR: every file of an installed tree is in its place.
installed() {
    for file in libfmi.a libfmi.so "$soname" "libfmi.so.$version" pkgconfig/fmi.pc \
        cmake/fmi/fmi-config.cmake cmake/fmi/fmi-config-version.cmake; do
        [ -e "$1/$2/$file" ] || fail "there is no $2/$file in $1"
    done
    (cd "$FMI_SOURCE_DIR/include" && find . -type f | sed 's|^\./|fmi/|' && echo fmi.h) | sort >"$work/headers"
    files "$1/$3" | diff "$work/headers" - || fail "$1/$3 is not fmi.h and the whole of include/ in fmi/"
}

rm -rf "$work" "$tree"
mkdir -p "$work"

quietly "$CMAKE" --install "$FMI_BUILD_DIR" --prefix "$work/first"
mv "$work/first" "$tree"
libdir=$(libdir_of "$tree")
libdir=${libdir#"$tree"/}
installed "$tree" "$libdir" include
[ "$(files "$tree" | grep -c -v '^include/')" -eq 7 ] || fail "more than the libraries and their description"
if grep -rl "$work/first" "$tree/$libdir/cmake" "$tree/$libdir/pkgconfig"; then
    fail "a file of the install tree knows where it was installed"
fi

# The directories of other systems, a prefix given when it is configured, and DESTDIR.
for libdir in lib lib64 lib/x86_64-linux-gnu; do
    build="$work/build"
    configure "$FMI_SOURCE_DIR" "$build" -DFMI_CARGO_ARTIFACT_DIR="$FMI_ARTIFACT_DIR" \
        -DCMAKE_INSTALL_PREFIX=/opt/fmi -DCMAKE_INSTALL_LIBDIR=$libdir
    DESTDIR="$work/root-$libdir" quietly "$CMAKE" --install "$build"
    installed "$work/root-$libdir/opt/fmi" "$libdir" include
    export PKG_CONFIG_PATH="$work/root-$libdir/opt/fmi/$libdir/pkgconfig"
    [ "$(realpath "$(pkg-config --variable=includedir fmi)")" = "$(realpath "$work/root-$libdir/opt/fmi/include")" ] ||
        fail "fmi.pc in $libdir does not find the headers"
    [ "$(realpath "$(pkg-config --variable=libdir fmi)")" = "$(realpath "$work/root-$libdir/opt/fmi/$libdir")" ] ||
        fail "fmi.pc in $libdir does not find the libraries"
done

# A directory of links to what is built elsewhere.
mkdir -p "$work/links"
ln -s "$FMI_ARTIFACT_DIR/libfmi.so" "$FMI_ARTIFACT_DIR/libfmi.a" "$work/links"
configure "$FMI_SOURCE_DIR" "$work/build" -DFMI_CARGO_ARTIFACT_DIR="$work/links" -DCMAKE_INSTALL_LIBDIR=lib
quietly "$CMAKE" --install "$work/build" --prefix "$work/from-links"
if [ -h "$work/from-links/lib/libfmi.a" ] || [ -h "$work/from-links/lib/libfmi.so.$version" ]; then
    fail "a link is installed, not the library"
fi

# Absolute directories stay as they are.
configure "$FMI_SOURCE_DIR" "$work/build" -DFMI_CARGO_ARTIFACT_DIR="$FMI_ARTIFACT_DIR" \
    -DCMAKE_INSTALL_PREFIX="$work/absolute" \
    -DCMAKE_INSTALL_LIBDIR="$work/absolute/libraries" -DCMAKE_INSTALL_INCLUDEDIR="$work/elsewhere/headers"
quietly "$CMAKE" --install "$work/build"
installed "$work/absolute" libraries ../elsewhere/headers
configure "$here" "$work/uses-absolute" -DCMAKE_PREFIX_PATH="$work/absolute/libraries/cmake"
build "$work/uses-absolute"
runs_all "$work/uses-absolute" OFF
export PKG_CONFIG_PATH="$work/absolute/libraries/pkgconfig"
[ "$(pkg-config --variable=includedir fmi)" = "$work/elsewhere/headers" ] || fail "fmi.pc: absolute includedir"
[ "$(pkg-config --variable=libdir fmi)" = "$work/absolute/libraries" ] || fail "fmi.pc: absolute libdir"

# Stripped as CMake strips: no debug information, and it still links both ways.
quietly "$CMAKE" --install "$FMI_BUILD_DIR" --prefix "$work/stripped" --strip
for library in libfmi.a libfmi.so; do
    if readelf -SW "$(libdir_of "$work/stripped")/$library" | grep -q '\.debug_info'; then
        fail "$library has debug information"
    fi
done
configure "$here" "$work/uses-stripped" -DCMAKE_PREFIX_PATH="$work/stripped"
build "$work/uses-stripped"
runs_all "$work/uses-stripped" OFF
