#!/bin/sh
# pkg-config, on the tree that was moved to a path with a space.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work"
libdir=$(libdir_of "$tree")
export PKG_CONFIG_PATH="$libdir/pkgconfig"

[ "$(pkg-config --modversion fmi)" = "$version" ] || fail "pkg-config says $(pkg-config --modversion fmi)"

# New systems have most of these in libc, and would not miss them.
[ "$(pkg-config --static --libs-only-l fmi | sed 's/ *$//')" = "-lfmi $(native_libraries)" ] || fail "Libs.private"

# pkg-config escapes what it prints for a shell.
eval c "'$here/program.c'" -o "'$work/shared'" "$(pkg-config --cflags --libs fmi)"
export LD_LIBRARY_PATH="$libdir"
runs_shared "$work/shared"
unset LD_LIBRARY_PATH

eval c "'$here/program.c'" -o "'$work/static'" "$(pkg-config --cflags fmi)" \
    -Wl,-Bstatic "$(pkg-config --libs fmi)" -Wl,-Bdynamic \
    "$(pkg-config --static --libs-only-l fmi | sed 's/-lfmi//')"
runs_static "$work/static"

eval cxx "'$here/program.cpp'" -o "'$work/cxx'" "$(pkg-config --cflags --libs fmi)" \
    -Wl,-rpath,"'$libdir'"
runs_shared "$work/cxx"
