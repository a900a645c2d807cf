//! Element types.

/// The type of the elements of a reduction: one of the FMI_... constants from
/// FMI_BYTE to FMI_DOUBLE. The numbers are fixed and never reused.
pub type fmi_datatype = i32;

/// Uninterpreted bytes, of size 1: for bitwise operations and user operations.
pub const FMI_BYTE: fmi_datatype = 1;
/// int8_t
pub const FMI_INT8: fmi_datatype = 2;
/// int16_t
pub const FMI_INT16: fmi_datatype = 3;
/// int32_t
pub const FMI_INT32: fmi_datatype = 4;
/// int64_t
pub const FMI_INT64: fmi_datatype = 5;
/// uint8_t
pub const FMI_UINT8: fmi_datatype = 6;
/// uint16_t
pub const FMI_UINT16: fmi_datatype = 7;
/// uint32_t
pub const FMI_UINT32: fmi_datatype = 8;
/// uint64_t
pub const FMI_UINT64: fmi_datatype = 9;
/// float, of 4 bytes (IEEE 754)
pub const FMI_FLOAT: fmi_datatype = 10;
/// double, of 8 bytes (IEEE 754)
pub const FMI_DOUBLE: fmi_datatype = 11;
