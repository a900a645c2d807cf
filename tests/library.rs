//! What the built libraries show to the linker: exported functions, SONAME,
//! the system that they need.
#![cfg(feature = "capi")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Amazon Linux 2023 has this glibc; AWS Lambda's runtimes stand on it.
const NEWEST_GLIBC: (u32, u32) = (2, 34);

/// What libfmi.a shows to the linker besides the functions of the header and mangled names: a program, or
/// another library in it, that defines one of these clashes. docs/linking.md has the list too.
const FOREIGN_NAMES: [&str; 1] = ["rust_eh_personality"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library of this name that cargo made for this very test run.
fn built(name: &str) -> PathBuf {
    let library = env::current_exe().expect("the test's path").with_file_name(name);
    assert!(library.exists(), "{} is missing", library.display());
    library
}

fn shared_library() -> PathBuf {
    built("libfmi.so")
}

/// What a program prints; it must succeed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error} (install binutils)"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn exactly_the_functions_of_the_header_are_exported() {
    let exported: BTreeSet<_> =
        output(Command::new("nm").args(["-D", "--defined-only"]).arg(shared_library()))
            .lines()
            .filter_map(|line| line.split(' ').next_back().map(str::to_owned))
            .collect();
    let header = fs::read_to_string(root().join("include/fmi.h")).expect("include/fmi.h");
    let code: String = header.split("/*").map(|part| part.split("*/").last().unwrap_or_default()).collect();
    let declared: BTreeSet<_> = code
        .match_indices("fmi_")
        .map(|(at, _)| {
            code[at..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
        })
        .filter(|name| code.contains(&format!("{name}(")))
        .map(str::to_owned)
        .collect();
    assert!(declared.contains("fmi_allreduce"));
    assert_eq!(exported, declared);
}

/// In a static library nothing can be hidden; names of dependencies in C, or meant for C, stay.
#[test]
fn the_foreign_names_of_the_static_library_are_known() {
    // nm passes over the objects that hold bitcode too.
    let symbols = output(Command::new("readelf").arg("-sW").arg(built("libfmi.a")));
    let mut foreign = BTreeSet::new();
    let mut functions = 0;
    for symbol in symbols.lines() {
        let fields: Vec<_> = symbol.split_whitespace().collect();
        let [_, _, _, _, "GLOBAL", visibility, section, name] = fields[..] else { continue };
        let mangled = name.starts_with("_R") || name.starts_with("_ZN");
        // The compiler's own: those of libgcc for C, and constants with a hash for Rust.
        let compiler = visibility == "HIDDEN" && (name.starts_with("__") || name.starts_with("anon."));
        if section == "UND" || mangled || compiler {
            continue;
        }
        if name.starts_with("fmi_") {
            functions += 1;
        } else {
            foreign.insert(name);
        }
    }
    assert!(functions > 30, "only {functions} functions of ours");
    assert_eq!(foreign, BTreeSet::from(FOREIGN_NAMES));
    let page = fs::read_to_string(root().join("docs/linking.md")).expect("docs/linking.md");
    for name in FOREIGN_NAMES {
        assert!(page.contains(&format!("`{name}`")), "docs/linking.md does not name {name}");
    }
}

#[test]
fn library_and_command_run_on_old_systems() {
    let command = option_env!("CARGO_BIN_EXE_fmi").map(PathBuf::from);
    for file in [shared_library()].into_iter().chain(command) {
        let symbols = output(Command::new("nm").args(["-D", "--with-symbol-versions"]).arg(&file));
        let mut versions = 0;
        for symbol in symbols.lines() {
            let Some((_, version)) = symbol.split_once("@GLIBC_") else { continue };
            let mut numbers = version.split('.').map_while(|number| number.parse().ok());
            let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            assert!(version <= NEWEST_GLIBC, "{}: {symbol}", file.display());
            versions += 1;
        }
        assert!(versions > 10, "no versions in {symbols}");
    }
}

#[test]
fn the_library_names_itself_and_stays_loaded() {
    let dynamic = output(Command::new("readelf").arg("-dW").arg(shared_library()));
    let soname = format!("libfmi.so.{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert!(dynamic.contains(&format!("soname: [{soname}]")), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    assert!(!dynamic.contains("RPATH") && !dynamic.contains("RUNPATH"), "{dynamic}");
}

#[test]
fn the_list_of_native_libraries_is_right() {
    // A directory of its own: another crate type in the one of the running tests would replace
    // their libraries.
    let printed = output(
        Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["rustc", "--quiet", "--lib", "--crate-type", "staticlib", "--target-dir"])
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("native-static-libs"))
            .args(["--", "--print", "native-static-libs"])
            .env("CARGO_PROFILE_DEV_DEBUG", "0"),
    );
    let needed = printed
        .lines()
        .find_map(|line| line.split_once("native-static-libs: "))
        .map(|(_, libraries)| libraries.replace("-l", ""))
        .unwrap_or_else(|| panic!("no list in {printed}"));
    let shipped = fs::read_to_string(root().join("cmake/native-static-libs.txt")).expect("the list");
    assert_eq!(shipped.trim(), needed.trim(), "cmake/native-static-libs.txt is stale");
}
