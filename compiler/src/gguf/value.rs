//! Values of metadata keys. Arrays stay in the mapped file and are read when they are asked for: a vocabulary of some
//! hundred thousand strings costs no memory until then.

use super::cursor::{Cursor, Problem};
use crate::files::mapped::{MappedFile, MappedSlice};
use std::fmt;
use std::sync::Arc;

/// Longest text that is copied, in bytes: some hundred times the longest template in use. Arrays stay in the file.
const MAX_TEXT: usize = 16 << 20;

/// Arrays inside arrays that are stepped over; no key that is read has any.
const MAX_NESTING: u32 = 4;

/// Types of values, by their numbers in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

const KINDS: [ValueKind; 13] = [
    ValueKind::U8,
    ValueKind::I8,
    ValueKind::U16,
    ValueKind::I16,
    ValueKind::U32,
    ValueKind::I32,
    ValueKind::F32,
    ValueKind::Bool,
    ValueKind::String,
    ValueKind::Array,
    ValueKind::U64,
    ValueKind::I64,
    ValueKind::F64,
];

impl ValueKind {
    fn take(cursor: &mut Cursor) -> Result<ValueKind, Problem> {
        let id = cursor.u32()?;
        KINDS
            .get(id as usize)
            .copied()
            .ok_or_else(|| format!("is of the unknown type {id}; the file is damaged or of a newer format"))
    }

    /// Bytes of one value, `None` where they differ from value to value.
    fn size(self) -> Option<u64> {
        match self {
            ValueKind::U8 | ValueKind::I8 | ValueKind::Bool => Some(1),
            ValueKind::U16 | ValueKind::I16 => Some(2),
            ValueKind::U32 | ValueKind::I32 | ValueKind::F32 => Some(4),
            ValueKind::U64 | ValueKind::I64 | ValueKind::F64 => Some(8),
            ValueKind::String | ValueKind::Array => None,
        }
    }
}

/// The value of a key.
#[derive(Clone)]
pub(crate) enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// F32 and F64.
    Float(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

impl Value {
    /// Takes the type and the value.
    pub(super) fn take(cursor: &mut Cursor, file: &Arc<MappedFile>) -> Result<Value, Problem> {
        match ValueKind::take(cursor)? {
            ValueKind::Array => Array::take(cursor, file).map(Value::Array),
            kind => Value::scalar(kind, cursor),
        }
    }

    /// Takes a value that is no array.
    fn scalar(kind: ValueKind, cursor: &mut Cursor) -> Result<Value, Problem> {
        Ok(match kind {
            ValueKind::U8 => Value::Unsigned(cursor.u8()?.into()),
            ValueKind::I8 => Value::Signed((cursor.u8()? as i8).into()),
            ValueKind::U16 => Value::Unsigned(cursor.u16()?.into()),
            ValueKind::I16 => Value::Signed((cursor.u16()? as i16).into()),
            ValueKind::U32 => Value::Unsigned(cursor.u32()?.into()),
            ValueKind::I32 => Value::Signed((cursor.u32()? as i32).into()),
            ValueKind::U64 => Value::Unsigned(cursor.u64()?),
            ValueKind::I64 => Value::Signed(cursor.u64()? as i64),
            ValueKind::F32 => Value::Float(f32::from_bits(cursor.u32()?).into()),
            ValueKind::F64 => Value::Float(f64::from_bits(cursor.u64()?)),
            ValueKind::Bool => match cursor.u8()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(format!("is a bool of value {other}, expected 0 or 1")),
            },
            ValueKind::String => Value::String(text(cursor.string()?)?),
            ValueKind::Array => return Err("is an array inside an array".to_owned()),
        })
    }
}

fn text(bytes: &[u8]) -> Result<String, Problem> {
    if bytes.len() > MAX_TEXT {
        return Err(format!("is a text of {} bytes, expected no more than {MAX_TEXT}", bytes.len()));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(e) => Err(format!("is not UTF-8: {e}")),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsigned(value) => write!(f, "{value}"),
            Value::Signed(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Bool(value) => write!(f, "{value}"),
            // Templates are long, and a message only has to show which value is meant.
            Value::String(text) if text.chars().count() > 60 => {
                write!(f, "{:?}...", text.chars().take(60).collect::<String>())
            }
            Value::String(text) => write!(f, "{text:?}"),
            Value::Array(array) => write!(f, "an array of {} {:?}", array.len, array.kind),
        }
    }
}

/// An array in the file.
#[derive(Clone)]
pub(crate) struct Array {
    kind: ValueKind,
    len: usize,
    bytes: MappedSlice,
}

impl Array {
    /// Takes element type, length and elements; the elements are only stepped over.
    fn take(cursor: &mut Cursor, file: &Arc<MappedFile>) -> Result<Array, Problem> {
        let (kind, len) = (ValueKind::take(cursor)?, cursor.u64()?);
        let start = cursor.at();
        skip(cursor, kind, len, MAX_NESTING)?;
        let bytes = MappedSlice::new(file.clone(), start..cursor.at());
        match (usize::try_from(len), bytes) {
            (Ok(len), Some(bytes)) => Ok(Array { kind, len, bytes }),
            _ => Err(format!("is an array of {len} elements, more than the file can hold")),
        }
    }

    /// Elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements as text.
    ///
    /// # Errors
    /// Another element type, and text that is not UTF-8, by its index.
    pub(crate) fn strings(&self) -> Result<Vec<&str>, Problem> {
        if self.kind != ValueKind::String {
            return Err(format!("is an array of {:?}, expected one of strings", self.kind));
        }
        let mut cursor = Cursor::new(self.bytes.as_ref(), 0);
        // Every string takes eight bytes at least, so the array is no longer than the file.
        let mut strings = Vec::with_capacity(self.len.min(self.bytes.as_ref().len() / 8));
        for index in 0..self.len {
            let text = std::str::from_utf8(cursor.string()?);
            strings.push(text.map_err(|e| format!("element {index} is not UTF-8: {e}"))?);
        }
        Ok(strings)
    }

    /// The elements as bools.
    ///
    /// # Errors
    /// Elements that are none.
    pub(crate) fn bools(&self) -> Result<Vec<bool>, Problem> {
        let mut cursor = Cursor::new(self.bytes.as_ref(), 0);
        let mut bools = Vec::with_capacity(self.len.min(self.bytes.as_ref().len()));
        for index in 0..self.len {
            match Value::scalar(self.kind, &mut cursor)? {
                Value::Bool(value) => bools.push(value),
                _ => return Err(format!("element {index} is {:?}, expected a bool", self.kind)),
            }
        }
        Ok(bools)
    }

    /// The elements as numbers of any type.
    ///
    /// # Errors
    /// Elements that are no numbers.
    pub(crate) fn numbers(&self) -> Result<Vec<f64>, Problem> {
        let mut cursor = Cursor::new(self.bytes.as_ref(), 0);
        let mut numbers = Vec::with_capacity(self.len.min(self.bytes.as_ref().len()));
        for index in 0..self.len {
            numbers.push(match Value::scalar(self.kind, &mut cursor)? {
                Value::Unsigned(value) => value as f64,
                Value::Signed(value) => value as f64,
                Value::Float(value) => value,
                _ => return Err(format!("element {index} is {:?}, expected a number", self.kind)),
            });
        }
        Ok(numbers)
    }
}

/// Steps over `len` elements.
fn skip(cursor: &mut Cursor, kind: ValueKind, len: u64, depth: u32) -> Result<(), Problem> {
    if let Some(size) = kind.size() {
        let bytes = len.checked_mul(size).ok_or_else(|| format!("is an array of {len} elements"))?;
        return cursor.take(bytes).map(drop);
    }
    if depth == 0 {
        return Err(format!("nests arrays more than {MAX_NESTING} deep"));
    }
    // The loop ends at the end of the file at the latest, because each element takes eight bytes or more.
    for _ in 0..len {
        match kind {
            ValueKind::String => drop(cursor.string()?),
            _ => {
                let (kind, len) = (ValueKind::take(cursor)?, cursor.u64()?);
                skip(cursor, kind, len, depth - 1)?;
            }
        }
    }
    Ok(())
}
