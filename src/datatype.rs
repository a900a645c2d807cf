//! Element types of reductions.

use crate::error::{Error, ErrorKind, Result};

/// The type of the elements of a buffer. The numbers are those of the C API's
/// `fmi_datatype`: fixed, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Datatype {
    /// Uninterpreted bytes.
    Byte = 1,
    /// `int8_t`
    Int8 = 2,
    /// `int16_t`
    Int16 = 3,
    /// `int32_t`
    Int32 = 4,
    /// `int64_t`
    Int64 = 5,
    /// `uint8_t`
    UInt8 = 6,
    /// `uint16_t`
    UInt16 = 7,
    /// `uint32_t`
    UInt32 = 8,
    /// `uint64_t`
    UInt64 = 9,
    /// `float`
    Float = 10,
    /// `double`
    Double = 11,
}

/// Every element type, in the order of its number.
pub const ALL_DATATYPES: [Datatype; 11] = [
    Datatype::Byte,
    Datatype::Int8,
    Datatype::Int16,
    Datatype::Int32,
    Datatype::Int64,
    Datatype::UInt8,
    Datatype::UInt16,
    Datatype::UInt32,
    Datatype::UInt64,
    Datatype::Float,
    Datatype::Double,
];

impl Datatype {
    /// The size of one element in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Byte | Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float => 4,
            Self::Int64 | Self::UInt64 | Self::Double => 8,
        }
    }

    /// The name, as in messages: `int32`, `double`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::UInt8 => "uint8",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Float => "float",
            Self::Double => "double",
        }
    }

    /// The element type with this number.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] where there is none.
    pub fn from_code(code: i32) -> Result<Self> {
        ALL_DATATYPES
            .iter()
            .copied()
            .find(|datatype| *datatype as i32 == code)
            .ok_or_else(|| Error::new(ErrorKind::Arg, format!("{code} is not a datatype")))
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that can stand in a message: the fixed-size integers and
/// floats.
pub trait Element:
    sealed::Sealed + Copy + zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable + 'static
{
    /// The matching element type.
    const DATATYPE: Datatype;
}

macro_rules! elements {
    ($($rust:ty => $datatype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DATATYPE: Datatype = Datatype::$datatype;
        }
    )*};
}

elements! {
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    u8 => UInt8, u16 => UInt16, u32 => UInt32, u64 => UInt64,
    f32 => Float, f64 => Double,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_from_one() {
        for (index, datatype) in ALL_DATATYPES.iter().enumerate() {
            assert_eq!(*datatype as i32, index as i32 + 1);
            assert_eq!(Datatype::from_code(index as i32 + 1).unwrap(), *datatype);
        }
        for code in [0, -1, 12, i32::MAX] {
            assert_eq!(Datatype::from_code(code).unwrap_err().kind(), ErrorKind::Arg);
        }
    }
}
