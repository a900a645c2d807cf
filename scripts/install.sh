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

destination=${DESTDIR:-}$prefix
if have cmake; then
    bounded 120 cmake -S . -B build/cmake -DCMAKE_BUILD_TYPE=Release "-DCMAKE_INSTALL_PREFIX=$prefix" \
        -DCMAKE_INSTALL_LIBDIR=lib "-DFMI_CARGO_ARTIFACT_DIR=$RELEASE" -DBUILD_TESTING=OFF >/dev/null
    bounded 300 cmake --build build/cmake >/dev/null
    bounded 120 cmake --install build/cmake >/dev/null
else
    library=$(soname)
    mkdir -p "$destination/lib/pkgconfig" "$destination/include/fmi"
    install -m 755 "$RELEASE/libfmi.so" "$destination/lib/$library"
    ln -sf "$library" "$destination/lib/libfmi.so"
    install -m 644 "$RELEASE/libfmi.a" "$destination/lib/libfmi.a"
    cp -R include/. "$destination/include/fmi/"
    echo '#include "fmi/fmi.h"' >"$destination/include/fmi.h"
    # Relocatable: everything is found from where the file itself lies.
    cat >"$destination/lib/pkgconfig/fmi.pc" <<EOF
prefix=\${pcfiledir}/../..
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: fmi
Description: FaaS Message Interface: MPI-style message passing for serverless functions
Version: $(version)
Libs: -L\${libdir} -lfmi
Libs.private: $(sed 's/[^ ][^ ]*/-l&/g' cmake/native-static-libs.txt)
Cflags: -I\${includedir}
EOF
fi
mkdir -p "$destination/bin"
install -m 755 "$RELEASE/fmi" "$destination/bin/fmi"
echo "FMI $(version) is installed in $destination"
