//! Expressions to values.

use super::arguments::Args;
use super::ast::{Apply, Arguments, Call, Comparison, Conditional, Expr, Slice};
use super::calls;
use super::compare::{equal, order};
use super::dict::Dict;
use super::error::{Error, Kind, Result, failed};
use super::format;
use super::iterate;
use super::operators::{binary, contains, sign, slice};
use super::render::{Run, Scope};
use super::value::{Str, Value};
use super::{filters, predicates};
use std::cmp::Ordering;
use std::rc::Rc;

impl Run<'_> {
    /// The value of an expression. Kept small: it calls itself as deep as expressions are nested.
    pub fn eval(&mut self, expression: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.budget.enter()?;
        let value = match expression {
            Expr::None => Ok(Value::None),
            Expr::Bool(b) => Ok(Value::Bool(*b)),
            Expr::Int(i) => Ok(Value::Int(*i)),
            Expr::Float(f) => Ok(Value::Float(*f)),
            Expr::Str(text) => Ok(Value::Str(Str::Const(text.clone()))),
            Expr::Captured => Ok(self.captured.take().unwrap_or(Value::None)),
            Expr::Name(name, _) => Ok(self.read(*name, scope)),
            Expr::And(pair) => match self.eval(&pair.0, scope) {
                Ok(left) if left.truth() => self.eval(&pair.1, scope),
                left => left,
            },
            Expr::Or(pair) => match self.eval(&pair.0, scope) {
                Ok(left) if !left.truth() => self.eval(&pair.1, scope),
                left => left,
            },
            Expr::Not(of) => self.eval(of, scope).map(|value| Value::Bool(!value.truth())),
            Expr::Tuple(items) => self.eval_all(items, scope).and_then(Value::tuple),
            Expr::List(items) => self.eval_all(items, scope).and_then(Value::list),
            Expr::Dict(items) => self.eval_dict(items, scope),
            Expr::Concat(parts) => self.eval_concat(parts, scope),
            Expr::Binary(op, pair, line) => self.eval_pair(pair, scope).and_then(|(left, right)| {
                self.line = *line;
                binary(self, *op, &left, &right)
            }),
            Expr::Negative(of) => self.eval(of, scope).and_then(|value| sign(&value, true)),
            Expr::Positive(of) => self.eval(of, scope).and_then(|value| sign(&value, false)),
            Expr::Compare(left, operands) => self.eval_compare(left, operands, scope),
            Expr::Conditional(node) => self.eval_conditional(node, scope),
            Expr::Attribute(of, name, line) => self.eval(of, scope).and_then(|of| {
                self.line = *line;
                self.attribute(&of, name)
            }),
            Expr::Item(pair, line) => self.eval_pair(pair, scope).and_then(|(of, key)| {
                self.line = *line;
                self.item(&of, &key)
            }),
            Expr::Slice(node, line) => self.eval_slice(node, *line, scope),
            Expr::Call(call) => self.call_with(call, scope, None),
            Expr::Filter(apply) => self.eval_filter(apply, scope),
            Expr::Test(apply) => self.eval_test(apply, scope),
        };
        self.budget.leave();
        value
    }

    #[inline(never)]
    fn eval_all(&mut self, items: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        self.budget.items(items.len())?;
        items.iter().map(|item| self.eval(item, scope)).collect()
    }

    #[inline(never)]
    fn eval_pair(&mut self, pair: &(Expr, Expr), scope: &Rc<Scope>) -> Result<(Value, Value)> {
        Ok((self.eval(&pair.0, scope)?, self.eval(&pair.1, scope)?))
    }

    #[inline(never)]
    fn eval_dict(&mut self, items: &[(Expr, Expr)], scope: &Rc<Scope>) -> Result<Value> {
        self.budget.items(2 * items.len())?;
        let mut dict = Dict::default();
        for (key, value) in items {
            let key = self.eval(key, scope)?;
            let value = self.eval(value, scope)?;
            dict.insert(key, value)?;
        }
        Ok(Value::dict(dict))
    }

    #[inline(never)]
    fn eval_concat(&mut self, parts: &[Expr], scope: &Rc<Scope>) -> Result<Value> {
        let parts = self.eval_all(parts, scope)?;
        let mut out = String::new();
        for part in &parts {
            format::push_str(self.budget, &mut out, part)?;
        }
        Ok(Value::str(out))
    }

    #[inline(never)]
    fn eval_compare(
        &mut self,
        left: &Expr,
        operands: &[(Comparison, Expr)],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let mut left = self.eval(left, scope)?;
        for (at, (comparison, right)) in operands.iter().enumerate() {
            let right = self.eval(right, scope)?;
            if !self.compare(*comparison, &left, &right)? && at < operands.len() {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    pub fn compare(&mut self, comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
        let (op, wanted): (&str, &[Ordering]) = match comparison {
            Comparison::Equal => return equal(self.budget, left, right),
            Comparison::NotEqual => return equal(self.budget, left, right).map(|same| !same),
            Comparison::In => return contains(self, right, left),
            Comparison::NotIn => return contains(self, right, left).map(|found| !found),
            Comparison::Less => ("<", &[Ordering::Less]),
            Comparison::LessEqual => ("<=", &[Ordering::Less, Ordering::Equal]),
            Comparison::Greater => (">", &[Ordering::Greater]),
            Comparison::GreaterEqual => (">=", &[Ordering::Greater, Ordering::Equal]),
        };
        Ok(order(self.budget, left, right, op)?.is_some_and(|ordering| wanted.contains(&ordering)))
    }

    #[inline(never)]
    fn eval_conditional(&mut self, node: &Conditional, scope: &Rc<Scope>) -> Result<Value> {
        if self.eval(&node.test, scope)?.truth() {
            return self.eval(&node.then, scope);
        }
        match &node.otherwise {
            Some(otherwise) => self.eval(otherwise, scope),
            None => Ok(Value::undefined("the inline if-expression was false and has no else")),
        }
    }

    #[inline(never)]
    fn eval_slice(&mut self, node: &Slice, line: u32, scope: &Rc<Scope>) -> Result<Value> {
        let of = self.eval(&node.of, scope)?;
        let mut bounds = [Value::None, Value::None, Value::None];
        for (value, bound) in bounds.iter_mut().zip(&node.bounds) {
            if let Some(bound) = bound {
                *value = self.eval(bound, scope)?;
            }
        }
        self.line = line;
        slice(self.budget, &of, &bounds)
    }

    #[inline(never)]
    fn eval_filter(&mut self, apply: &Apply, scope: &Rc<Scope>) -> Result<Value> {
        let to = self.eval(&apply.to, scope)?;
        let args = self.eval_arguments(&apply.arguments, scope)?;
        self.line = apply.line;
        filters::apply(self, &apply.name, to, args)
    }

    #[inline(never)]
    fn eval_test(&mut self, apply: &Apply, scope: &Rc<Scope>) -> Result<Value> {
        let to = self.eval(&apply.to, scope)?;
        let args = self.eval_arguments(&apply.arguments, scope)?;
        self.line = apply.line;
        predicates::apply(self, &apply.name, to, args).map(Value::Bool)
    }

    #[inline(never)]
    fn eval_arguments(&mut self, arguments: &Arguments, scope: &Rc<Scope>) -> Result<Args> {
        let mut args = Args { positional: self.eval_all(&arguments.positional, scope)?, named: Vec::new() };
        for (name, value) in &arguments.named {
            args.named.push((name.clone(), self.eval(value, scope)?));
        }
        if let Some(spread) = &arguments.spread {
            let spread = self.eval(spread, scope)?;
            args.positional.extend(iterate::collect(self, &spread)?);
        }
        if let Some(spread) = &arguments.spread_named {
            let Value::Dict(dict) = self.eval(spread, scope)? else {
                return failed("argument after ** must be a mapping");
            };
            for entry in dict.entries() {
                let Some(name) = entry.name.as_str() else { return failed("keywords must be strings") };
                if args.named.iter().any(|(other, _)| **other == **name) {
                    return failed(format!("got multiple values for keyword argument '{}'", &**name));
                }
                args.named.push(((&**name).into(), entry.value.clone()));
            }
        }
        Ok(args)
    }

    /// Calls what an expression names, with the body of a call block where there is one.
    #[inline(never)]
    pub(super) fn call_with(
        &mut self,
        call: &Call,
        scope: &Rc<Scope>,
        caller: Option<Value>,
    ) -> Result<Value> {
        let callee = self.eval(&call.callee, scope)?;
        let mut args = self.eval_arguments(&call.arguments, scope)?;
        if let Some(caller) = caller {
            if args.named.iter().any(|(name, _)| &**name == "caller") {
                return Err(Error::new(Kind::Failed, "got multiple values for keyword argument 'caller'"));
            }
            args.named.push(("caller".into(), caller));
        }
        self.line = call.line;
        calls::call(self, &callee, args)
    }
}
