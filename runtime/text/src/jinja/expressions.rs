//! Tokens to expressions: the second half of the parser, with Jinja2's precedence.

use super::ast::{Apply, Arguments, Binary, Call, Comparison, Conditional, Expr, Slice};
use super::attributes::STR_REFUSED;
use super::error::{Error, Kind, Result};
use super::lexer::{Tok, syntax};
use super::parser::{Parser, is_literal};
use super::{filters, predicates};

impl Parser {
    /// An expression, or several that make a tuple.
    pub(super) fn tuple(&mut self, conditional: bool, ends: &[&str]) -> Result<Expr> {
        let (mut items, is_tuple) = self.tuple_items(conditional, ends)?;
        match items.pop() {
            None => self.unexpected("an expression"),
            Some(only) if !is_tuple => Ok(only),
            Some(last) => {
                items.push(last);
                Ok(Expr::Tuple(items))
            }
        }
    }

    fn tuple_items(&mut self, conditional: bool, ends: &[&str]) -> Result<(Vec<Expr>, bool)> {
        let (mut items, mut is_tuple) = (Vec::new(), false);
        loop {
            let at_end = matches!(self.current(), Tok::BlockEnd | Tok::VariableEnd)
                || self.is_op(")")
                || ends.iter().any(|end| self.is_name(end));
            if at_end {
                return Ok((items, is_tuple));
            }
            items.push(self.expression(conditional)?);
            if !self.skip_op(",") {
                return Ok((items, is_tuple));
            }
            is_tuple = true;
        }
    }

    pub(super) fn expression(&mut self, conditional: bool) -> Result<Expr> {
        self.nested(|p| if conditional { p.conditional_expression() } else { p.or() })
    }

    fn conditional_expression(&mut self) -> Result<Expr> {
        let outer = self.soft;
        let mut then = self.or()?;
        let mut levels = 0;
        while self.skip_name("if") {
            // From here on, filters that do not exist are no error as long as they are not evaluated.
            self.soft = true;
            self.deeper(1)?;
            levels += 1;
            let test = self.or()?;
            let otherwise = match self.skip_name("else") {
                true => Some(self.nested(Parser::conditional_expression)?),
                false => None,
            };
            then = Expr::Conditional(Box::new(Conditional { test, then, otherwise }));
        }
        self.soft = outer;
        self.shallower(levels);
        Ok(then)
    }

    /// Operators of one precedence, from left to right. Each of them makes the tree one level deeper.
    fn chain(
        &mut self,
        operand: fn(&mut Parser) -> Result<Expr>,
        operator: fn(&Parser) -> Option<Binary>,
    ) -> Result<Expr> {
        let mut levels = 0;
        let mut left = operand(self)?;
        while let Some(op) = operator(self) {
            let line = self.line();
            self.next();
            self.deeper(1)?;
            levels += 1;
            left = Expr::Binary(op, Box::new((left, operand(self)?)), line);
        }
        self.shallower(levels);
        Ok(left)
    }

    fn or(&mut self) -> Result<Expr> {
        let mut levels = 0;
        let mut left = self.and()?;
        while self.skip_name("or") {
            self.deeper(1)?;
            levels += 1;
            left = Expr::Or(Box::new((left, self.and()?)));
        }
        self.shallower(levels);
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut levels = 0;
        let mut left = self.not()?;
        while self.skip_name("and") {
            self.deeper(1)?;
            levels += 1;
            left = Expr::And(Box::new((left, self.not()?)));
        }
        self.shallower(levels);
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.nested(Parser::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let left = self.sum()?;
        let mut operands = Vec::new();
        loop {
            let comparison = match self.current() {
                Tok::Op("==") => Comparison::Equal,
                Tok::Op("!=") => Comparison::NotEqual,
                Tok::Op("<") => Comparison::Less,
                Tok::Op("<=") => Comparison::LessEqual,
                Tok::Op(">") => Comparison::Greater,
                Tok::Op(">=") => Comparison::GreaterEqual,
                Tok::Name(name) if name == "in" => Comparison::In,
                Tok::Name(name) if name == "not" && matches!(self.look(), Tok::Name(n) if n == "in") => {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            operands.push((comparison, self.sum()?));
        }
        Ok(if operands.is_empty() { left } else { Expr::Compare(Box::new(left), operands) })
    }

    fn sum(&mut self) -> Result<Expr> {
        self.chain(Parser::concat, |p| match p.current() {
            Tok::Op("+") => Some(Binary::Add),
            Tok::Op("-") => Some(Binary::Subtract),
            _ => None,
        })
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        self.chain(Parser::power, |p| match p.current() {
            Tok::Op("*") => Some(Binary::Multiply),
            Tok::Op("/") => Some(Binary::Divide),
            Tok::Op("//") => Some(Binary::FloorDivide),
            Tok::Op("%") => Some(Binary::Remainder),
            _ => None,
        })
    }

    fn power(&mut self) -> Result<Expr> {
        self.chain(|p| p.unary(true), |p| p.is_op("**").then_some(Binary::Power))
    }

    fn unary(&mut self, with_filter: bool) -> Result<Expr> {
        let node = if self.skip_op("-") {
            Expr::Negative(Box::new(self.nested(|p| p.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Positive(Box::new(self.nested(|p| p.unary(false))?))
        } else {
            self.primary()?
        };
        let mut levels = 0;
        let node = self.postfix(node, &mut levels)?;
        let node = if with_filter { self.filters_and_tests(node, &mut levels)? } else { node };
        self.shallower(levels);
        Ok(node)
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        match self.next() {
            Tok::Name(name) => Ok(match name.as_str() {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                _ => {
                    debug_assert!(!is_literal(&name));
                    Expr::Name(self.symbol(&name), line)
                }
            }),
            Tok::Str(mut text) => {
                while let Tok::Str(more) = self.current() {
                    text.push_str(more);
                    self.next();
                }
                Ok(Expr::Str(text.into()))
            }
            Tok::Int(i) => Ok(Expr::Int(i)),
            Tok::Float(f) => Ok(Expr::Float(f)),
            Tok::Op("(") => {
                let (mut items, is_tuple) = self.nested(|p| p.tuple_items(true, &[]))?;
                self.expect_op(")")?;
                match items.pop() {
                    Some(only) if !is_tuple => Ok(only),
                    last => {
                        items.extend(last);
                        Ok(Expr::Tuple(items))
                    }
                }
            }
            Tok::Op("[") => {
                let items = self.nested(|p| p.list_items())?;
                Ok(Expr::List(items))
            }
            Tok::Op("{") => {
                let items = self.nested(|p| p.dict_items())?;
                Ok(Expr::Dict(items))
            }
            other => Err(syntax(format!("unexpected {}", other.describe()), line)),
        }
    }

    fn list_items(&mut self) -> Result<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.is_op("]") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op("]") {
                    break;
                }
            }
            items.push(self.expression(true)?);
        }
        self.expect_op("]")?;
        Ok(items)
    }

    fn dict_items(&mut self) -> Result<Vec<(Expr, Expr)>> {
        let mut items = Vec::new();
        while !self.is_op("}") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op("}") {
                    break;
                }
            }
            let key = self.expression(true)?;
            self.expect_op(":")?;
            items.push((key, self.expression(true)?));
        }
        self.expect_op("}")?;
        Ok(items)
    }

    fn postfix(&mut self, mut node: Expr, levels: &mut u32) -> Result<Expr> {
        loop {
            node = if self.is_op(".") || self.is_op("[") {
                self.subscript(node)?
            } else if self.is_op("(") {
                self.call(node)?
            } else {
                return Ok(node);
            };
            self.deeper(1)?;
            *levels += 1;
        }
    }

    fn filters_and_tests(&mut self, mut node: Expr, levels: &mut u32) -> Result<Expr> {
        loop {
            node = if self.skip_op("|") {
                self.filter(node)?
            } else if self.is_name("is") {
                self.test(node)?
            } else if self.is_op("(") {
                self.call(node)?
            } else {
                return Ok(node);
            };
            self.deeper(1)?;
            *levels += 1;
        }
    }

    fn subscript(&mut self, node: Expr) -> Result<Expr> {
        let line = self.line();
        if self.skip_op(".") {
            return match self.next() {
                Tok::Name(name) => Ok(Expr::Attribute(Box::new(node), name.into(), line)),
                Tok::Int(i) => Ok(Expr::Item(Box::new((node, Expr::Int(i))), line)),
                other => Err(syntax(format!("expected a name or a number, got {}", other.describe()), line)),
            };
        }
        self.expect_op("[")?;
        let (mut items, mut slices) = (Vec::new(), Vec::new());
        while !self.is_op("]") {
            if !(items.is_empty() && slices.is_empty()) {
                self.expect_op(",")?;
            }
            match self.subscribed()? {
                Ok(expression) => items.push(expression),
                Err(bounds) => slices.push(bounds),
            }
        }
        self.expect_op("]")?;
        match (slices.pop(), items.pop()) {
            (Some(bounds), None) if slices.is_empty() => {
                Ok(Expr::Slice(Box::new(Slice { of: node, bounds }), line))
            }
            (Some(_), _) => Err(syntax("a slice among several subscripts", line)),
            (None, Some(only)) if items.is_empty() => Ok(Expr::Item(Box::new((node, only)), line)),
            (None, last) => {
                items.extend(last);
                Ok(Expr::Item(Box::new((node, Expr::Tuple(items))), line))
            }
        }
    }

    /// One subscript, or the bounds of a slice.
    fn subscribed(&mut self) -> Result<std::result::Result<Expr, [Option<Expr>; 3]>> {
        let at_end = |p: &Parser| p.is_op("]") || p.is_op(",") || p.is_op(":");
        let start = if self.is_op(":") { None } else { Some(self.expression(true)?) };
        if !self.skip_op(":") {
            return match start {
                Some(only) => Ok(Ok(only)),
                None => self.unexpected("a subscript"),
            };
        }
        let stop = if at_end(self) { None } else { Some(self.expression(true)?) };
        let mut step = None;
        if self.skip_op(":") && !(self.is_op("]") || self.is_op(",")) {
            step = Some(self.expression(true)?);
        }
        Ok(Err([start, stop, step]))
    }

    fn call(&mut self, callee: Expr) -> Result<Expr> {
        let line = self.line();
        if let Expr::Attribute(_, name, _) = &callee
            && STR_REFUSED.contains(&&**name)
        {
            return Err(Error::new(Kind::Unsupported, format!("the method '{name}'")).at(line));
        }
        let arguments = self.arguments()?;
        Ok(Expr::Call(Box::new(Call { callee, arguments, line })))
    }

    fn arguments(&mut self) -> Result<Arguments> {
        let line = self.line();
        let invalid = || Err(syntax("invalid syntax for function call expression", line));
        self.expect_op("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            let Arguments { positional, named, spread, spread_named } = &mut arguments;
            if self.skip_op("*") {
                if spread.is_some() || spread_named.is_some() {
                    return invalid();
                }
                *spread = Some(self.expression(true)?);
            } else if self.skip_op("**") {
                if spread_named.is_some() {
                    return invalid();
                }
                *spread_named = Some(self.expression(true)?);
            } else if let (Tok::Name(name), Tok::Op("=")) = (self.current().clone(), self.look()) {
                if spread_named.is_some() {
                    return invalid();
                }
                self.at_skip(2);
                if named.iter().any(|(other, _)| **other == *name) {
                    return Err(syntax(format!("keyword argument repeated: {name}"), line));
                }
                named.push((name.into(), self.expression(true)?));
            } else {
                if spread.is_some() || spread_named.is_some() || !named.is_empty() {
                    return invalid();
                }
                positional.push(self.expression(true)?);
            }
        }
        self.expect_op(")")?;
        Ok(arguments)
    }

    /// Filters that follow, each applied to what stands before it.
    pub(super) fn filters(&mut self, mut node: Expr) -> Result<Expr> {
        let mut levels = 0;
        while self.skip_op("|") {
            node = self.filter(node)?;
            self.deeper(1)?;
            levels += 1;
        }
        self.shallower(levels);
        Ok(node)
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.expect_name()?);
        }
        Ok(name)
    }

    pub(super) fn filter(&mut self, to: Expr) -> Result<Expr> {
        let line = self.line();
        let name = self.dotted_name()?;
        self.known(filters::support(&name), "filter", &name, line)?;
        let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
        self.check_named_by_argument(&name, &arguments, line)?;
        Ok(Expr::Filter(Box::new(Apply { to, name: name.into(), arguments, line })))
    }

    /// `map` and its kin name a filter or a test in their arguments.
    fn check_named_by_argument(&self, filter: &str, arguments: &Arguments, line: u32) -> Result<()> {
        let at = match filter {
            "map" | "select" | "reject" => 0,
            "selectattr" | "rejectattr" => 1,
            _ => return Ok(()),
        };
        let Some(Expr::Str(name)) = arguments.positional.get(at) else { return Ok(()) };
        // What Jinja2 does not know either raises when it is called.
        let (support, what) = match filter {
            "map" => (filters::support(name), "filter"),
            _ => (predicates::support(name), "test"),
        };
        match support {
            Support::No => Err(Error::new(Kind::Unsupported, format!("the {what} '{name}'")).at(line)),
            Support::Yes | Support::Unknown => Ok(()),
        }
    }

    fn known(&self, support: Support, what: &str, name: &str, line: u32) -> Result<()> {
        match support {
            Support::Yes => Ok(()),
            Support::No => Err(Error::new(Kind::Unsupported, format!("the {what} '{name}'")).at(line)),
            Support::Unknown if self.soft => Ok(()),
            Support::Unknown => Err(syntax(format!("no {what} named '{name}'"), line)),
        }
    }

    fn test(&mut self, to: Expr) -> Result<Expr> {
        let line = self.line();
        self.next();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        self.known(predicates::support(&name), "test", &name, line)?;
        let mut arguments = Arguments::default();
        if self.is_op("(") {
            arguments = self.arguments()?;
        } else if self.begins_argument() {
            if self.is_name("is") {
                return Err(syntax("You cannot chain multiple tests with is", line));
            }
            let argument = self.nested(|p| {
                let mut levels = 0;
                let node = p.primary()?;
                let node = p.postfix(node, &mut levels)?;
                p.shallower(levels);
                Ok(node)
            })?;
            arguments.positional.push(argument);
        }
        let test = Expr::Test(Box::new(Apply { to, name: name.into(), arguments, line }));
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }

    /// Whether a test is followed by an argument without parentheses.
    fn begins_argument(&self) -> bool {
        match self.current() {
            Tok::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
            Tok::Str(_) | Tok::Int(_) | Tok::Float(_) | Tok::Op("[" | "{") => true,
            _ => false,
        }
    }
}

/// Whether a filter or a test can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Yes,
    /// Jinja2 has it.
    No,
    /// Jinja2 does not have it either.
    Unknown,
}
