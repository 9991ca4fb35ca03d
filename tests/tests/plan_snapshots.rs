//! The plans of the fixtures, as text, against `tests/snapshots`. `TRIT_BLESS=1 cargo test --test plan_snapshots` writes
//! what is computed now; read the difference before committing it.

use std::path::Path;
use trit_tests::workbench::{compile, fixture, repository, run, tritc};

fn matches_snapshot(name: &str, checkpoint: &Path) {
    let bundle = compile(checkpoint, &format!("plan-{name}"));
    let mut inspect = tritc(&["inspect", "--plan"]);
    inspect.arg(bundle);
    let plan = run(inspect).ok();
    let snapshot = repository().join("tests/snapshots").join(format!("{name}.plan"));
    if std::env::var_os("TRIT_BLESS").is_some() {
        std::fs::create_dir_all(snapshot.parent().unwrap()).unwrap();
        std::fs::write(&snapshot, &plan).unwrap();
    }
    let expected = std::fs::read_to_string(&snapshot).unwrap_or_default();
    if let Some(line) = (0..plan.lines().count().max(expected.lines().count()))
        .find(|&i| plan.lines().nth(i) != expected.lines().nth(i))
    {
        let at = |text: &str| text.lines().nth(line).unwrap_or("nothing").to_owned();
        panic!(
            "{}:{}: expected\n  {}\nfound\n  {}\nTRIT_BLESS=1 accepts the new plan",
            snapshot.display(),
            line + 1,
            at(&expected),
            at(&plan)
        );
    }
}

#[test]
fn fables_12m() {
    matches_snapshot("fables-12m", &repository().join("examples/models/fables-12m"));
}

#[test]
fn bitnet_llama3_rope() {
    matches_snapshot("bitnet-llama3-rope", &fixture("bitnet-llama3-rope"));
}

#[test]
fn bitnet_online() {
    matches_snapshot("bitnet-online", &fixture("bitnet-online"));
}

#[test]
fn llama_bitlinear() {
    matches_snapshot("llama-bitlinear", &fixture("llama-bitlinear"));
}
