//! Version and limits.

use std::ffi::{CStr, c_char};

/// Major version of this header. While it is 0, minor versions are
/// incompatible with each other.
pub const FMI_VERSION_MAJOR: u32 = 0;
/// Minor version of this header.
pub const FMI_VERSION_MINOR: u32 = 1;
/// Patch version of this header.
pub const FMI_VERSION_PATCH: u32 = 0;

/// A timeout in ms that never passes. It has to be asked for: no function takes
/// it by default.
pub const FMI_TIMEOUT_NEVER: u32 = u32::MAX;

// cbindgen needs literals; this keeps them those of Cargo.toml.
const _: () = {
    assert!(FMI_VERSION_MAJOR == number(env!("CARGO_PKG_VERSION_MAJOR")), "adapt FMI_VERSION_MAJOR");
    assert!(FMI_VERSION_MINOR == number(env!("CARGO_PKG_VERSION_MINOR")), "adapt FMI_VERSION_MINOR");
    assert!(FMI_VERSION_PATCH == number(env!("CARGO_PKG_VERSION_PATCH")), "adapt FMI_VERSION_PATCH");
};

const fn number(text: &str) -> u32 {
    let mut value = 0;
    let mut index = 0;
    while index < text.len() {
        value = value * 10 + (text.as_bytes()[index] - b'0') as u32;
        index += 1;
    }
    value
}

/// The version of the library that is linked, such as "0.1.0".
///
/// @return a static text, never NULL and not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn fmi_version_string() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("Cargo's version has no NUL inside"),
        };
    VERSION.as_ptr()
}

/// The version of the library that is linked as a number that grows with it:
/// major * 1000000 + minor * 1000 + patch. Compare it with FMI_VERSION_MAJOR,
/// FMI_VERSION_MINOR and FMI_VERSION_PATCH, which are those of the header.
///
/// @return the number.
#[unsafe(no_mangle)]
pub extern "C" fn fmi_version_number() -> u32 {
    FMI_VERSION_MAJOR * 1_000_000 + FMI_VERSION_MINOR * 1000 + FMI_VERSION_PATCH
}
