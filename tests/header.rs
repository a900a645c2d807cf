//! `include/fmi.h` is what cbindgen makes of `src/capi`, and every item in it
//! is documented. `FMI_BLESS=1 cargo test --test header` writes it anew.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The files in the order in which the header shall have them.
const SOURCES: [&str; 12] = [
    "version.rs",
    "status.rs",
    "error.rs",
    "config.rs",
    "communicator.rs",
    "point_to_point.rs",
    "datatype.rs",
    "op.rs",
    "collective.rs",
    "channel.rs",
    "custom_channel.rs",
    "channel_operations.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    // File by file, for cbindgen to need neither cargo nor the order of `mod`s.
    for source in &SOURCES {
        builder = builder.with_src(root().join("src/capi").join(source));
    }
    let mut header = Vec::new();
    builder.generate().expect("cbindgen parses src/capi").write(&mut header);
    String::from_utf8(header).expect("a header is UTF-8")
}

/// The names that a header declares, each with whether a comment stands right
/// before it.
fn items(header: &str) -> Vec<(String, bool)> {
    let mut items = Vec::new();
    let mut documented = false;
    let mut structure = None;
    let mut statement = String::new();
    for line in header.lines().map(str::trim) {
        if line.starts_with("/*") || line.starts_with('*') {
            documented = line.ends_with("*/");
            continue;
        }
        if let Some(define) = line.strip_prefix("#define ") {
            let name = define.split(' ').next().unwrap_or_default();
            if name != "FMI_H" {
                items.push((name.to_owned(), documented));
            }
            documented = false;
            continue;
        }
        if line.is_empty()
            || line.starts_with('#')
            || line.starts_with("extern \"C\"")
            || line.starts_with("} //")
        {
            continue;
        }
        if line == "typedef struct {" {
            structure = Some(documented);
            documented = false;
            continue;
        }
        if let (Some(name), Some(struct_documented)) = (line.strip_prefix("} "), structure) {
            items.push((name.trim_end_matches(';').to_owned(), struct_documented));
            (structure, documented) = (None, false);
            continue;
        }
        statement.push_str(line);
        statement.push(' ');
        if line.ends_with(';') {
            items.push((name_of(&statement), documented));
            statement.clear();
            documented = false;
        }
    }
    items
}

/// The name that a declaration declares.
fn name_of(statement: &str) -> String {
    let declarator = match statement.find("(*") {
        // A pointer to a function: what is declared, unless it is a parameter.
        Some(pointer) if !statement[..pointer].contains('(') => &statement[pointer + 2..],
        _ => statement.split('(').next().unwrap_or_default().split('[').next().unwrap_or_default(),
    };
    let ends = |c: char| !(c.is_alphanumeric() || c == '_');
    let trimmed = declarator.trim_end_matches([';', ' ']);
    if declarator.len() < statement.len() && statement.contains("(*") && statement.ends_with(declarator) {
        return trimmed.split(ends).next().unwrap_or_default().to_owned();
    }
    trimmed.rsplit(ends).next().unwrap_or_default().to_owned()
}

#[test]
fn the_header_is_what_cbindgen_makes() {
    let path = root().join("include/fmi.h");
    let header = generated();
    if env::var_os("FMI_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &header).expect("include/fmi.h can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == header,
        "include/fmi.h is stale: run FMI_BLESS=1 cargo test --test header, and commit it; first difference: {:?}",
        committed.lines().zip(header.lines()).find(|(a, b)| a != b)
    );
}

#[test]
fn every_source_file_is_in_the_header() {
    let mut expected: Vec<_> = SOURCES.iter().chain(&["boundary.rs", "mod.rs", "tests.rs"]).collect();
    expected.sort();
    let mut files: Vec<_> = fs::read_dir(Path::new(&root()).join("src/capi"))
        .expect("src/capi")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    assert!(files.iter().eq(expected.into_iter().copied()), "{files:?}");
}

#[test]
fn every_item_is_documented() {
    let items = items(&generated());
    for known in [
        "FMI_OK",
        "fmi_status",
        "fmi_error_info",
        "waited_ms",
        "channel",
        "fmi_comm",
        "fmi_reduce_fn",
        "fmi_send",
        "fmi_scan",
    ] {
        assert!(items.iter().any(|(name, _)| name == known), "{known} is not among {items:?}");
    }
    let bare: Vec<_> = items.iter().filter(|(_, documented)| !documented).map(|(name, _)| name).collect();
    assert!(bare.is_empty(), "without documentation: {bare:?}");
}

#[test]
fn every_parameter_and_result_is_documented() {
    let header = generated();
    for (comment, declaration) in functions(&header) {
        let (name, parameters) = declaration.split_once('(').expect("a function");
        let returns = !declaration.starts_with("void ") || name.contains('*');
        assert_eq!(returns, comment.contains("@return"), "@return of {name}");
        for parameter in top_level_parameters(parameters.trim_end_matches([';', ' ']).trim_end_matches(')')) {
            assert!(comment.contains(&format!("@param {parameter} ")), "@param {parameter} of {name}");
        }
    }
}

/// Each function's comment and declaration.
fn functions(header: &str) -> Vec<(String, String)> {
    let mut functions = Vec::new();
    for part in header.split("/**").skip(1) {
        let (comment, rest) = part.split_once("*/").expect("a comment ends");
        let declaration = rest.split(';').next().unwrap_or_default();
        let declaration = declaration.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_function = declaration.split_once('(').is_some_and(|(_, rest)| !rest.starts_with('*'));
        if !declaration.contains('#') && !declaration.starts_with("typedef") && is_function {
            functions.push((comment.to_owned(), declaration));
        }
    }
    assert!(functions.len() > 30, "{} functions", functions.len());
    functions
}

/// The names of the parameters; those of a function pointer's own are not
/// among them.
fn top_level_parameters(list: &str) -> Vec<String> {
    if list == "void" {
        return Vec::new();
    }
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for c in list.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().expect("at least one").push(c),
        }
    }
    parts
        .iter()
        .map(|part| name_of(&if part.contains("(*") { format!("typedef {part}") } else { part.clone() }))
        .collect()
}
