#!/bin/sh
# `make install` with CMake, and where CMake is missing: the same tree but for the CMake package. The build
# that it begins with makes the link by SONAME in cargo's directory if that was deleted.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work/target/release" "$work/tools"
# What cargo has made in its directory: there is nothing more to do for it.
cp "$FMI_ARTIFACT_DIR/libfmi.so" "$FMI_ARTIFACT_DIR/libfmi.a" "$work/target/release"
cp "${FMI_LAUNCHER:-/bin/sh}" "$work/target/release/fmi"
export CARGO_TARGET_DIR="$work/target"
for tool in sh bash dirname realpath head cut sed mkdir cp ln install timeout strip; do
    ln -s "$(command -v $tool)" "$work/tools/$tool"
done
printf '#!/bin/sh\n' >"$work/tools/cargo"
chmod +x "$work/tools/cargo"
# A copy, because it keeps CMake's files in build/.
copy_source "$work/source"

DESTDIR="$work/by hand" PATH="$work/tools" quietly bash "$work/source/scripts/install.sh" /opt/fmi
ln -s "$CMAKE" "$work/tools/cmake"
for tool in cc ld as make uname; do
    ln -s "$(command -v $tool)" "$work/tools/$tool"
done
DESTDIR="$work/by cmake" PATH="$work/tools" quietly bash "$work/source/scripts/install.sh" /opt/fmi

[ -h "$work/target/release/$soname" ] ||
    fail "the link by SONAME is not made again"
[ -e "$work/by cmake/opt/fmi/lib/cmake/fmi/fmi-config.cmake" ] || fail "it has not used CMake"
rm -r "$work/by cmake/opt/fmi/lib/cmake"
diff -r --no-dereference "$work/by hand" "$work/by cmake" || fail "without CMake it is another tree"
# Both leave nothing for a debugger.
for file in lib/libfmi.so lib/libfmi.a bin/fmi; do
    if readelf -SW "$work/by hand/opt/fmi/$file" | grep -q '\.debug_info'; then
        fail "$file has debug information"
    fi
done
c "$here/program.c" -o "$work/program" -I"$work/by hand/opt/fmi/include" -L"$work/by hand/opt/fmi/lib" -lfmi
LD_LIBRARY_PATH="$work/by hand/opt/fmi/lib" runs_shared "$work/program"
