//! Reads the pickle of a PyTorch checkpoint without running it.
//!
//! A pickle is a program for a small machine with a stack, and it may name any function of any Python module to be called.
//! Here nothing is called. The machine knows the few functions that state dicts of tensors need, by name, and notes what
//! they would make; every other name ends the reading, and so does every instruction that these pickles do not have. All
//! objects stand in one list and refer to each other by number, so that no nesting of them uses the stack of the process.
//! Sources: `pickletools.py` of CPython; `torch/serialization.py` and `torch/_utils.py` of PyTorch 2.

use super::storage::StorageType;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Most objects of a pickle: a state dict has about thirty a tensor, and the largest have some thousands of tensors.
const MAX_OBJECTS: usize = 1 << 20;
/// Most values on the stack, where one object may stand more than once.
const MAX_STACK: usize = 1 << 20;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// A tensor as the pickle describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PickledTensor {
    pub(super) storage: Storage,
    /// Elements of the storage before the first of the tensor.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// In elements, one for each dimension.
    pub(super) strides: Vec<i64>,
}

/// Where a tensor's elements are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    pub(super) kind: StorageType,
    /// The name of its entry in the archive.
    pub(super) key: Arc<str>,
    /// Elements.
    pub(super) len: u64,
}

/// The number of an object.
type Id = usize;

enum Object {
    None,
    Bool,
    Int(i64),
    Float,
    Text(Arc<str>),
    Tuple(Vec<Id>),
    List,
    Dict(Vec<(Id, Id)>),
    /// A function or class.
    Name(Name),
    Storage(Storage),
    Tensor(PickledTensor),
}

/// The functions and classes that are known.
#[derive(Clone, Copy, PartialEq)]
enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(StorageType),
}

impl Name {
    fn of(module: &str, name: &str) -> Option<Name> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Name::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Name::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Name::RebuildParameter),
            ("torch", _) => StorageType::of(name).map(Name::Storage),
            _ => None,
        }
    }
}

/// The tensors of the dict that the pickle makes, by name, in its order.
///
/// # Errors
/// A name or an instruction that is not known, a value that is no tensor, and whatever is damaged.
pub(super) fn tensors(pickle: &[u8]) -> Result<Vec<(Arc<str>, PickledTensor)>, String> {
    let mut machine = Machine {
        rest: pickle,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let top = machine.run()?;
    let Some(Object::Dict(items)) = machine.objects.get(top) else {
        return Err(format!(
            "holds {}, not a dict of tensors; save the model's state_dict()",
            machine.what(top)
        ));
    };
    let (mut tensors, mut seen) = (Vec::new(), HashSet::new());
    for &(key, value) in items {
        // Names may be long, and one that stands there many times must not be copied as often.
        if !seen.insert(key) {
            return Err(
                "names one tensor more than once in its data.pkl; it is unclear which counts".to_owned()
            );
        }
        let Some(Object::Text(name)) = machine.objects.get(key) else {
            return Err(format!("names a tensor by {}, expected a text", machine.what(key)));
        };
        let Some(Object::Tensor(tensor)) = machine.objects.get(value) else {
            return Err(format!(
                "holds {} under {name:?}, where only tensors are read; save the model's state_dict() alone",
                machine.what(value)
            ));
        };
        tensors.push((name.clone(), tensor.clone()));
    }
    Ok(tensors)
}

struct Machine<'a> {
    rest: &'a [u8],
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

fn damaged() -> String {
    "has a damaged data.pkl; download the file again".to_owned()
}

impl Machine<'_> {
    /// Runs to the end; gives the object that was made.
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let op = self.byte()?;
            match op {
                // PROTO, FRAME: what follows needs no help to be read.
                0x80 => drop(self.byte()?),
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Object::None)?,
                0x88 | 0x89 => self.push(Object::Bool)?,
                b'J' => self.integer(4)?,
                b'K' => self.unsigned(1)?,
                b'M' => self.unsigned(2)?,
                0x8a => {
                    let len = self.byte()?;
                    self.integer(len.into())?;
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Object::Float)?;
                }
                b'X' => self.text(4)?,
                0x8c => self.text(1)?,
                0x8d => self.text(8)?,
                b')' => self.push(Object::Tuple(Vec::new()))?,
                b'}' => self.push(Object::Dict(Vec::new()))?,
                b']' => self.push(Object::List)?,
                0x85..=0x87 => {
                    let len = usize::from(op - 0x84);
                    let at = self.stack.len().checked_sub(len).filter(|at| *at >= self.floor());
                    let items = self.stack.split_off(at.ok_or_else(damaged)?);
                    self.push(Object::Tuple(items))?;
                }
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Object::Tuple(items))?;
                }
                // Lists are known only so that a message can name them.
                b'a' => drop(self.pop()?),
                b'e' => drop(self.since_mark()?),
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(items)?;
                }
                b'q' => self.put(1)?,
                b'r' => self.put(4)?,
                0x94 => self.remember(self.memo.len() as u64)?,
                b'h' => self.get(1)?,
                b'j' => self.get(4)?,
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.name(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop_text()?, self.pop_text()?);
                    self.name(&module, &name)?;
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                // Attributes of a dict, as `_metadata` of state dicts. They are no tensors.
                b'b' => {
                    self.pop()?;
                    self.expect_dict()?;
                }
                _ => {
                    return Err(format!(
                        "has the instruction {op:#04x} in its data.pkl, which no state dict of tensors needs and which \
                         is not run"
                    ));
                }
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    /// A number of that many bytes, little-endian.
    fn number(&mut self, len: usize) -> Result<u64, String> {
        Ok(self.take(len)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn unsigned(&mut self, len: usize) -> Result<(), String> {
        let number = self.number(len)?;
        self.push(Object::Int(i64::try_from(number).map_err(|_| damaged())?))
    }

    /// A signed number of up to eight bytes.
    fn integer(&mut self, len: usize) -> Result<(), String> {
        if len > 8 {
            return Err(damaged());
        }
        let unused = 64 - 8 * len as u32;
        let number = self.number(len)?;
        let number = if len == 0 { 0 } else { (number << unused) as i64 >> unused };
        self.push(Object::Int(number))
    }

    fn text(&mut self, len: usize) -> Result<(), String> {
        let len = usize::try_from(self.number(len)?).map_err(|_| damaged())?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| damaged())?.into();
        self.push(Object::Text(text))
    }

    fn line(&mut self) -> Result<String, String> {
        let len = self.rest.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let line = std::str::from_utf8(self.take(len)?).map_err(|_| damaged())?.to_owned();
        self.byte()?;
        Ok(line)
    }

    fn push(&mut self, object: Object) -> Result<(), String> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err(format!(
                "has more than {MAX_OBJECTS} objects in its data.pkl, more than any model needs"
            ));
        }
        self.objects.push(object);
        self.push_id(self.objects.len() - 1)
    }

    fn push_id(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() >= MAX_STACK {
            return Err(damaged());
        }
        self.stack.push(id);
        Ok(())
    }

    /// The height below which nothing may be taken: that of the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, String> {
        let above = self.stack.len() > self.floor();
        self.stack.pop().filter(|_| above).ok_or_else(damaged)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or_else(damaged)?))
    }

    fn pop_text(&mut self) -> Result<Arc<str>, String> {
        let id = self.pop()?;
        match self.objects.get(id) {
            Some(Object::Text(text)) => Ok(text.clone()),
            _ => Err(damaged()),
        }
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.objects.get(id) {
            Some(Object::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    fn int(&self, id: Id) -> Option<i64> {
        match self.objects.get(id) {
            Some(Object::Int(number)) => Some(*number),
            _ => None,
        }
    }

    fn expect_dict(&mut self) -> Result<&mut Vec<(Id, Id)>, String> {
        let id =
            self.stack.last().copied().filter(|_| self.stack.len() > self.floor()).ok_or_else(damaged)?;
        match self.objects.get_mut(id) {
            Some(Object::Dict(items)) => Ok(items),
            _ => Err("sets attributes or items of what is no dict, in its data.pkl; only dicts of tensors are read".to_owned()),
        }
    }

    /// Adds keys and values, in turn, to the dict on the stack.
    fn set(&mut self, items: Vec<Id>) -> Result<(), String> {
        let (pairs, []) = items.as_chunks::<2>() else { return Err(damaged()) };
        self.expect_dict()?.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn put(&mut self, len: usize) -> Result<(), String> {
        let place = self.number(len)?;
        self.remember(place)
    }

    fn remember(&mut self, place: u64) -> Result<(), String> {
        let id = self.stack.last().copied().ok_or_else(damaged)?;
        self.memo.insert(place, id);
        Ok(())
    }

    fn get(&mut self, len: usize) -> Result<(), String> {
        let place = self.number(len)?;
        let id = self.memo.get(&place).copied().ok_or_else(damaged)?;
        self.push_id(id)
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = Name::of(module, name).ok_or_else(|| {
            format!(
                "needs {module}.{name} to be read, which is not among what dicts of tensors need; nothing of it was run"
            )
        })?;
        self.push(Object::Name(known))
    }

    /// A storage: `("storage", class, key, location, elements)`.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let storage = match *self.tuple(id).unwrap_or_default() {
            [tag, class, key, _, len] => {
                match (&self.objects[tag], &self.objects[class], &self.objects[key], self.int(len)) {
                    (Object::Text(tag), Object::Name(Name::Storage(kind)), Object::Text(key), Some(len))
                        if **tag == *"storage" =>
                    {
                        u64::try_from(len).ok().map(|len| Storage { kind: *kind, key: key.clone(), len })
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        self.push(Object::Storage(storage.ok_or_else(damaged)?))
    }

    /// A call of a function that is known: what it would make.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Some(Object::Name(function)) = self.objects.get(function) else { return Err(damaged()) };
        let arguments = self.tuple(arguments).ok_or_else(damaged)?;
        let made = match (*function, arguments) {
            (Name::OrderedDict, []) => Some(Object::Dict(Vec::new())),
            (Name::RebuildTensor, &[storage, offset, shape, strides, _, _]) => {
                self.tensor(storage, offset, shape, strides)
            }
            // With metadata, which says nothing about the elements.
            (Name::RebuildTensor, &[storage, offset, shape, strides, _, _, _]) => {
                self.tensor(storage, offset, shape, strides)
            }
            (Name::RebuildParameter, &[tensor, _, _]) => match self.objects.get(tensor) {
                Some(Object::Tensor(tensor)) => Some(Object::Tensor(tensor.clone())),
                _ => None,
            },
            _ => None,
        };
        self.push(made.ok_or_else(damaged)?)
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<Object> {
        let Some(Object::Storage(storage)) = self.objects.get(storage) else { return None };
        let numbers = |tuple: Id| -> Option<Vec<i64>> {
            let items = self.tuple(tuple).filter(|items| items.len() <= MAX_DIMENSIONS)?;
            items.iter().map(|id| self.int(*id)).collect()
        };
        let (shape, strides) = (numbers(shape)?, numbers(strides)?);
        let shape = shape.into_iter().map(|size| u64::try_from(size).ok()).collect::<Option<Vec<u64>>>()?;
        if shape.len() != strides.len() {
            return None;
        }
        let offset = u64::try_from(self.int(offset)?).ok()?;
        Some(Object::Tensor(PickledTensor { storage: storage.clone(), offset, shape, strides }))
    }

    /// What an object is, for a message.
    fn what(&self, id: Id) -> &'static str {
        match self.objects.get(id) {
            Some(Object::None) => "None",
            Some(Object::Bool) => "a bool",
            Some(Object::Int(_) | Object::Float) => "a number",
            Some(Object::Text(_)) => "a text",
            Some(Object::Tuple(_)) => "a tuple",
            Some(Object::List) => "a list",
            Some(Object::Dict(_)) => "a dict",
            Some(Object::Name(_)) => "a class",
            Some(Object::Storage(_)) => "a storage",
            Some(Object::Tensor(_)) => "a tensor",
            None => "nothing",
        }
    }
}
