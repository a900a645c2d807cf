#!/bin/sh
# FetchContent: from a folder of this machine, told by the project or by who configures it, and from git.
. "$(dirname "$0")/support.sh"

rm -rf "$work"
mkdir -p "$work"
artifacts="-DFMI_CARGO_ARTIFACT_DIR=$FMI_ARTIFACT_DIR"

# fetches BUILD ARGUMENT...
fetches() {
    build=$1
    configure "$here/fetch" "$@" "$artifacts"
    build "$build"
    runs_static "$build/fetch"
    runs_shared "$build/by_shared"
}

fetches "$work/folder" -DFMI_FOLDER="$FMI_SOURCE_DIR"
fetches "$work/told" -DFMI_FOLDER=/nonexistent -DFETCHCONTENT_SOURCE_DIR_FMI="$FMI_SOURCE_DIR"

command -v git >/dev/null || skip "from a repository: there is no git"
copy_source "$work/repository"
git() { command git -C "$work/repository" -c user.name=nobody -c user.email=nobody@localhost -c commit.gpgsign=false "$@"; }
quietly git init --quiet --initial-branch=main
quietly git add --all
quietly git commit --quiet --message='FMI'
fetches "$work/git" -DFMI_REPOSITORY="file://$work/repository"
