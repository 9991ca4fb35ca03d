//! Which scope a name belongs to, as `jinja2/idtracking.py` finds it.
//!
//! Jinja2 compiles a template to Python functions and decides beforehand where each variable lives. A template can see this:
//! where a scope sets a name before it reads it, the loops and macros inside see no value until it is set, even if the
//! template was rendered with a variable of that name.

use super::ast::{
    Arguments, Call, Expr, For, Frame, FrameCell, Load, Macro, Special, Stmt, Sym, Target, Tree,
};
use super::error::{Error, Kind, Result};
use super::lexer::syntax;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Finds the scopes of a tree, and refuses names that stand for what is not supported.
pub fn resolve(tree: &Tree, symbols: &HashMap<Arc<str>, Sym>) -> Result<()> {
    let names = Names {
        loop_name: symbols.get("loop").copied(),
        special: ["caller", "kwargs", "varargs"].map(|name| symbols.get(name).copied()),
    };
    for name in ["self", "lipsum"] {
        let Some(symbol) = symbols.get(name) else { continue };
        if let Some(line) = undeclared(&tree.body, &[*symbol]).get(symbol) {
            return Err(Error::new(Kind::Unsupported, format!("'{name}'")).at(*line));
        }
    }
    let mut root = Symbols::new(None);
    root.statements(&tree.body);
    names.inner(&tree.body, &root)?;
    root.finish(&tree.frame);
    Ok(())
}

struct Names {
    loop_name: Option<Sym>,
    special: [Option<Sym>; 3],
}

/// The variables of one scope while they are collected.
#[derive(Clone)]
struct Symbols<'a> {
    around: Option<&'a Symbols<'a>>,
    loads: BTreeMap<Sym, Load>,
    stores: BTreeSet<Sym>,
}

impl<'a> Symbols<'a> {
    fn new(around: Option<&'a Symbols<'a>>) -> Symbols<'a> {
        Symbols { around, loads: BTreeMap::new(), stores: BTreeSet::new() }
    }

    fn known(&self, name: Sym) -> bool {
        self.loads.contains_key(&name) || self.known_around(name)
    }

    fn known_around(&self, name: Sym) -> bool {
        self.around.is_some_and(|around| around.known(name))
    }

    fn parameter(&mut self, name: Sym) {
        self.stores.insert(name);
        self.loads.insert(name, Load::Parameter);
    }

    fn store(&mut self, name: Sym) {
        self.stores.insert(name);
        let load = if self.known_around(name) { Load::Alias } else { Load::Undefined };
        self.loads.entry(name).or_insert(load);
    }

    fn load(&mut self, name: Sym) {
        if !self.known(name) {
            self.loads.insert(name, Load::Resolve);
        }
    }

    fn finish(self, cell: &FrameCell) {
        let frame: Frame = self.loads.into_iter().collect();
        // Each scope is visited once.
        let _ = cell.set(frame);
    }

    fn target(&mut self, target: &Target, is_parameter: bool) {
        match target {
            Target::Name(name) if is_parameter => self.parameter(*name),
            Target::Name(name) => self.store(*name),
            Target::Attribute(name, _) => self.load(*name),
            Target::Tuple(targets) => targets.iter().for_each(|t| self.target(t, is_parameter)),
        }
    }

    fn expression(&mut self, expression: &Expr) {
        each_name(expression, &mut |name, _| self.load(name));
    }

    fn statements(&mut self, statements: &[Stmt]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Print(expression, _) => self.expression(expression),
            Stmt::Set { target, value, .. } => {
                self.expression(value);
                self.target(target, false);
            }
            Stmt::SetBlock(block) => self.target(&block.target, false),
            Stmt::If { branches, otherwise, .. } => self.branches(branches, otherwise),
            Stmt::For(node) => self.expression(&node.iterable),
            Stmt::With(node) => node.assignments.iter().for_each(|(_, value)| self.expression(value)),
            Stmt::Macro(node) => node.name.into_iter().for_each(|name| self.store(name)),
            Stmt::CallBlock(node) => each_of_call(&node.call, &mut |name, _| self.load(name)),
            Stmt::FilterBlock(node) => self.expression(&node.filter),
            Stmt::Text(_) | Stmt::Generation(_) | Stmt::Break | Stmt::Continue => {}
        }
    }

    /// All branches share one scope, but no branch sees what another one sets.
    fn branches(&mut self, branches: &[(Expr, Vec<Stmt>)], otherwise: &[Stmt]) {
        let Some(((test, body), more)) = branches.split_first() else { return };
        self.expression(test);
        let mut first = self.clone();
        first.statements(body);
        let mut elif = self.clone();
        for (test, body) in more {
            elif.branches_of_one(test, body);
        }
        let mut last = self.clone();
        last.statements(otherwise);
        self.merge([first, elif, last]);
    }

    fn branches_of_one(&mut self, test: &Expr, body: &[Stmt]) {
        self.expression(test);
        let mut branch = self.clone();
        branch.statements(body);
        let (nothing, none) = (self.clone(), self.clone());
        self.merge([branch, nothing, none]);
    }

    fn merge(&mut self, branches: [Symbols<'a>; 3]) {
        let stored: BTreeSet<Sym> =
            branches.iter().flat_map(|branch| branch.stores.iter().copied()).collect();
        let new: Vec<Sym> = stored.difference(&self.stores).copied().collect();
        for branch in branches {
            self.loads.extend(branch.loads);
            self.stores.extend(branch.stores);
        }
        for name in new {
            let load = if self.known_around(name) { Load::Alias } else { Load::Resolve };
            self.loads.insert(name, load);
        }
    }
}

impl Names {
    /// The scopes inside of statements whose own scope is `around`.
    fn inner(&self, statements: &[Stmt], around: &Symbols) -> Result<()> {
        for statement in statements {
            match statement {
                Stmt::If { branches, otherwise, .. } => {
                    for (_, body) in branches {
                        self.inner(body, around)?;
                    }
                    self.inner(otherwise, around)?;
                }
                Stmt::For(node) => self.for_loop(node, around)?,
                Stmt::SetBlock(node) => {
                    let mut symbols = Symbols::new(Some(around));
                    symbols.statements(&node.body);
                    self.inner(&node.body, &symbols)?;
                    symbols.finish(&node.frame);
                }
                Stmt::With(node) => {
                    let mut symbols = Symbols::new(Some(around));
                    node.assignments.iter().for_each(|(target, _)| symbols.target(target, true));
                    symbols.statements(&node.body);
                    self.inner(&node.body, &symbols)?;
                    symbols.finish(&node.frame);
                }
                Stmt::FilterBlock(node) => {
                    let mut symbols = Symbols::new(Some(around));
                    symbols.statements(&node.body);
                    symbols.expression(&node.filter);
                    self.inner(&node.body, &symbols)?;
                    symbols.finish(&node.frame);
                }
                Stmt::Macro(node) | Stmt::Generation(node) => self.macro_body(node, around)?,
                Stmt::CallBlock(node) => self.macro_body(&node.body, around)?,
                Stmt::Text(_) | Stmt::Print(..) | Stmt::Set { .. } | Stmt::Break | Stmt::Continue => {}
            }
        }
        Ok(())
    }

    fn for_loop(&self, node: &For, around: &Symbols) -> Result<()> {
        let mut body = Symbols::new(Some(around));
        if let Some(name) = self.loop_name {
            if stores_name(&node.target, name)
                || node.body.iter().chain(&node.otherwise).any(|s| stores(s, name))
            {
                return Err(syntax("can't assign to the special variable 'loop' in a loop", node.line));
            }
            let uses_loop = node.recursive || !undeclared(&node.body, &[name]).is_empty();
            let _ = node.uses_loop.set(uses_loop);
            if uses_loop {
                body.parameter(name);
            }
        }
        body.target(&node.target, true);
        body.statements(&node.body);
        self.inner(&node.body, &body)?;
        body.finish(&node.body_frame);

        let mut otherwise = Symbols::new(Some(around));
        otherwise.statements(&node.otherwise);
        self.inner(&node.otherwise, &otherwise)?;
        otherwise.finish(&node.else_frame);

        let mut test = Symbols::new(Some(around));
        test.target(&node.target, true);
        node.test.iter().for_each(|expression| test.expression(expression));
        test.finish(&node.test_frame);
        Ok(())
    }

    fn macro_body(&self, node: &Macro, around: &Symbols) -> Result<()> {
        let mut symbols = Symbols::new(Some(around));
        node.parameters.iter().for_each(|name| symbols.parameter(*name));
        node.defaults.iter().for_each(|value| symbols.expression(value));
        symbols.statements(&node.body);

        let wanted: Vec<Sym> = self.special.iter().flatten().copied().collect();
        let used = undeclared(&node.body, &wanted);
        let uses = |at: usize| self.special[at].is_some_and(|name| used.contains_key(&name));
        let has = |at: usize| self.special[at].is_some_and(|name| node.parameters.contains(&name));
        if uses(0) && has(0) {
            let position = node.parameters.iter().position(|name| Some(*name) == self.special[0]);
            let without_default = node.parameters.len() - node.defaults.len();
            if position.is_some_and(|at| at < without_default) {
                return Err(syntax("the special parameter 'caller' needs a default", node.line));
            }
        }
        let special = Special { caller: uses(0), kwargs: uses(1) && !has(1), varargs: uses(2) && !has(2) };
        for (at, used) in [(0, special.caller && !has(0)), (1, special.kwargs), (2, special.varargs)] {
            if let (true, Some(name)) = (used, self.special[at]) {
                symbols.parameter(name);
            }
        }
        let _ = node.special.set(special);
        self.inner(&node.body, &symbols)?;
        symbols.finish(&node.frame);
        Ok(())
    }
}

/// Names among `wanted` that statements read before they set them, and where.
fn undeclared(statements: &[Stmt], wanted: &[Sym]) -> BTreeMap<Sym, u32> {
    let (mut wanted, mut found) = (wanted.to_vec(), BTreeMap::new());
    statements.iter().for_each(|statement| walk(statement, &mut wanted, &mut found));
    found
}

fn walk(statement: &Stmt, wanted: &mut Vec<Sym>, found: &mut BTreeMap<Sym, u32>) {
    let read = |expression: &Expr, wanted: &[Sym], found: &mut BTreeMap<Sym, u32>| {
        each_name(expression, &mut |name, line| {
            if wanted.contains(&name) {
                found.entry(name).or_insert(line);
            }
        });
    };
    fn set(target: &Target, wanted: &mut Vec<Sym>) {
        match target {
            Target::Name(name) => wanted.retain(|n| n != name),
            Target::Attribute(..) => {}
            Target::Tuple(targets) => targets.iter().for_each(|t| set(t, wanted)),
        }
    }
    let all = |body: &[Stmt], wanted: &mut Vec<Sym>, found: &mut BTreeMap<Sym, u32>| {
        body.iter().for_each(|s| walk(s, wanted, found));
    };
    match statement {
        Stmt::Text(_) | Stmt::Break | Stmt::Continue => {}
        Stmt::Print(expression, _) => read(expression, wanted, found),
        Stmt::Set { target, value, .. } => {
            set(target, wanted);
            read(value, wanted, found);
        }
        Stmt::SetBlock(node) => {
            set(&node.target, wanted);
            node.filter.iter().for_each(|filter| read(filter, wanted, found));
            all(&node.body, wanted, found);
        }
        Stmt::If { branches, otherwise, .. } => {
            for (test, body) in branches {
                read(test, wanted, found);
                all(body, wanted, found);
            }
            all(otherwise, wanted, found);
        }
        Stmt::For(node) => {
            set(&node.target, wanted);
            read(&node.iterable, wanted, found);
            all(&node.body, wanted, found);
            all(&node.otherwise, wanted, found);
            node.test.iter().for_each(|test| read(test, wanted, found));
        }
        Stmt::With(node) => {
            node.assignments.iter().for_each(|(target, _)| set(target, wanted));
            node.assignments.iter().for_each(|(_, value)| read(value, wanted, found));
            all(&node.body, wanted, found);
        }
        Stmt::Macro(node) | Stmt::Generation(node) => {
            wanted.retain(|name| !node.parameters.contains(name));
            node.defaults.iter().for_each(|value| read(value, wanted, found));
            all(&node.body, wanted, found);
        }
        Stmt::CallBlock(node) => {
            each_of_call(&node.call, &mut |name, line| {
                if wanted.contains(&name) {
                    found.entry(name).or_insert(line);
                }
            });
            wanted.retain(|name| !node.body.parameters.contains(name));
            node.body.defaults.iter().for_each(|value| read(value, wanted, found));
            all(&node.body.body, wanted, found);
        }
        Stmt::FilterBlock(node) => {
            all(&node.body, wanted, found);
            read(&node.filter, wanted, found);
        }
    }
}

fn stores_name(target: &Target, name: Sym) -> bool {
    match target {
        Target::Name(other) => *other == name,
        Target::Attribute(..) => false,
        Target::Tuple(targets) => targets.iter().any(|t| stores_name(t, name)),
    }
}

/// Whether a statement sets a name, in it or inside of it. Macros' parameters are no such thing.
fn stores(statement: &Stmt, name: Sym) -> bool {
    let any = |body: &[Stmt]| body.iter().any(|s| stores(s, name));
    match statement {
        Stmt::Text(_) | Stmt::Print(..) | Stmt::Break | Stmt::Continue => false,
        Stmt::Set { target, .. } => stores_name(target, name),
        Stmt::SetBlock(node) => stores_name(&node.target, name) || any(&node.body),
        Stmt::If { branches, otherwise, .. } => branches.iter().any(|(_, body)| any(body)) || any(otherwise),
        Stmt::For(node) => stores_name(&node.target, name) || any(&node.body) || any(&node.otherwise),
        Stmt::With(node) => any(&node.body),
        Stmt::Macro(node) | Stmt::Generation(node) => any(&node.body),
        Stmt::CallBlock(node) => any(&node.body.body),
        Stmt::FilterBlock(node) => any(&node.body),
    }
}

fn each_of_call(call: &Call, found: &mut dyn FnMut(Sym, u32)) {
    each_name(&call.callee, found);
    each_argument(&call.arguments, found);
}

fn each_argument(arguments: &Arguments, found: &mut dyn FnMut(Sym, u32)) {
    arguments.positional.iter().for_each(|e| each_name(e, found));
    arguments.named.iter().for_each(|(_, e)| each_name(e, found));
    arguments.spread.iter().chain(&arguments.spread_named).for_each(|e| each_name(e, found));
}

/// The names that an expression reads, from left to right.
fn each_name(expression: &Expr, found: &mut dyn FnMut(Sym, u32)) {
    match expression {
        Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) | Expr::Str(_) | Expr::Captured => {}
        Expr::Name(name, line) => found(*name, *line),
        Expr::Tuple(items) | Expr::List(items) | Expr::Concat(items) => {
            items.iter().for_each(|e| each_name(e, found))
        }
        Expr::Dict(items) => items.iter().for_each(|(key, value)| {
            each_name(key, found);
            each_name(value, found);
        }),
        Expr::Binary(_, pair, _) | Expr::And(pair) | Expr::Or(pair) | Expr::Item(pair, _) => {
            each_name(&pair.0, found);
            each_name(&pair.1, found);
        }
        Expr::Not(of) | Expr::Negative(of) | Expr::Positive(of) | Expr::Attribute(of, ..) => {
            each_name(of, found)
        }
        Expr::Compare(left, operands) => {
            each_name(left, found);
            operands.iter().for_each(|(_, e)| each_name(e, found));
        }
        Expr::Conditional(node) => {
            each_name(&node.test, found);
            each_name(&node.then, found);
            node.otherwise.iter().for_each(|e| each_name(e, found));
        }
        Expr::Slice(node, _) => {
            each_name(&node.of, found);
            node.bounds.iter().flatten().for_each(|e| each_name(e, found));
        }
        Expr::Call(call) => each_of_call(call, found),
        Expr::Filter(apply) | Expr::Test(apply) => {
            each_name(&apply.to, found);
            each_argument(&apply.arguments, found);
        }
    }
}
