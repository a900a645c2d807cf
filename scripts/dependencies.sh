#!/usr/bin/env bash
# Checks that the tools which a task needs are there, and installs what is
# missing where that is possible.
#
#   scripts/dependencies.sh build   what `make demo` needs; installs nothing
#   scripts/dependencies.sh test    what `make test` needs; installs through apt
#
# Installing needs root and apt-get. Where it may not, it says what to install
# and fails; not so for what the NAT tests need, which are skipped without.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"

task=${1:?usage: dependencies.sh build|test}

if ! have cargo; then
    echo "cargo is missing. Install Rust with rustup, see https://rustup.rs" >&2
    exit 1
fi
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1)" != "$needed" ]; then
    echo "Rust $needed or newer is needed, this is $found. Update it: rustup update stable" >&2
    exit 1
fi

# tool:package
tools=(cc:gcc timeout:coreutils)
[ "$task" = build ] || tools+=(c++:g++ cmake:cmake make:make nm:binutils pkg-config:pkg-config python3:python3 valgrind:valgrind)
# Only root can use these.
lab=(ip:iproute2 nft:nftables)

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    bounded 300 apt-get update -qq &&
        bounded 600 apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# missing_packages TOOL:PACKAGE...
missing_packages() {
    local entry
    for entry in "$@"; do
        have "${entry%%:*}" || echo "${entry##*:}"
    done
}

if [ "$task" = test ] && [ "$(id -u)" -eq 0 ] && have apt-get; then
    mapfile -t packages < <(missing_packages "${lab[@]}")
    if [ ${#packages[@]} -gt 0 ]; then
        echo "installing: ${packages[*]}"
        install_packages "${packages[@]}" || echo "the NAT tests will be skipped" >&2
    fi
fi

mapfile -t packages < <(missing_packages "${tools[@]}")
[ ${#packages[@]} -gt 0 ] || exit 0

if [ "$task" = test ] && [ "$(id -u)" -eq 0 ] && have apt-get; then
    echo "installing: ${packages[*]}"
    install_packages "${packages[@]}"
    mapfile -t packages < <(missing_packages "${tools[@]}")
    [ ${#packages[@]} -gt 0 ] || exit 0
fi

{
    echo "These tools are missing. On Debian or Ubuntu, as root:"
    echo "    apt-get update && apt-get install ${packages[*]}"
} >&2
exit 1
