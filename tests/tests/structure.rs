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
            ticked(cells[3]).into_iter().filter(|n| n == "tritc" || n.starts_with("trit-")).collect();
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
        ("trit-gemm", "tritc"),
        ("trit-gemm", "trit-runtime"),
        ("trit-runtime", "tritc"),
        ("trit-run", "tritc"),
        ("trit-examples", "tritc"),
    ] {
        assert!(!reach(from).contains(never), "{from} must not see {never}");
    }
    assert!(reach("trit-format").is_empty());
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

/// `unsafe` stands where ARCHITECTURE.md and the crates' first lines say: files and code in memory, rows shared by
/// workers, calling a kernel, intrinsics.
#[test]
fn unsafe_code_stands_in_few_named_places() {
    let allowed = [
        "compiler/codegen/benches/",
        "compiler/codegen/examples/",
        "compiler/codegen/src/jit.rs",
        "compiler/codegen/tests/",
        "compiler/src/ingest/mapped",
        "compiler/src/memory.rs",
        "runtime/gemm/src/call.rs",
        "runtime/gemm/src/cpu.rs",
        "runtime/gemm/src/generate.rs",
        "runtime/gemm/src/kernels.rs",
        "runtime/gemm/src/memory.rs",
        "runtime/kernels/src/",
        "runtime/src/arena.rs",
        "runtime/src/attend.rs",
        "runtime/src/dense.rs",
        "runtime/src/execute.rs",
        "runtime/src/fault.rs",
        "runtime/src/kv.rs",
        "runtime/src/mapping.rs",
        "runtime/src/rows.rs",
        "runtime/src/storage.rs",
        "runtime/src/stream.rs",
        "runtime/src/ternary",
    ];
    let uses = |text: &str| {
        let code = text.lines().map(|l| l.split("//").next().unwrap_or_default());
        code.flat_map(|l| l.split(|c: char| !c.is_alphanumeric() && c != '_')).any(|w| w == "unsafe")
    };
    // The compiler sees to these, whatever words stand in their texts.
    let forbidding = ["format-spec", "runtime/text", "runtime/cli", "tests", "examples"];
    let forbids = |name: &str| forbidding.iter().any(|krate| name.starts_with(&format!("{krate}/src/")));
    for path in sources() {
        let name = relative(&path);
        let here = name == "tests/tests/structure.rs" || allowed.iter().any(|a| name.starts_with(a));
        let here = here || forbids(&name);
        assert!(here || !uses(&std::fs::read_to_string(&path).unwrap()), "{name} has unsafe code");
    }
    for krate in forbidding {
        let root = ["lib.rs", "main.rs"].map(|f| repository().join(krate).join("src").join(f));
        let root = root.iter().find(|p| p.exists()).unwrap();
        let text = std::fs::read_to_string(root).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{krate} forbids unsafe code");
    }
}

/// Kernels are called, and huge pages asked for, in one file of the runtime each.
#[test]
fn one_place_calls_kernels_and_one_knows_huge_pages() {
    for (what, place) in [
        ("KernelArgs {", "runtime/gemm/src/call.rs"),
        ("Advice::HugePage", "runtime/gemm/src/memory.rs"),
        ("map_anon(", "runtime/gemm/src/memory.rs, runtime/src/mapping.rs"),
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
        "SECURITY.md",
        "compiler",
        "deny.toml",
        "examples",
        "findings",
        "format-spec",
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
