//! The shared library's name and linker options; no code is generated.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");

    // While the major version is 0, every minor version is another ABI.
    let soname = format!("libfmi.so.{}.{}", version("MAJOR"), version("MINOR"));
    for argument in [
        format!("-Wl,-soname,{soname}"),
        // The library registers fork and thread-exit handlers: after a dlclose
        // they would point nowhere.
        "-Wl,-z,nodelete".to_owned(),
        // Some dependencies export C functions of their own, which are not ours
        // to export.
        "-Wl,--exclude-libs,ALL".to_owned(),
    ] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }

    link_by_soname(&soname);
}

fn version(part: &str) -> String {
    env::var(format!("CARGO_PKG_VERSION_{part}")).expect("cargo sets the version")
}

/// Programs that were linked with libfmi.so look for it by its SONAME: with
/// that link beside it, a plain build tree works. Where the tree is laid out
/// otherwise there is no such place, and CMake and make do it.
fn link_by_soname(soname: &str) {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // <profile>/build/fmi-<hash>/out
    let Some(profile_dir) = out_dir.ancestors().nth(3) else { return };
    if out_dir.ancestors().nth(2).is_none_or(|dir| !dir.ends_with("build")) {
        return;
    }
    let link = profile_dir.join(soname);
    let _ = fs::remove_file(&link);
    let _ = symlink("libfmi.so", &link);
}
