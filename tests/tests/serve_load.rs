//! A small load on the server: clients of all kinds at once, well-behaved and not. `src/bin/load.rs` puts a large one on it.

use trit_runtime::KernelChoice;
use trit_tests::engines;
use trit_tests::load::{Load, run};
use trit_tests::serving::Served;
use trit_tests::workbench::{compile, repository};

#[test]
fn every_client_gets_its_own_answer_whatever_others_do() {
    let bundle = compile(&repository().join("examples/models/fables-12m"), "serve-load");
    let model = engines::load(&bundle, KernelChoice::Auto);
    // Few slots and a short queue, and memory for few texts, so that requests wait, come back, and lose their caches.
    let limits =
        ["--slots", "6", "--queue", "4", "--kv-memory", "24M", "--max-connections", "200", "--log", "error"];
    let served = Served::start(&bundle.display().to_string(), &limits);
    let report = run(&served, &model, Load { requests: 400, clients: 16, idle: 50, body: 20 << 20 });
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(report.kinds.len() == 9 && report.equal > 150 && report.postponed > 0, "{report:#?}");
}
