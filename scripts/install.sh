#!/usr/bin/env bash
# Builds FMI and installs it: through CMake where that is there, else by hand
# into the same layout, short of the CMake package that only CMake would read.
#
#   scripts/install.sh PREFIX        honours DESTDIR
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

prefix=$(realpath -m "${1:?usage: install.sh PREFIX}")

# `sudo make install` after `make` may find no cargo, and needs none.
if have cargo; then
    build_release
elif [ ! -e "$RELEASE/libfmi.so" ]; then
    echo "nothing is built yet, and cargo is missing" >&2
    exit 1
fi

# fmi_pc: the description that CMake makes of the same file, for lib and include.
fmi_pc() {
    sed -e 's|@fmi_pc_prefix@|../..|' -e "s|@fmi_pc_LIBDIR@|\${prefix}/lib|" \
        -e "s|@fmi_pc_INCLUDEDIR@|\${prefix}/include|" -e "s|@PROJECT_VERSION@|$(version)|" \
        -e "s|@fmi_pc_native_libs@|$(sed 's/[^ ][^ ]*/-l&/g' cmake/native-static-libs.txt)|" cmake/fmi.pc.in
}

# without_debug FILE...
without_debug() {
    if have strip; then
        strip --strip-debug "$@"
    fi
}

destination=${DESTDIR:-}$prefix
if have cmake; then
    bounded 120 cmake -S . -B build/cmake -DCMAKE_BUILD_TYPE=Release "-DCMAKE_INSTALL_PREFIX=$prefix" \
        -DCMAKE_INSTALL_LIBDIR=lib "-DFMI_CARGO_ARTIFACT_DIR=$RELEASE" >/dev/null
    bounded 120 cmake --install build/cmake --strip >/dev/null
else
    library=libfmi.so.$(version)
    mkdir -p "$destination/lib/pkgconfig" "$destination/include/fmi"
    install -m 755 "$RELEASE/libfmi.so" "$destination/lib/$library"
    ln -sf "$library" "$destination/lib/$(soname)"
    ln -sf "$(soname)" "$destination/lib/libfmi.so"
    install -m 644 "$RELEASE/libfmi.a" "$destination/lib/libfmi.a"
    without_debug "$destination/lib/$library" "$destination/lib/libfmi.a"
    cp -R include/. "$destination/include/fmi/"
    install -m 644 cmake/include/fmi.h "$destination/include/fmi.h"
    fmi_pc >"$destination/lib/pkgconfig/fmi.pc"
fi
mkdir -p "$destination/bin"
install -m 755 "$RELEASE/fmi" "$destination/bin/fmi"
without_debug "$destination/bin/fmi"
echo "FMI $(version) is installed in $destination"
