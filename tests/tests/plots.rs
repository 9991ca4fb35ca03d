//! Pictures of measurements: the same bytes for the same data, every figure in them, and nonsense refused.

use serde_json::{Value, json};
use trit_tests::plots::{Picture, draw};
use trit_tests::workbench::{program, repository, run};

fn row(phase: &str, depth: usize, threads: usize, tokens_per_s: f64) -> Value {
    let row = json!({ "test": "x", "phase": phase, "tokens": 128, "depth": depth, "threads": threads,
                      "tokens_per_s": tokens_per_s, "min": 1.0, "max": 99.0 });
    match phase {
        "decode" => {
            let Value::Object(mut row) = row else { unreachable!() };
            row.insert("ternary_bytes".into(), json!(400_000_000));
            row.insert("head_bytes".into(), json!(200e6));
            Value::Object(row)
        }
        _ => row,
    }
}

fn report(tier: &str) -> Value {
    let rows = [
        row("prefill", 0, 1, 511.5),
        row("decode", 0, 1, 23.25),
        row("decode", 4096, 1, 17.0),
        row("prefill", 0, 2, 912.5),
        row("decode", 0, 2, 42.5),
    ];
    json!({ "version": "0.1.0", "model": "<2B>", "cpu": "Some CPU", "kernels": format!("embedded {tier}"),
            "tier": tier, "kv": "f16", "stream_gb_s": { "1": 18.0, "2": 33.0 }, "peak_bytes": 800u64 << 20,
            "open_s": 0.3, "rows": rows })
}

fn peers() -> String {
    std::fs::read_to_string(repository().join("tests/bench/peers.json")).unwrap()
}

fn files(reports: &[Value]) -> Vec<(String, String)> {
    let name = |i: usize| format!("data-{i}.json");
    let mut files: Vec<_> = reports.iter().enumerate().map(|(i, r)| (name(i), r.to_string())).collect();
    files.push(("peers.json".into(), peers()));
    files
}

fn svg<'a>(pictures: &'a [Picture], name: &str) -> &'a str {
    pictures.iter().find(|p| p.name == name).unwrap().svg.as_ref().unwrap()
}

#[test]
fn every_figure_is_in_its_picture() {
    let pictures = draw(&files(&[report("x86-64-v4-vbmi"), report("x86-64-v3")])).unwrap();
    for (name, words) in [
        (
            "decode.svg",
            &["23.2, 1 thread<", "42.5, 2 threads<", "20.4, 2 threads<", "trit-run x86-64-v3<"][..],
        ),
        ("prefill.svg", &["912.5, 2 threads<", "145.0, 2 threads<"]),
        // 18 GB/s of 600 MB a token.
        ("threads.svg", &["42.5<", "30.0<", "55.0<", "streamed at 18.0, 33.0 GB/s<"]),
        ("context.svg", &["17.0<", "4096<", "trit-run x86-64-v3, 1 thread<"]),
        ("memory.svg", &[">800<", ">1735<"]),
    ] {
        let svg = svg(&pictures, name);
        for word in words {
            assert!(svg.contains(word), "{name} lacks {word}: {svg}");
        }
        assert!(svg.contains("&lt;2B&gt;, Some CPU") && !svg.contains("<2B>"), "{name}: {svg}");
        for never in ["NaN", "inf", "font-face", "href", "background"] {
            assert!(!svg.contains(never), "{name} has {never}");
        }
    }
    // An engine without figures for a phase has no bar there.
    assert!(!svg(&pictures, "prefill.svg").contains("TQ1_0"));
}

#[test]
fn a_bar_is_as_long_as_its_number() {
    let pictures = draw(&files(&[report("x86-64-v3")])).unwrap();
    let widths: Vec<f64> = svg(&pictures, "decode.svg")
        .lines()
        .filter(|line| line.starts_with("<rect"))
        .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
        .collect();
    // Ours come first, by speed; then TL2.
    for (bar, value) in [(0, 23.25), (2, 11.4), (3, 20.4)] {
        let (found, expected) = (widths[bar] / widths[1], value / 42.5);
        assert!((found - expected).abs() < 1e-3, "bar {bar} is {found} of the longest, not {expected}");
    }
}

#[test]
fn the_same_data_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.json");
    std::fs::write(&data, report("x86-64-amx").to_string()).unwrap();
    let draw = |out: &str| {
        let out = folder.path().join(out);
        let mut command = program("plots");
        command.arg(&data).arg(repository().join("tests/bench/peers.json")).arg(&out);
        run(command).ok();
        ["decode", "prefill", "threads", "context", "memory"]
            .map(|name| std::fs::read(out.join(name).with_extension("svg")).unwrap())
    };
    assert!(draw("a") == draw("b/c"));
}

#[test]
fn what_there_are_no_measurements_of_is_left_out() {
    let mut one = report("x86-64-v3");
    one["rows"] = json!([row("decode", 0, 1, 23.0)]);
    one["peak_bytes"] = Value::Null;
    let pictures = draw(&files(&[one])).unwrap();
    for picture in &pictures {
        assert_eq!(picture.svg.is_ok(), picture.name == "decode.svg", "{picture:?}");
    }
}

#[test]
fn malformed_data_is_refused_by_name() {
    let refused = |files: &[(String, String)], words: &[&str]| {
        let problem = draw(files).unwrap_err();
        for word in words {
            assert!(problem.contains(word), "{word:?} is not in {problem:?}");
        }
    };
    let with = |pointer: &str, value: Value| {
        let mut changed = report("x86-64-v3");
        match changed.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => panic!("{pointer}"),
        }
        files(&[report("x86-64-v2"), changed])
    };
    let text = |text: &str| vec![("x.json".to_owned(), text.to_owned())];
    refused(&[], &["no measurements"]);
    refused(&text("{"), &["x.json", "no JSON"]);
    refused(&text("{}"), &["x.json", "rows"]);
    refused(&text(&peers()), &["no measurements"]);
    refused(&text(r#"{"peers": [{"name": "x"}]}"#), &["x.json", "source"]);
    refused(
        &text(r#"{"source": "y", "peers": [{"name": "x", "decode": {"1": -1}}]}"#),
        &["x.json", "x is -1"],
    );
    refused(&text(r#"{"source": "y", "peers": [{"name": "x", "decoded": {}}]}"#), &["decoded"]);
    refused(&with("/rows", json!([])), &["data-1.json", "no rows"]);
    refused(&with("/rows/1/tokens_per_s", json!(0)), &["data-1.json", "rows[1].tokens_per_s", "0"]);
    refused(&with("/rows/1/tokens_per_s", json!("fast")), &["data-1.json", "fast"]);
    refused(&with("/rows/1/phase", json!("training")), &["data-1.json", "training"]);
    refused(&with("/rows/1/phase", json!("prefill")), &["data-1.json", "rows[1]", "another test"]);
    refused(&with("/stream_gb_s/2", json!(0.0)), &["data-1.json", "stream_gb_s.2"]);
    refused(&with("/model", json!("8B")), &["data-1.json", "8B", "<2B>"]);
    refused(&with("/cpu", json!("Other")), &["data-1.json", "Other"]);
    refused(&with("/tier", json!("x86-64-v2")), &["data-1.json", "x86-64-v2", "twice"]);
    let twice = [files(&[report("x86-64-v3")]), text(&peers())].concat();
    refused(&twice, &["x.json", "only one file"]);
    let mut command = program("plots");
    command.args(["/no/such/data.json", "out"]);
    run(command).fails(3, &["/no/such/data.json"]);
    run(program("plots")).fails(2, &["usage"]);
}
