//! The house rules that a program can check.

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use trit_tests::workbench::repository;

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn packages() -> Vec<Package> {
    MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata runs")
        .packages
}

/// Which packages of the workspace each depends on, for its own code and for its tests.
fn arrows(kinds: &[DependencyKind]) -> Arrows {
    let packages = packages();
    let ours: BTreeSet<String> = packages.iter().map(|p| p.name.to_string()).collect();
    let to = |p: &Package| {
        let kept = p.dependencies.iter().filter(|d| kinds.contains(&d.kind) && ours.contains(&d.name));
        kept.map(|d| d.name.clone()).collect()
    };
    packages.iter().map(|p| (p.name.to_string(), to(p))).collect()
}

/// The code map of ARCHITECTURE.md: package -> what it may depend on.
fn documented() -> Arrows {
    let text = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let map = text.split("## Code map").nth(1).expect("there is a code map").split("\n## ").next().unwrap();
    let ticked =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows = map.lines().filter(|l| l.starts_with("| `"));
    let mut arrows = Arrows::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let package = ticked(cells[1]).remove(0);
        // Packages only: a crate's cell may also name a feature.
        let mut to: BTreeSet<String> =
            ticked(cells[3]).into_iter().filter(|n| n.starts_with("trit")).collect();
        if cells[3].trim() == "all" {
            to.insert("all".into());
        }
        arrows.insert(package, to);
    }
    arrows
}

#[test]
fn packages_depend_on_what_the_architecture_says() {
    let (documented, actual) = (documented(), arrows(&[DependencyKind::Normal, DependencyKind::Build]));
    let names = |a: &Arrows| a.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&documented), names(&actual), "the code map of ARCHITECTURE.md lists the packages");
    for (package, to) in &actual {
        if !documented[package].contains("all") {
            assert_eq!(to, &documented[package], "dependencies of {package}, found and documented");
        }
    }
}

/// Also through others, and for their tests.
#[test]
fn compiler_and_runtime_never_see_each_other() {
    let arrows = arrows(&[DependencyKind::Normal, DependencyKind::Build, DependencyKind::Development]);
    let reach = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(package) = open.pop() {
            for next in &arrows[&package] {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    for (from, never) in [
        ("tritc", "trit-runtime"),
        ("tritc", "trit-gemm"),
        ("tritc", "trit-kernels"),
        ("tritc", "trit-run"),
        ("tritc", "tritc-cli"),
        ("tritc-cli", "trit-runtime"),
        ("tritc-cli", "trit-kernels"),
        ("tritc-cli", "trit-run"),
        ("trit-gemm", "tritc"),
        ("trit-gemm", "trit-runtime"),
        ("trit-runtime", "tritc"),
        ("trit-runtime", "tritc-cli"),
        ("trit-run", "tritc"),
        ("trit-run", "tritc-cli"),
        ("trit-capi", "tritc"),
        ("trit-capi", "tritc-cli"),
        ("trit-capi", "trit-command"),
        ("trit-examples", "tritc"),
        ("trit-examples", "tritc-cli"),
    ] {
        assert!(!reach(from).contains(never), "{from} must not see {never}");
    }
    assert!(reach("trit-format").is_empty());
}

/// The compiler's libraries know no command line: what they depend on has none, they do not end the process, and none of
/// their texts names an option. `compiler/cli` adds all that.
#[test]
fn the_compilers_libraries_know_no_command_line() {
    let outside =
        ["clap", "clap_complete", "clap_mangen", "ctrlc", "indicatif", "libc", "rustyline", "signal-hook"];
    for package in packages().iter().filter(|p| ["tritc", "trit-codegen"].contains(&p.name.as_str())) {
        let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        let found: Vec<_> = normal.map(|d| d.name.as_str()).filter(|name| outside.contains(name)).collect();
        assert!(found.is_empty(), "{} depends on {found:?}", package.name);
    }
    let is_option = |text: &str| {
        let mut parts = text.split("--").skip(1);
        text.contains('"') && parts.any(|part| part.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let mut seen = 0;
    for path in sources() {
        let name = relative(&path);
        if !["compiler/src/", "compiler/codegen/src/"].iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in
            text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for word in [
                "process::exit",
                "process::abort",
                "_exit(",
                "ExitCode",
                "exit_code",
                "sigaction",
                "set_handler",
            ] {
                assert!(!line.contains(word), "{name}:{}: {word}", number + 1);
            }
            assert!(!is_option(line), "{name}:{}: names an option: {line}", number + 1);
        }
    }
    assert!(seen > 60, "the sources are where they are looked for");
}

/// Every Rust file of the repository.
fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
                walk(&path, found);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(repository(), &mut found);
    assert!(found.len() > 40, "the sources are where they are looked for");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().to_string_lossy().replace('\\', "/")
}

/// Whether a file uses `unsafe`, whatever its comments say.
fn is_unsafe(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.lines().map(|l| l.split("//").next().unwrap_or_default());
    code.flat_map(|l| l.split(|c: char| !c.is_alphanumeric() && c != '_')).any(|w| w == "unsafe")
}

/// What a crate's front page says of `unsafe`: how many files use it, and which, as `` `unsafe` stands in 2 files: `a.rs`
/// (why), `b/c.rs`.`` Nothing where it says nothing.
fn stated(front_page: &str) -> Option<(usize, BTreeSet<String>)> {
    let lines = front_page.lines().filter_map(|line| line.strip_prefix("//!"));
    let page: Vec<&str> = lines.map(str::trim).collect();
    let page = page.join(" ");
    let (_, rest) = page.split_once("`unsafe` stands in ")?;
    let (count, rest) = rest.split_once(" file")?;
    let names = rest.split_once(": ")?.1.split(". The others").next()?;
    let names = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((count.parse().ok()?, names))
}

/// Each crate's front page counts and names the files of its own that use `unsafe`; the crates that say nothing forbid it.
#[test]
fn unsafe_code_stands_where_front_pages_say() {
    // Programs beside the crates, which measure or test.
    let beside = [
        "compiler/codegen/benches/",
        "compiler/codegen/examples/",
        "compiler/codegen/tests/",
        // Which call functions that are meant for C.
        "runtime/capi/tests/arguments.rs",
        "tests/fuzz/fuzz_targets/capi.rs",
        // Which only names it.
        "tests/tests/structure.rs",
    ];
    let mut seen = BTreeSet::new();
    for package in packages() {
        let source = package.manifest_path.parent().unwrap().as_std_path().join("src");
        // A command is a library and a program, each with a front page.
        let pages = ["lib.rs", "main.rs"].map(|file| std::fs::read_to_string(source.join(file)));
        let text: String = pages.into_iter().flatten().collect();
        assert!(!text.is_empty(), "{source:?} has a front page");
        let name = &package.name;
        let inside: Vec<PathBuf> = sources().into_iter().filter(|path| path.starts_with(&source)).collect();
        seen.extend(inside.iter().cloned());
        let Some((count, named)) = stated(&text) else {
            // The compiler sees to these, whatever words stand in their texts.
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "{name} forbids unsafe code or says where it is"
            );
            continue;
        };
        let relative =
            |path: &PathBuf| path.strip_prefix(&source).unwrap().to_string_lossy().replace('\\', "/");
        let found: BTreeSet<String> = inside.iter().filter(|path| is_unsafe(path)).map(relative).collect();
        assert_eq!(named, found, "files of {name} with unsafe code, stated and found");
        assert_eq!(count, found.len(), "number of files of {name} with unsafe code");
        assert!(text.contains("#![deny(unsafe_code)]"), "{name} denies unsafe code elsewhere");
    }
    for path in sources().iter().filter(|path| !seen.contains(*path)) {
        let name = relative(path);
        assert!(beside.iter().any(|b| name.starts_with(b)) || !is_unsafe(path), "{name} has unsafe code");
    }
}

/// The words of a library name no option of a command: what a user can type is for the command to say.
#[test]
fn libraries_know_no_command_line() {
    // Options of both commands that a message could name.
    let options = [
        "--trust",
        "--kernels",
        "--mmap",
        "--no-tokenizer",
        "--stop",
        "--target",
        "--context",
        "--threads",
        "--kv",
        "--cpu",
        "--ids",
        "--chat",
        "with -c",
        "with -o",
        "with -t",
    ];
    let libraries = ["runtime/src/", "runtime/text/src/", "runtime/kernels/src/", "format-spec/src/"];
    for path in sources() {
        let name = relative(&path);
        if !libraries.iter().any(|library| name.starts_with(library)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in
            text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for option in options {
                assert!(!line.contains(option), "{name}:{}: names {option}", number + 1);
            }
            for end in ["process::exit", "process::abort", "set_hook", "_exit(", "sigaction", "ctrlc"] {
                assert!(!line.contains(end), "{name}:{}: {end} is for a command", number + 1);
            }
        }
    }
}

/// Kernels are called, and huge pages asked for, in one file of the runtime each.
#[test]
fn one_place_calls_kernels_and_one_knows_huge_pages() {
    for (what, place) in [
        ("KernelArgs {", "runtime/gemm/src/call.rs"),
        ("Advice::HugePage", "runtime/gemm/src/memory.rs"),
        ("map_anon(", "runtime/gemm/src/memory.rs, runtime/src/kernels/embedded.rs"),
    ] {
        let found = sources().into_iter().filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            relative(path).starts_with("runtime/") && text.contains(what)
        });
        let mut found: Vec<String> = found.map(|path| relative(&path)).collect();
        found.sort();
        assert_eq!(found.join(", "), place, "files with {what}");
    }
}

#[test]
fn files_are_small_and_named_for_what_they_hold() {
    for path in sources() {
        let name = relative(&path);
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!["util", "utils", "helper", "helpers", "common", "misc"].contains(&stem.as_str()), "{name}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() <= 600, "{name} has {} lines: divide it", text.lines().count());
        assert!(text.starts_with("//!"), "{name} opens with what enters, what leaves and why it exists");
    }
}

#[test]
fn the_top_level_stays() {
    let expected: BTreeSet<&str> = [
        "ARCHITECTURE.md",
        "BENCHMARKS.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "docs/SECURITY.md",
        "compiler",
        "deny.toml",
        "deploy",
        "docs",
        "examples",
        "findings",
        "format-spec",
        "pyproject.toml",
        "runtime",
        "rustfmt.toml",
        "tests",
    ]
    .into();
    // What git tracks, where this is a clone; else what is there, without what building leaves.
    let tracked = std::process::Command::new("git").args(["ls-files"]).current_dir(repository()).output();
    let Ok(tracked) = tracked.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()) else { return };
    let found: BTreeSet<&str> = tracked.lines().map(|l| l.split('/').next().unwrap_or(l)).collect();
    let unexpected: Vec<_> = found.difference(&expected).filter(|n| !n.starts_with('.')).collect();
    assert!(unexpected.is_empty(), "not of the top level: {unexpected:?}");
}

/// The walks of ARCHITECTURE.md lead through files that exist, and through few.
#[test]
fn walks_are_short() {
    let text = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Two walks").nth(1).expect("there are walks").split("\n## ").next().unwrap();
    let walks: Vec<&str> = section.split("From ").skip(1).collect();
    assert_eq!(walks.len(), 2);
    for (walk, most) in walks.into_iter().zip([12, 10]) {
        let numbered = (1..).take_while(|n| walk.contains(&format!("{n}. `"))).count();
        assert!((5..=most).contains(&numbered), "{numbered} files, at most {most}: {walk}");
        let paths: Vec<&str> = walk.split('`').skip(1).step_by(2).filter(|p| p.ends_with(".rs")).collect();
        assert!(paths.len() >= numbered);
        for path in paths {
            assert!(repository().join(path).is_file(), "{path} is not there");
        }
    }
}
