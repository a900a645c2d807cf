//! The pages of promises name tests that exist.

use std::path::{Path, PathBuf};

/// Where the tests of a page's `module` are.
fn source_of(module: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = module.replace("::", "/");
    let places = [
        format!("tests/{path}.rs"),
        format!("tests/{path}/main.rs"),
        format!("src/{path}.rs"),
        format!("src/{path}/mod.rs"),
    ];
    places.into_iter().map(|place| root.join(place)).find(|place| place.is_file())
}

#[test]
fn every_promise_names_tests_that_exist() {
    check(include_str!("../docs/promises.md"), 80);
}

#[test]
fn what_is_better_than_the_original_names_tests_that_exist() {
    check(include_str!("../docs/from-the-original.md"), 20);
}

/// Looks up every test that `page` names, of which there are at least `least`.
fn check(page: &str, least: usize) {
    let mut count = 0;
    let names = page.split('`').skip(1).step_by(2);
    let is_cxx = |name: &str| name.starts_with("FMI::") || name.starts_with("std::");
    for name in names.filter(|name| !is_cxx(name)) {
        if let Some(program) = name.strip_prefix("c-tests/") {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("c-tests").join(program);
            assert!(path.is_file(), "there is no {name}");
        } else if let Some((module, test)) = name.rsplit_once("::")
            && source_of(name).is_none()
        {
            let source = source_of(module).unwrap_or_else(|| panic!("there is no file of {name}"));
            let text = std::fs::read_to_string(&source).unwrap();
            assert!(text.contains(&format!("fn {test}()")), "{} has no {test}", source.display());
        } else {
            continue;
        }
        count += 1;
    }
    assert!(count >= least, "only {count} tests are named");
}
