//! A template as a tree. Names are stored as numbers, which are positions in [`Tree::names`].

use std::sync::{Arc, OnceLock};

/// A name of a variable.
pub type Sym = u32;

/// A parsed template.
#[derive(Debug)]
pub struct Tree {
    pub names: Vec<Arc<str>>,
    pub body: Vec<Stmt>,
    pub frame: FrameCell,
}

/// The variables of a scope, known once the whole template is.
pub type FrameCell = OnceLock<Frame>;

/// Variables that a scope has of its own, and what they hold when it is entered.
pub type Frame = Arc<[(Sym, Load)]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Whoever enters the scope gives a value.
    Parameter,
    /// The variable of that name that the template was rendered with, or a global.
    Resolve,
    /// The value that the scope around has.
    Alias,
    /// Nothing, until it is set.
    Undefined,
}

#[derive(Debug)]
pub enum Stmt {
    Text(Arc<str>),
    Print(Expr, u32),
    Set {
        target: Target,
        value: Expr,
        line: u32,
    },
    SetBlock(Box<SetBlock>),
    If {
        branches: Vec<(Expr, Vec<Stmt>)>,
        otherwise: Vec<Stmt>,
        line: u32,
    },
    For(Arc<For>),
    With(Box<With>),
    Macro(Arc<Macro>),
    CallBlock(Box<CallBlock>),
    /// `{% generation %}`: its body is a scope of its own, as a call block's is.
    Generation(Arc<Macro>),
    FilterBlock(Box<FilterBlock>),
    Break,
    Continue,
}

/// Where a value goes.
#[derive(Debug)]
pub enum Target {
    Name(Sym),
    /// An attribute of a namespace.
    Attribute(Sym, Arc<str>),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub struct SetBlock {
    pub target: Target,
    pub filter: Option<Expr>,
    pub body: Vec<Stmt>,
    pub frame: FrameCell,
    pub line: u32,
}

#[derive(Debug)]
pub struct For {
    pub target: Target,
    pub iterable: Expr,
    pub test: Option<Expr>,
    pub recursive: bool,
    pub body: Vec<Stmt>,
    pub otherwise: Vec<Stmt>,
    /// Whether the body speaks of `loop`.
    pub uses_loop: OnceLock<bool>,
    pub body_frame: FrameCell,
    pub test_frame: FrameCell,
    pub else_frame: FrameCell,
    pub loop_name: Sym,
    pub line: u32,
}

#[derive(Debug)]
pub struct With {
    pub assignments: Vec<(Target, Expr)>,
    pub body: Vec<Stmt>,
    pub frame: FrameCell,
    pub line: u32,
}

/// A macro, or the body of a call block.
#[derive(Debug)]
pub struct Macro {
    /// `None` for the body of a call block.
    pub name: Option<Sym>,
    pub parameters: Vec<Sym>,
    /// Of the last parameters.
    pub defaults: Vec<Expr>,
    pub body: Vec<Stmt>,
    pub frame: FrameCell,
    pub special: OnceLock<Special>,
    pub line: u32,
}

/// Which of the names that macros are given besides their parameters the body uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Special {
    pub caller: bool,
    pub kwargs: bool,
    pub varargs: bool,
}

#[derive(Debug)]
pub struct CallBlock {
    pub call: Call,
    pub body: Arc<Macro>,
    pub line: u32,
}

#[derive(Debug)]
pub struct FilterBlock {
    pub filter: Expr,
    pub body: Vec<Stmt>,
    pub frame: FrameCell,
    pub line: u32,
}

#[derive(Debug)]
pub enum Expr {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    /// The text that a filter block or a set block with a filter captured.
    Captured,
    Name(Sym, u32),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Concat(Vec<Expr>),
    Binary(Binary, Box<(Expr, Expr)>, u32),
    And(Box<(Expr, Expr)>),
    Or(Box<(Expr, Expr)>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Conditional(Box<Conditional>),
    Attribute(Box<Expr>, Arc<str>, u32),
    Item(Box<(Expr, Expr)>, u32),
    Slice(Box<Slice>, u32),
    Call(Box<Call>),
    Filter(Box<Apply>),
    Test(Box<Apply>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Debug)]
pub struct Conditional {
    pub test: Expr,
    pub then: Expr,
    pub otherwise: Option<Expr>,
}

#[derive(Debug)]
pub struct Slice {
    pub of: Expr,
    pub bounds: [Option<Expr>; 3],
}

/// Arguments as they are written.
#[derive(Debug, Default)]
pub struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Arc<str>, Expr)>,
    pub spread: Option<Expr>,
    pub spread_named: Option<Expr>,
}

#[derive(Debug)]
pub struct Call {
    pub callee: Expr,
    pub arguments: Arguments,
    pub line: u32,
}

/// A filter or a test applied to a value.
#[derive(Debug)]
pub struct Apply {
    pub to: Expr,
    pub name: Arc<str>,
    pub arguments: Arguments,
    pub line: u32,
}
