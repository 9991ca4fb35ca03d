//! Where the numbers of an encoded manifest stand: any record enters, the places of its fields leave. So a field can be changed by
//! its number, and what follows still decodes.

use serde::ser::*;
use std::fmt::Display;

/// A number in the bytes of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its first byte.
    pub at: usize,
    /// Its bytes: 1, 4 or 8.
    pub size: usize,
}

/// The numbers of a record, in the order in which it is encoded, and how many bytes the encoding has. Counts, texts and what says
/// whether there is a value are left out: after another one of them nothing decodes. So are runs of bytes, which are digests.
pub fn leaves(record: &impl Serialize) -> (Vec<Leaf>, usize) {
    let mut walk = Walk::default();
    record.serialize(&mut walk).expect("records of a manifest are of the types below");
    (walk.leaves, walk.at)
}

#[derive(Default)]
struct Walk {
    at: usize,
    leaves: Vec<Leaf>,
}

/// A type that no record has.
#[derive(Debug)]
struct Unknown;

impl Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no record has such a type")
    }
}

impl std::error::Error for Unknown {}

impl Error for Unknown {
    fn custom<T: Display>(_: T) -> Unknown {
        Unknown
    }
}

type Done = Result<(), Unknown>;

impl Walk {
    fn leaf(&mut self, size: usize) -> Done {
        self.leaves.push(Leaf { at: self.at, size });
        self.skip(size)
    }

    fn skip(&mut self, bytes: usize) -> Done {
        self.at += bytes;
        Ok(())
    }
}

macro_rules! numbers {
    ($($function:ident $number:ty = $do:ident $size:literal),*) => {
        $(fn $function(self, _: $number) -> Done { self.$do($size) })*
    };
}

impl<'a> Serializer for &'a mut Walk {
    type Ok = ();
    type Error = Unknown;
    type SerializeSeq = &'a mut Walk;
    type SerializeTuple = &'a mut Walk;
    type SerializeTupleStruct = &'a mut Walk;
    type SerializeTupleVariant = &'a mut Walk;
    type SerializeMap = Impossible<(), Unknown>;
    type SerializeStruct = &'a mut Walk;
    type SerializeStructVariant = &'a mut Walk;

    numbers!(serialize_bool bool = leaf 1, serialize_u8 u8 = skip 1, serialize_i8 i8 = leaf 1, serialize_u16 u16 = skip 2,
        serialize_i16 i16 = skip 2, serialize_u32 u32 = leaf 4, serialize_i32 i32 = leaf 4, serialize_u64 u64 = leaf 8,
        serialize_i64 i64 = leaf 8, serialize_f32 f32 = leaf 4, serialize_f64 f64 = leaf 8);

    fn serialize_char(self, _: char) -> Done {
        Err(Unknown)
    }

    fn serialize_str(self, text: &str) -> Done {
        self.skip(8 + text.len())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Done {
        self.skip(8 + bytes.len())
    }

    fn serialize_none(self) -> Done {
        self.skip(1)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Done {
        self.skip(1)?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Done {
        self.leaf(4)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Done {
        self.leaf(4)?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<&'a mut Walk, Unknown> {
        self.skip(8)?;
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<&'a mut Walk, Unknown> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<&'a mut Walk, Unknown> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<&'a mut Walk, Unknown> {
        self.leaf(4)?;
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Unknown> {
        Err(Unknown)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<&'a mut Walk, Unknown> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<&'a mut Walk, Unknown> {
        self.leaf(4)?;
        Ok(self)
    }
}

macro_rules! parts {
    ($($part:ident $function:ident $(($name:ident))?),*) => {
        $(impl $part for &mut Walk {
            type Ok = ();
            type Error = Unknown;

            fn $function<T: ?Sized + Serialize>(&mut self, $($name: &'static str,)? value: &T) -> Done {
                $(let _ = $name;)?
                value.serialize(&mut **self)
            }

            fn end(self) -> Done {
                Ok(())
            }
        })*
    };
}

parts!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field, SerializeStruct serialize_field(_name), SerializeStructVariant serialize_field(_name));

#[cfg(test)]
mod tests {
    use super::*;
    use trit_format::manifest::Manifest;

    /// Every field that is found can be changed alone: the manifest decodes or names what it does not know, and its other
    /// fields stay.
    #[test]
    fn fields_stand_where_they_are_found() {
        for index in 0..5 {
            let manifest = crate::assembled::manifest(index);
            let bytes = manifest.encode().unwrap();
            let (leaves, len) = leaves(&manifest);
            assert_eq!(len, bytes.len());
            let mut decoded = 0;
            for Leaf { at, size } in &leaves {
                let mut changed = bytes.clone();
                changed[*at] ^= 1;
                let Ok(read) = Manifest::decode(&changed) else { continue };
                decoded += 1;
                assert!(read != manifest && *size <= 8);
                assert!(read.encode().unwrap() == changed);
            }
            assert!(decoded * 10 > leaves.len() * 9, "{decoded} of {}", leaves.len());
        }
    }
}
