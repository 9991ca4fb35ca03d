//! The compiler's stages stand in an order, and none imports upwards: files -> checkpoint -> arch -> model -> bundle.
//!
//! The order is the table in `compiler/src/lib.rs`. This test reads the paths that begin with `crate::`, and those that
//! climb to the crate's root by `super::`, in every file of `compiler/src`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use trit_tests::workbench::repository;

/// The modules of the crate, lowest first: the first column of the table in its documentation.
fn order() -> Vec<String> {
    let text = fs::read_to_string(repository().join("compiler/src/lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next());
    let names = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(|name| name.trim_start_matches("mod@").to_owned()).collect()
}

/// The first names after `crate::` in code, those of a group each, and after as many `super::` as lead to the root from a
/// module that stands `depth` below it.
fn roots(text: &str, depth: usize) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `super::` before it, or a longer name that ends so, begins another path.
        if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            found.extend(first_names(&code[at + "crate::".len()..]));
        }
    }
    let climb = "super::".repeat(depth);
    for (at, _) in code.match_indices(&climb) {
        if !code[..at].ends_with("super::") {
            found.extend(first_names(&code[at + climb.len()..]));
        }
    }
    found
}

/// The name that a path begins with, or the names of its group.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(group[start..at].trim()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(group[start..at].trim()));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Every file of the crate below its root, and the names of the modules that lead to it.
fn files(folder: &Path, modules: &[String], found: &mut Vec<(PathBuf, Vec<String>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let below = [modules, std::slice::from_ref(&stem)].concat();
        if path.is_dir() {
            files(&path, &below, found);
        } else if stem == "mod" {
            found.push((path, modules.to_vec()));
        } else if !(modules.is_empty() && stem == "lib") {
            found.push((path, below));
        }
    }
}

#[test]
fn no_stage_of_the_compiler_imports_upwards() {
    let order = order();
    let mut found = Vec::new();
    files(&repository().join("compiler/src"), &[], &mut found);
    assert!(found.len() > 60, "the sources are where they are looked for");
    let place = |name: &str| order.iter().position(|other| other == name);
    let mut wrong = Vec::new();
    for (path, modules) in &found {
        let own = place(&modules[0]).unwrap_or_else(|| panic!("the table of stages has no {}", modules[0]));
        for name in roots(&fs::read_to_string(path).unwrap(), modules.len()) {
            match place(&name) {
                Some(other) if other <= own => {}
                Some(_) => wrong.push(format!("{}: {} imports {name}", path.display(), modules[0])),
                // A name that no module has: of an inner module that `super::` leads to, or a path that hides its module.
                None => assert!(!name.starts_with(char::is_uppercase), "{}: crate::{name}", path.display()),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let there: BTreeSet<&String> = found.iter().map(|(_, modules)| &modules[0]).collect();
    assert_eq!(there, order.iter().collect(), "the table of stages lists the modules");
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "use crate::load::{self, Options};\n\
                use crate::{arch, error::CompileError, weights::{dense, detect}};\n\
                // crate::bundle in a comment\n\
                fn f() { crate::compile::g(super::super::inspect::h()) }\n\
                use super::sibling;\n";
    let expected = ["arch", "compile", "error", "inspect", "load", "weights"];
    assert_eq!(roots(text, 2), expected.map(str::to_owned).into());
    assert!(roots("use super::model::Model;", 1).contains("model"));
    assert!(roots("mycrate::load();", 1).is_empty());
}
