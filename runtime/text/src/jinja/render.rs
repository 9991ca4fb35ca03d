//! Statements: a tree and its variables to text.

use super::arguments::Args;
use super::ast::{CallBlock, For, Frame, FrameCell, Load, Macro, SetBlock, Stmt, Sym, Target, Tree, With};
use super::budget::Budget;
use super::callable::{Callable, Global, Loop, LoopState, MacroValue};
use super::dict::Dict;
use super::error::{Result, failed};
use super::format;
use super::iterate::{self, iter, iter_if};
use super::value::{Missing, Namespace, Value};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Variables of a scope while it is entered, in the order of its frame.
pub struct Scope {
    frame: Frame,
    slots: RefCell<Vec<Option<Value>>>,
    around: Option<Rc<Scope>>,
}

impl Scope {
    /// The nearest scope that has the name, and where.
    fn find(self: &Rc<Scope>, name: Sym) -> Option<(&Rc<Scope>, usize)> {
        let mut scope = self;
        loop {
            if let Ok(at) = scope.frame.binary_search_by_key(&name, |(name, _)| *name) {
                return Some((scope, at));
            }
            scope = scope.around.as_ref()?;
        }
    }

    fn value(self: &Rc<Scope>, name: Sym) -> Option<Value> {
        self.find(name).and_then(|(scope, at)| scope.slots.borrow()[at].clone())
    }

    pub fn set(self: &Rc<Scope>, name: Sym, value: Value) {
        if let Some((scope, at)) = self.find(name) {
            scope.slots.borrow_mut()[at] = Some(value);
        }
    }
}

/// How a list of statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Normal,
    Break,
    Continue,
}

/// One rendering.
pub struct Run<'a> {
    pub budget: &'a Budget<'a>,
    tree: &'a Tree,
    variables: &'a Dict,
    /// Text being made: the prompt, and what blocks inside of each other capture.
    out: Vec<String>,
    written: usize,
    /// Scopes that macros and loops refer to. They may refer to each other in a circle, so they are emptied at the end.
    scopes: Vec<Rc<Scope>>,
    namespaces: Vec<Rc<Namespace>>,
    /// What the filter of a block is applied to.
    pub(super) captured: Option<Value>,
    pub(super) line: u32,
}

/// Renders a tree.
///
/// # Errors
/// What the template refuses, what Python would raise, and what exceeds the budget.
pub fn render(tree: &Tree, variables: &Dict, budget: &Budget) -> Result<String> {
    let mut run = Run {
        budget,
        tree,
        variables,
        out: vec![String::new()],
        written: 0,
        scopes: Vec::new(),
        namespaces: Vec::new(),
        captured: None,
        line: 1,
    };
    let scope = run.enter(&tree.frame, None);
    let done = run.statements(&tree.body, &scope);
    let line = run.line;
    // Namespaces and scopes may hold each other. Once they are emptied, they can be dropped one by one.
    scope.slots.borrow_mut().clear();
    for scope in &run.scopes {
        let slots = scope.slots.take();
        drop(slots);
    }
    for namespace in &run.namespaces {
        let attributes = namespace.0.take();
        drop(attributes);
    }
    done.map_err(|error| error.at(line))?;
    Ok(run.out.pop().unwrap_or_default())
}

impl<'a> Run<'a> {
    fn enter(&mut self, frame: &FrameCell, around: Option<&Rc<Scope>>) -> Rc<Scope> {
        let frame = frame.get().cloned().unwrap_or_else(|| Vec::new().into());
        let slots = frame
            .iter()
            .map(|(name, load)| match load {
                Load::Parameter | Load::Undefined => None,
                Load::Alias => around.and_then(|around| around.value(*name)),
                Load::Resolve => self.resolve(*name),
            })
            .collect();
        Rc::new(Scope { frame, slots: RefCell::new(slots), around: around.cloned() })
    }

    /// A variable that the template was rendered with, or a global.
    fn resolve(&self, name: Sym) -> Option<Value> {
        let name = &self.tree.names[name as usize];
        if let Some(value) = self.variables.get_str(name) {
            return Some(value.clone());
        }
        Global::named(name).map(|global| Value::Callable(Rc::new(Callable::Global(global))))
    }

    pub fn name(&self, name: Sym) -> &Arc<str> {
        &self.tree.names[name as usize]
    }

    pub fn read(&self, name: Sym, scope: &Rc<Scope>) -> Value {
        scope.value(name).unwrap_or_else(|| Value::Undefined(Rc::new(Missing::Name(self.name(name).clone()))))
    }

    /// Keeps a scope to the end, because a value refers to it.
    fn keep(&mut self, scope: &Rc<Scope>) {
        super::memory::charge(200);
        self.scopes.push(scope.clone());
    }

    pub fn new_namespace(&mut self, attributes: Dict) -> Value {
        super::memory::charge(200);
        let namespace = Rc::new(Namespace(RefCell::new(attributes)));
        self.namespaces.push(namespace.clone());
        Value::Namespace(namespace)
    }

    pub fn write(&mut self, text: &str) -> Result<()> {
        self.written += text.len();
        self.budget.grown(self.written, text.len())?;
        if let Some(out) = self.out.last_mut() {
            out.push_str(text);
        }
        Ok(())
    }

    /// What `body` writes.
    fn capture(&mut self, body: impl FnOnce(&mut Run<'a>) -> Result<Flow>) -> Result<(String, Flow)> {
        self.out.push(String::new());
        let done = body(self);
        let text = self.out.pop().unwrap_or_default();
        self.written -= text.len();
        done.map(|flow| (text, flow))
    }

    pub fn statements(&mut self, statements: &[Stmt], scope: &Rc<Scope>) -> Result<Flow> {
        self.budget.enter()?;
        let mut flow = Flow::Normal;
        for statement in statements {
            flow = self.statement(statement, scope)?;
            if flow != Flow::Normal {
                break;
            }
        }
        self.budget.leave();
        Ok(flow)
    }

    fn statement(&mut self, statement: &Stmt, scope: &Rc<Scope>) -> Result<Flow> {
        match statement {
            Stmt::Text(text) => self.write(text)?,
            Stmt::Print(expression, line) => {
                self.line = *line;
                let value = self.eval(expression, scope)?;
                self.print(&value)?;
            }
            Stmt::Set { target, value, line } => {
                self.line = *line;
                self.check_namespaces(target, scope)?;
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope)?;
            }
            Stmt::If { branches, otherwise, line } => {
                self.line = *line;
                for (test, body) in branches {
                    if self.eval(test, scope)?.truth() {
                        return self.statements(body, scope);
                    }
                }
                return self.statements(otherwise, scope);
            }
            Stmt::For(node) => return self.for_loop(node, scope),
            Stmt::SetBlock(node) => return self.set_block(node, scope),
            Stmt::With(node) => return self.with(node, scope),
            Stmt::Macro(node) => {
                let name = node.name.map(|name| self.name(name).clone());
                self.keep(scope);
                let value = MacroValue { node: node.clone(), name, scope: scope.clone() };
                if let Some(name) = node.name {
                    scope.set(name, Value::Callable(Rc::new(Callable::Macro(value))));
                }
            }
            Stmt::CallBlock(node) => self.call_block(node, scope)?,
            Stmt::Generation(node) => {
                let value = MacroValue { node: node.clone(), name: None, scope: scope.clone() };
                let text = self.call_macro(&value, Args::default())?;
                self.print(&text)?;
            }
            Stmt::FilterBlock(node) => {
                self.line = node.line;
                let inner = self.enter(&node.frame, Some(scope));
                let (text, flow) = self.capture(|run| run.statements(&node.body, &inner))?;
                if flow != Flow::Normal {
                    return Ok(flow);
                }
                self.captured = Some(Value::str(text));
                let value = self.eval(&node.filter, &inner)?;
                self.print(&value)?;
            }
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Normal)
    }

    fn print(&mut self, value: &Value) -> Result<()> {
        match value.as_str() {
            Some(text) => self.write(text),
            None => {
                let text = format::to_str(self.budget, value)?;
                self.write(&text)
            }
        }
    }

    /// Whether all attributes that are assigned to belong to namespaces.
    fn check_namespaces(&self, target: &Target, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(_) => Ok(()),
            Target::Tuple(targets) => {
                targets.iter().try_for_each(|target| self.check_namespaces(target, scope))
            }
            Target::Attribute(name, _) => match self.read(*name, scope) {
                Value::Namespace(_) => Ok(()),
                _ => failed("cannot assign attribute on non-namespace object"),
            },
        }
    }

    fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => scope.set(*name, value),
            Target::Attribute(name, attribute) => {
                let Value::Namespace(namespace) = self.read(*name, scope) else {
                    return failed("cannot assign attribute on non-namespace object");
                };
                check_attribute(attribute)?;
                self.budget.items(1)?;
                namespace.0.borrow_mut().insert_str(attribute, value)?;
            }
            Target::Tuple(targets) => {
                let values = self.unpack(&value, targets.len())?;
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    fn unpack(&mut self, value: &Value, wanted: usize) -> Result<Vec<Value>> {
        let Ok(items) = iter(value) else {
            return failed(format!("cannot unpack non-iterable {} object", value.type_name()));
        };
        let mut values = Vec::with_capacity(wanted);
        while let Some(item) = items.next(self)? {
            if values.len() == wanted {
                return failed(format!("too many values to unpack (expected {wanted})"));
            }
            values.push(item);
        }
        match values.len() == wanted {
            true => Ok(values),
            false => failed(format!("not enough values to unpack (expected {wanted}, got {})", values.len())),
        }
    }

    fn set_block(&mut self, node: &SetBlock, scope: &Rc<Scope>) -> Result<Flow> {
        self.line = node.line;
        let inner = self.enter(&node.frame, Some(scope));
        let (text, flow) = self.capture(|run| run.statements(&node.body, &inner))?;
        if flow != Flow::Normal {
            return Ok(flow);
        }
        let mut value = Value::str(text);
        if let Some(filter) = &node.filter {
            self.captured = Some(value);
            value = self.eval(filter, &inner)?;
        }
        self.check_namespaces(&node.target, scope)?;
        self.assign(&node.target, value, scope)?;
        Ok(Flow::Normal)
    }

    fn with(&mut self, node: &With, scope: &Rc<Scope>) -> Result<Flow> {
        self.line = node.line;
        let inner = self.enter(&node.frame, Some(scope));
        for (target, value) in &node.assignments {
            let value = self.eval(value, scope)?;
            self.assign(target, value, &inner)?;
        }
        self.statements(&node.body, &inner)
    }

    fn call_block(&mut self, node: &CallBlock, scope: &Rc<Scope>) -> Result<()> {
        self.line = node.line;
        let caller = MacroValue { node: node.body.clone(), name: None, scope: scope.clone() };
        self.keep(scope);
        let caller = Value::Callable(Rc::new(Callable::Macro(caller)));
        let value = self.call_with(&node.call, scope, Some(caller))?;
        self.print(&value)
    }

    fn for_loop(&mut self, node: &Arc<For>, scope: &Rc<Scope>) -> Result<Flow> {
        self.line = node.line;
        let iterable = self.eval(&node.iterable, scope)?;
        if !node.recursive {
            return self.iterate(node, iterable, scope, 0);
        }
        self.keep(scope);
        let (text, _) = self.capture(|run| run.iterate(node, iterable, scope, 0))?;
        self.write(&text)?;
        Ok(Flow::Normal)
    }

    /// What a recursive loop writes for other items.
    pub fn recurse(
        &mut self,
        node: &Arc<For>,
        iterable: Value,
        scope: &Rc<Scope>,
        depth: i128,
    ) -> Result<Value> {
        let (text, _) = self.capture(|run| run.iterate(node, iterable, scope, depth))?;
        Ok(Value::str(text))
    }

    fn iterate(&mut self, node: &Arc<For>, iterable: Value, scope: &Rc<Scope>, depth0: i128) -> Result<Flow> {
        let (items, iterable) = match node.test {
            None => (iter(&iterable)?, iterable),
            Some(_) => {
                let items = iter_if(&iterable, node, scope)?;
                (items.clone(), Value::Iter(items))
            }
        };
        let nesting = iterable.depth();
        let looped = node.uses_loop.get().copied().unwrap_or(false).then(|| {
            let state = LoopState {
                iterable,
                items: items.clone(),
                index0: -1,
                length: None,
                after: None,
                current: None,
                before: None,
                changed: None,
            };
            let recursive = node.recursive.then(|| (node.clone(), scope.clone()));
            Rc::new(Callable::Loop(Box::new(Loop {
                state: RefCell::new(state),
                recursive,
                depth0,
                nesting: nesting + 1,
            })))
        });
        let mut empty = true;
        loop {
            let item = match looped.as_deref() {
                Some(Callable::Loop(value)) => self.advance(value)?,
                _ => items.next(self)?,
            };
            let Some(item) = item else { break };
            empty = false;
            let inner = self.enter(&node.body_frame, Some(scope));
            self.assign(&node.target, item, &inner)?;
            if let Some(looped) = &looped {
                inner.set(node.loop_name, Value::Callable(looped.clone()));
            }
            if self.statements(&node.body, &inner)? == Flow::Break {
                return Ok(Flow::Normal);
            }
        }
        if empty && !node.otherwise.is_empty() {
            let inner = self.enter(&node.else_frame, Some(scope));
            return self.statements(&node.otherwise, &inner);
        }
        Ok(Flow::Normal)
    }

    fn advance(&mut self, value: &Loop) -> Result<Option<Value>> {
        let (items, after) = {
            let mut state = value.state.borrow_mut();
            (state.items.clone(), state.after.take())
        };
        let item = match after {
            Some(item) => item,
            None => items.next(self)?,
        };
        if let Some(item) = &item {
            let mut state = value.state.borrow_mut();
            state.index0 += 1;
            state.before = state.current.replace(item.clone());
        }
        Ok(item)
    }

    /// Whether a loop's `if` takes an item.
    pub fn loop_test(&mut self, node: &Arc<For>, scope: &Rc<Scope>, item: &Value) -> Result<bool> {
        let Some(test) = &node.test else { return Ok(true) };
        let inner = self.enter(&node.test_frame, Some(scope));
        self.assign(&node.target, item.clone(), &inner)?;
        Ok(self.eval(test, &inner)?.truth())
    }

    /// Calls a macro (`Macro.__call__` of Jinja2).
    pub fn call_macro(&mut self, value: &MacroValue, args: Args) -> Result<Value> {
        let node = &value.node;
        let special = node.special.get().copied().unwrap_or_default();
        let inner = self.enter(&node.frame, Some(&value.scope));
        let Args { mut positional, mut named } = args;
        let varargs = positional.split_off(positional.len().min(node.parameters.len()));
        let mut missing = Vec::new();
        let mut has_caller = positional.len() == node.parameters.len()
            && node.parameters.iter().any(|name| &**self.name(*name) == "caller");
        let mut positional = positional.into_iter();
        for (at, parameter) in node.parameters.iter().enumerate() {
            let name = self.name(*parameter).clone();
            let given = match positional.next() {
                Some(value) => Some(value),
                None => {
                    has_caller |= &*name == "caller";
                    take(&mut named, &name)
                }
            };
            match given {
                Some(value) => inner.set(*parameter, value),
                None => missing.push((at, *parameter, name)),
            }
        }
        if special.caller && !has_caller {
            let caller = match take(&mut named, "caller") {
                None | Some(Value::None) => Value::undefined("No caller defined"),
                Some(caller) => caller,
            };
            self.set_special("caller", caller, node, &inner);
        }
        if special.kwargs {
            let mut kwargs = Dict::default();
            for (name, value) in named {
                kwargs.insert_str(&name, value)?;
            }
            self.set_special("kwargs", Value::dict(kwargs), node, &inner);
        } else if let Some((name, _)) = named.first() {
            return failed(format!("macro takes no keyword argument '{name}'"));
        }
        if special.varargs {
            let varargs = Value::tuple(varargs)?;
            self.set_special("varargs", varargs, node, &inner);
        } else if !varargs.is_empty() {
            return failed(format!("macro takes not more than {} argument(s)", node.parameters.len()));
        }
        let without_default = node.parameters.len() - node.defaults.len();
        for (at, parameter, name) in missing {
            let value = match at.checked_sub(without_default) {
                Some(default) => self.eval(&node.defaults[default], &inner)?,
                None => Value::Undefined(Rc::new(Missing::Parameter(name))),
            };
            inner.set(parameter, value);
        }
        let (text, _) = self.capture(|run| run.statements(&node.body, &inner))?;
        Ok(Value::str(text))
    }

    fn set_special(&self, name: &str, value: Value, node: &Macro, scope: &Rc<Scope>) {
        let own = node.frame.get().into_iter().flat_map(|frame| frame.iter());
        if let Some((symbol, _)) = own.into_iter().find(|(symbol, _)| &**self.name(*symbol) == name) {
            scope.set(*symbol, value);
        }
    }

    /// The item after the current one, which stays the next.
    pub fn peek(&mut self, value: &Loop) -> Result<Option<Value>> {
        let (items, after) = {
            let state = value.state.borrow();
            (state.items.clone(), state.after.clone())
        };
        if let Some(after) = after {
            return Ok(after);
        }
        let next = items.next(self)?;
        value.state.borrow_mut().after = Some(next.clone());
        Ok(next)
    }

    /// How many items a loop has. Items that are given one by one are gathered for it.
    pub fn loop_length(&mut self, value: &Loop) -> Result<i128> {
        let (length, iterable, items) = {
            let state = value.state.borrow();
            (state.length, state.iterable.clone(), state.items.clone())
        };
        if let Some(length) = length {
            return Ok(length);
        }
        let length = match iterate::length(self, &iterable) {
            Ok(length) => length as i128,
            Err(_) => {
                let rest = iterate::collect(self, &Value::Iter(items))?;
                let mut state = value.state.borrow_mut();
                let length = rest.len() as i128 + state.index0 + 1 + i128::from(state.after.is_some());
                state.items = iter(&Value::list(rest)?)?;
                length
            }
        };
        value.state.borrow_mut().length = Some(length);
        Ok(length)
    }
}

fn take(named: &mut Vec<(Arc<str>, Value)>, name: &str) -> Option<Value> {
    let at = named.iter().position(|(other, _)| **other == *name)?;
    Some(named.remove(at).1)
}

/// Attributes that transformers lets a namespace have.
pub fn check_attribute(name: &str) -> Result<()> {
    if name.starts_with('_') {
        return failed(format!(
            "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{name}'"
        ));
    }
    Ok(())
}
