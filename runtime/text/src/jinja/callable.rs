//! What templates call: methods, macros, loops, and the global functions.

use super::ast::{For, Macro};
use super::iterate::Iter;
use super::render::Scope;
use super::value::Value;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

#[derive(Debug)]
pub enum Callable {
    /// A method of a value that was looked up, and maybe called later.
    Method {
        of: Value,
        name: &'static str,
    },
    Macro(MacroValue),
    Loop(Box<Loop>),
    Global(Global),
    Cycler {
        items: Vec<Value>,
        at: Cell<usize>,
    },
    Joiner {
        separator: Value,
        used: Cell<bool>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
}

impl Global {
    pub fn named(name: &str) -> Option<Global> {
        Some(match name {
            "range" => Global::Range,
            "dict" => Global::Dict,
            "namespace" => Global::Namespace,
            "cycler" => Global::Cycler,
            "joiner" => Global::Joiner,
            "raise_exception" => Global::RaiseException,
            "strftime_now" => Global::StrftimeNow,
            _ => return None,
        })
    }
}

/// A macro and the scope that it was defined in. The macro sees that scope as it is at the time of the call.
pub struct MacroValue {
    pub node: Arc<Macro>,
    pub name: Option<Arc<str>>,
    pub scope: Rc<Scope>,
}

impl std::fmt::Debug for MacroValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "macro {:?}", self.name)
    }
}

/// The variable `loop`.
pub struct Loop {
    pub state: RefCell<LoopState>,
    /// In a recursive loop, the function that renders the body for other items.
    pub recursive: Option<(Arc<For>, Rc<Scope>)>,
    pub depth0: i128,
    pub nesting: u16,
}

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("loop")
    }
}

#[derive(Debug)]
pub struct LoopState {
    /// What is iterated over, for its length.
    pub iterable: Value,
    pub items: Rc<Iter>,
    /// -1 before the first item.
    pub index0: i128,
    pub length: Option<i128>,
    /// The next item, if somebody has already looked at it. `Some(None)` means that there is none.
    pub after: Option<Option<Value>>,
    pub current: Option<Value>,
    pub before: Option<Value>,
    pub changed: Option<Value>,
}

impl Callable {
    pub fn depth(&self) -> u16 {
        match self {
            Callable::Method { of, .. } => of.depth() + 1,
            Callable::Loop(value) => value.nesting,
            Callable::Cycler { items, .. } => items.iter().map(Value::depth).max().unwrap_or(0) + 1,
            Callable::Joiner { separator, .. } => separator.depth() + 1,
            Callable::Macro(_) | Callable::Global(_) => 1,
        }
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Callable::Method { .. } => "builtin_function_or_method",
            Callable::Macro(_) => "Macro",
            Callable::Loop(_) => "LoopContext",
            Callable::Global(Global::Dict) => "TemplateDict",
            Callable::Global(Global::Namespace | Global::Cycler | Global::Joiner) => "type",
            Callable::Global(_) => "function",
            Callable::Cycler { .. } => "Cycler",
            Callable::Joiner { .. } => "Joiner",
        }
    }

    pub fn truth(&self) -> bool {
        true
    }

    /// Whether `is callable` holds.
    pub fn is_callable(&self) -> bool {
        !matches!(self, Callable::Cycler { .. })
    }
}
