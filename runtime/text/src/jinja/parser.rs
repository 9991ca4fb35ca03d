//! Tokens to statements, as `jinja2/parser.py` reads them. What is not supported is refused here, by name and line.

use super::ast::{CallBlock, Expr, FilterBlock, For, Macro, SetBlock, Stmt, Sym, Target, Tree, With};
use super::error::{Error, Kind, Result};
use super::lexer::{Tok, Token, syntax, tokens};
use super::scopes;
use std::collections::HashMap;
use std::sync::Arc;

/// Deepest nesting of blocks and expressions. Jinja2 itself, on Python's stack, gives up at about 70 parentheses.
const MAX_NESTING: u32 = 100;

/// Largest source, in bytes: some twenty times the largest template in use.
pub const MAX_SOURCE: usize = 1 << 20;

/// Reads a template.
///
/// # Errors
/// What Jinja2 refuses as well, and what this engine does not support.
pub fn parse(source: &str) -> Result<Tree> {
    if source.len() > MAX_SOURCE {
        let message = format!("the template is {} bytes long, more than {MAX_SOURCE}", source.len());
        return Err(Error::new(Kind::Budget, message));
    }
    let mut parser = Parser::new(tokens(source)?);
    let body = parser.statements(&[])?.0;
    let tree = Tree { names: parser.names, body, frame: Default::default() };
    scopes::resolve(&tree, &parser.symbols)?;
    Ok(tree)
}

pub struct Parser {
    tokens: Vec<Token>,
    at: usize,
    names: Vec<Arc<str>>,
    symbols: HashMap<Arc<str>, Sym>,
    nesting: u32,
    /// Loops around the statement that `break` could leave; a macro's body is in none.
    loops: u32,
    /// Whether the statement stands in an `if` of its scope, where Jinja2 lets unknown filters be until they are used.
    pub(super) soft: bool,
}

impl Parser {
    fn new(tokens: Vec<Token>) -> Parser {
        let (names, symbols) = (Vec::new(), HashMap::new());
        Parser { tokens, at: 0, names, symbols, nesting: 0, loops: 0, soft: false }
    }

    pub(super) fn current(&self) -> &Tok {
        &self.tokens[self.at.min(self.tokens.len() - 1)].kind
    }

    pub(super) fn look(&self) -> &Tok {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at.min(self.tokens.len() - 1)].line
    }

    pub(super) fn next(&mut self) -> Tok {
        let token = self.current().clone();
        self.at += 1;
        token
    }

    pub(super) fn at_skip(&mut self, tokens: usize) {
        self.at += tokens;
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.current(), Tok::Name(n) if n == name)
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.current(), Tok::Op(o) if *o == op)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        Err(syntax(format!("expected {expected}, got {}", self.current().describe()), self.line()))
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) { Ok(()) } else { self.unexpected(&format!("{op:?}")) }
    }

    pub(super) fn expect_name(&mut self) -> Result<String> {
        match self.current().clone() {
            Tok::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    fn expect_block_end(&mut self) -> Result<()> {
        if *self.current() != Tok::BlockEnd {
            return self.unexpected("end of statement block");
        }
        self.at += 1;
        Ok(())
    }

    pub(super) fn symbol(&mut self, name: &str) -> Sym {
        if let Some(symbol) = self.symbols.get(name) {
            return *symbol;
        }
        let (symbol, name): (Sym, Arc<str>) = (self.names.len() as Sym, name.into());
        self.names.push(name.clone());
        self.symbols.insert(name, symbol);
        symbol
    }

    /// Runs a part of the parser one level deeper.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        self.deeper(1)?;
        let done = parse(self);
        self.nesting -= 1;
        done
    }

    pub(super) fn deeper(&mut self, levels: u32) -> Result<()> {
        self.nesting += levels;
        if self.nesting > MAX_NESTING {
            let message = format!("blocks and expressions are nested deeper than {MAX_NESTING}");
            return Err(Error::new(Kind::Budget, message).at(self.line()));
        }
        Ok(())
    }

    pub(super) fn shallower(&mut self, levels: u32) {
        self.nesting -= levels;
    }

    /// Statements up to a tag among `ends`, and that tag; its name is consumed. Without ends, up to the end.
    fn statements(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            match self.next() {
                Tok::Data(text) => body.push(Stmt::Text(text.into())),
                Tok::VariableBegin => {
                    let expression = self.tuple(true, &[])?;
                    if *self.current() != Tok::VariableEnd {
                        return self.unexpected("end of print statement");
                    }
                    self.at += 1;
                    body.push(Stmt::Print(expression, line));
                }
                Tok::BlockBegin => {
                    let line = self.line();
                    let Tok::Name(tag) = self.current().clone() else {
                        return self.unexpected("a tag name");
                    };
                    if ends.contains(&tag.as_str()) {
                        self.at += 1;
                        return Ok((body, tag));
                    }
                    let statement = self.nested(|p| p.statement(&tag, ends, line))?;
                    body.extend(statement);
                    self.expect_block_end()?;
                }
                Tok::End if ends.is_empty() => return Ok((body, String::new())),
                Tok::End => {
                    return Err(syntax(
                        format!("unexpected end of template, expected {}", ends.join(" or ")),
                        line,
                    ));
                }
                other => return Err(syntax(format!("unexpected {}", other.describe()), line)),
            }
        }
    }

    /// The rest of an opening tag, and the statements up to its end.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String)> {
        self.skip_op(":");
        self.expect_block_end()?;
        self.statements(ends)
    }

    fn statement(&mut self, tag: &str, ends: &[&str], line: u32) -> Result<Vec<Stmt>> {
        self.at += 1;
        let statement = match tag {
            "set" => self.set(line)?,
            "if" => self.conditional(line)?,
            "for" => self.for_loop(line)?,
            "with" => self.with(line)?,
            "macro" => self.macro_definition(line)?,
            "call" => self.call_block(line)?,
            "filter" => self.filter_block(line)?,
            "generation" => {
                let body = self.scope(0, |p| Ok(p.body(&["endgeneration"])?.0))?;
                Stmt::Generation(Arc::new(anonymous(Vec::new(), Vec::new(), body, line)))
            }
            "print" => return self.print(line),
            "break" | "continue" if self.loops == 0 => {
                return Err(syntax(format!("'{tag}' outside of a loop"), line));
            }
            "break" => Stmt::Break,
            "continue" => Stmt::Continue,
            "block" | "extends" | "include" | "import" | "from" | "autoescape" => {
                return Err(Error::new(Kind::Unsupported, format!("the tag '{tag}'")).at(line));
            }
            _ if ends.is_empty() => return Err(syntax(format!("unknown tag '{tag}'"), line)),
            _ => {
                return Err(syntax(format!("unknown tag '{tag}', expected {}", ends.join(" or ")), line));
            }
        };
        Ok(vec![statement])
    }

    /// Parses what is a scope of its own, with so many loops around it.
    fn scope<T>(&mut self, loops: u32, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        let outer = (self.loops, self.soft);
        (self.loops, self.soft) = (loops, false);
        let done = parse(self);
        (self.loops, self.soft) = outer;
        done
    }

    fn print(&mut self, line: u32) -> Result<Vec<Stmt>> {
        let mut printed = Vec::new();
        while *self.current() != Tok::BlockEnd {
            if !printed.is_empty() {
                self.expect_op(",")?;
            }
            printed.push(Stmt::Print(self.expression(true)?, line));
        }
        Ok(printed)
    }

    fn set(&mut self, line: u32) -> Result<Stmt> {
        let target = self.target(true, &[])?;
        if self.skip_op("=") {
            let value = self.tuple(true, &[])?;
            return Ok(Stmt::Set { target, value, line });
        }
        let loops = self.loops;
        let (filter, body) = self.scope(loops, |p| {
            let filter = if p.is_op("|") { Some(p.filters(Expr::Captured)?) } else { None };
            Ok((filter, p.body(&["endset"])?.0))
        })?;
        Ok(Stmt::SetBlock(Box::new(SetBlock { target, filter, body, frame: Default::default(), line })))
    }

    fn conditional(&mut self, line: u32) -> Result<Stmt> {
        let outer = std::mem::replace(&mut self.soft, true);
        let (mut branches, mut otherwise) = (Vec::new(), Vec::new());
        loop {
            let test = self.tuple(false, &[])?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match end.as_str() {
                "elif" => continue,
                "else" => otherwise = self.body(&["endif"])?.0,
                _ => {}
            }
            break;
        }
        self.soft = outer;
        Ok(Stmt::If { branches, otherwise, line })
    }

    fn for_loop(&mut self, line: u32) -> Result<Stmt> {
        let target = self.target(false, &["in"])?;
        if !self.skip_name("in") {
            return self.unexpected("\"in\"");
        }
        let iterable = self.tuple(false, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.scope(0, |p| p.expression(true))?) } else { None };
        let recursive = self.skip_name("recursive");
        let outer = self.loops;
        // A recursive loop's body is a function of its own, but the loop stands in it.
        let (body, end) = self.scope(outer + 1, |p| p.body(&["endfor", "else"]))?;
        let otherwise = match end.as_str() {
            "else" => self.scope(if recursive { 0 } else { outer }, |p| Ok(p.body(&["endfor"])?.0))?,
            _ => Vec::new(),
        };
        let loop_name = self.symbol("loop");
        Ok(Stmt::For(Arc::new(For {
            target,
            iterable,
            test,
            recursive,
            body,
            otherwise,
            uses_loop: Default::default(),
            body_frame: Default::default(),
            test_frame: Default::default(),
            else_frame: Default::default(),
            loop_name,
            line,
        })))
    }

    fn with(&mut self, line: u32) -> Result<Stmt> {
        let mut assignments = Vec::new();
        while *self.current() != Tok::BlockEnd {
            if !assignments.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(false, &[])?;
            self.expect_op("=")?;
            assignments.push((target, self.expression(true)?));
        }
        let loops = self.loops;
        let body = self.scope(loops, |p| Ok(p.body(&["endwith"])?.0))?;
        Ok(Stmt::With(Box::new(With { assignments, body, frame: Default::default(), line })))
    }

    fn signature(&mut self) -> Result<(Vec<Sym>, Vec<Expr>)> {
        self.expect_op("(")?;
        let (mut parameters, mut defaults) = (Vec::new(), Vec::new());
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let line = self.line();
            let name = self.name_target()?;
            if self.skip_op("=") {
                defaults.push(self.expression(true)?);
            } else if !defaults.is_empty() {
                return Err(syntax("a parameter without a default follows one with a default", line));
            }
            if parameters.contains(&name) {
                return Err(syntax("two parameters have the same name", line));
            }
            parameters.push(name);
        }
        self.expect_op(")")?;
        Ok((parameters, defaults))
    }

    fn macro_definition(&mut self, line: u32) -> Result<Stmt> {
        let name = self.name_target()?;
        let definition = self.scope(0, |p| {
            let (parameters, defaults) = p.signature()?;
            let body = p.body(&["endmacro"])?.0;
            Ok(anonymous(parameters, defaults, body, line))
        })?;
        Ok(Stmt::Macro(Arc::new(Macro { name: Some(name), ..definition })))
    }

    fn call_block(&mut self, line: u32) -> Result<Stmt> {
        let (parameters, defaults) = match self.is_op("(") {
            true => self.signature()?,
            false => Default::default(),
        };
        let Expr::Call(call) = self.expression(true)? else {
            return Err(syntax("expected a call", line));
        };
        let body = self.scope(0, |p| Ok(p.body(&["endcall"])?.0))?;
        let body = Arc::new(anonymous(parameters, defaults, body, line));
        Ok(Stmt::CallBlock(Box::new(CallBlock { call: *call, body, line })))
    }

    fn filter_block(&mut self, line: u32) -> Result<Stmt> {
        let loops = self.loops;
        let (filter, body) = self.scope(loops, |p| {
            let first = p.filter(Expr::Captured)?;
            let filter = p.filters(first)?;
            Ok((filter, p.body(&["endfilter"])?.0))
        })?;
        Ok(Stmt::FilterBlock(Box::new(FilterBlock { filter, body, frame: Default::default(), line })))
    }

    fn name_target(&mut self) -> Result<Sym> {
        let line = self.line();
        let name = self.expect_name()?;
        if is_literal(&name) {
            return Err(syntax(format!("can't assign to '{name}'"), line));
        }
        Ok(self.symbol(&name))
    }

    /// What a value can be given to: names, in tuples or not, and where allowed attributes of namespaces.
    fn target(&mut self, attributes: bool, ends: &[&str]) -> Result<Target> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            let at_end = matches!(self.current(), Tok::BlockEnd | Tok::VariableEnd)
                || self.is_op(")")
                || ends.iter().any(|end| self.is_name(end));
            if at_end {
                break;
            }
            targets.push(self.one_target(attributes, ends)?);
            if !self.skip_op(",") {
                break;
            }
            is_tuple = true;
        }
        match targets.pop() {
            None => self.unexpected("a name to assign to"),
            Some(only) if !is_tuple => Ok(only),
            Some(last) => {
                targets.push(last);
                Ok(Target::Tuple(targets))
            }
        }
    }

    fn one_target(&mut self, attributes: bool, ends: &[&str]) -> Result<Target> {
        if self.skip_op("(") {
            let target = self.nested(|p| p.target(false, ends))?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.name_target()?;
        if attributes && self.skip_op(".") {
            return Ok(Target::Attribute(name, self.expect_name()?.into()));
        }
        Ok(Target::Name(name))
    }
}

/// Words that are values and so no names.
pub fn is_literal(name: &str) -> bool {
    matches!(name, "true" | "false" | "none" | "True" | "False" | "None")
}

fn anonymous(parameters: Vec<Sym>, defaults: Vec<Expr>, body: Vec<Stmt>, line: u32) -> Macro {
    let (frame, special) = (Default::default(), Default::default());
    Macro { name: None, parameters, defaults, body, frame, special, line }
}
