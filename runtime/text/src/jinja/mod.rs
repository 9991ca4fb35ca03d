//! Jinja2 with Python's values, as transformers renders chat templates with it.
//!
//! The source of a template and its variables enter. Text leaves, or the error that Jinja2 would raise, with its line. The
//! semantics are those of Jinja2 3.1.6 in the `ImmutableSandboxedEnvironment` that transformers 5.24 sets up. What this
//! engine lacks is refused by name, and that happens when the template is parsed wherever the source shows it.
//!
//! Why not a library: the engine in Rust that comes nearest, minijinja, has its own values. On 110 templates that trl,
//! axolotl and unsloth ship, in eight conversations, it refused 310 of 880 renderings, and others differed silently.
//! Its hooks reach neither Python's arithmetic, comparison, slices and text of containers, nor the tag `generation`, nor a
//! budget over what is made on the way.
//!
//! | module | does |
//! |---|---|
//! | `lexer`, `literals`, `parser`, `expressions`, `ast` | source to a tree |
//! | `scopes` | which scope a name belongs to |
//! | `render`, `eval`, `calls`, `callable`, `arguments` | a tree to text |
//! | `value`, `dict`, `iterate`, `memory` | what templates compute with |
//! | `attributes`, `methods`, `search`, `containers` | what values have |
//! | `operators`, `compare`, `numbers` | arithmetic and order |
//! | `format`, `spec`, `percent`, `template_format`, `json`, `time` | values to text |
//! | `filters`, `text_filters`, `sequence_filters`, `predicates` | `\|` and `is` |
//! | `unicode`, `unicode_tables` | characters as Python knows them |
//! | `budget`, `error` | what stops a rendering |

mod arguments;
mod ast;
mod attributes;
pub mod budget;
mod callable;
mod calls;
mod compare;
mod containers;
pub mod dict;
pub mod error;
mod eval;
mod expressions;
mod filters;
mod format;
mod iterate;
mod json;
mod lexer;
mod literals;
pub mod memory;
mod methods;
mod numbers;
mod operators;
mod parser;
mod percent;
mod predicates;
mod render;
mod scopes;
mod search;
mod sequence_filters;
mod spec;
mod template_format;
mod text_filters;
mod time;
mod unicode;
mod unicode_tables;
pub mod value;

pub use ast::Tree;
pub use parser::parse;
pub use render::render;
