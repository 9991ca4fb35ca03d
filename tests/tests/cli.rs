//! The commands as people and programs meet them: output, exit codes, refusals.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;
use trit_format::target::Target;
use trit_runtime::CpuTiers;
use trit_tests::golden::Goldens;
use trit_tests::workbench::{compile, fixture, repository, run, scratch, trit_run, tritc};

fn fables() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "cli-fables"));
    BUNDLE.to_str().unwrap()
}

/// A bundle without a tokenizer.
fn ids_only() -> &'static str {
    static BUNDLE: LazyLock<PathBuf> = LazyLock::new(|| compile(&fixture("llama-bitlinear"), "cli-ids-only"));
    BUNDLE.to_str().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

// ---- generation

#[test]
fn a_prompt_is_continued_and_the_seed_decides() {
    let args = ["-p", "Once upon a time there was", "-n", "24", "--seed", "7"];
    let text = |seed: &str| {
        let args = [&[fables()], &args[..5], &[seed]].concat();
        run(trit_run(&args)).ok()
    };
    let first = text("7");
    assert!(first.split_whitespace().count() > 8, "{first:?}");
    assert_eq!(first, text("7"));
    assert_ne!(first, text("8"));
}

#[test]
fn json_is_one_object_with_ids_text_and_timings() {
    let args = [fables(), "-p", "Once upon", "-n", "6", "--temp", "0", "--json"];
    let json = run(trit_run(&args)).json();
    let ids: Vec<u64> = serde_json::from_value(json["ids"].clone()).unwrap();
    assert!((1..=6).contains(&ids.len()) && ids.iter().all(|&id| id < 4096), "{json}");
    assert!(json["text"].as_str().is_some_and(|t| !t.is_empty()), "{json}");
    assert!(json["timings"].is_object(), "{json}");
}

#[test]
fn ids_are_taken_as_they_are() {
    let text =
        run(trit_run(&[fables(), "-p", "Once upon a time", "-n", "8", "--temp", "0", "--json"])).json();
    let ids =
        run(trit_run(&[fables(), "--ids", "4093,46,1218,605,258,581", "-n", "8", "--temp", "0", "--json"]));
    assert_eq!(text["ids"], ids.json()["ids"], "the tokenizer puts its BOS in front, --ids nothing");
}

#[test]
fn a_bundle_without_tokenizer_takes_and_gives_ids() {
    let json =
        run(trit_run(&[ids_only(), "--ids", "1,2,3", "-n", "4", "--temp", "0", "--ignore-eos", "--json"]))
            .json();
    assert_eq!(json["ids"].as_array().map(Vec::len), Some(4), "{json}");
    assert!(json["text"].is_null(), "{json}");
    run(trit_run(&[ids_only(), "-p", "text", "-n", "1"])).fails(2, &["tokenizer", "--ids"]);
}

#[test]
fn logits_are_written_as_safetensors() {
    let file = scratch().join("cli-logits.safetensors");
    let goldens = Goldens::read(&fixture("llama-bitlinear/golden.tight.safetensors"));
    let ids: Vec<String> = goldens.ids("t2.ids").iter().map(u32::to_string).collect();
    let args = ["logits", ids_only(), "--ids", &ids.join(","), "--output", path(&file), "--kv", "f32"];
    run(trit_run(&args)).ok();
    let written = Goldens::read(&file);
    assert_eq!(written.shape("logits"), goldens.shape("t2.logits"));
    let far = trit_tests::distance::max_abs(written.floats("logits"), goldens.floats("t2.logits"));
    assert!(far <= 1e-3, "a logit differs by {far}");
}

#[test]
fn perplexity_scores_windows_independently() {
    let file = scratch().join("cli-ids.json");
    let json = |ids: &str, window: usize| {
        std::fs::write(&file, format!(r#"{{"ids":[{ids}],"window":{window}}}"#)).unwrap();
        run(trit_run(&["perplexity", fables(), "--ids", path(&file), "--json"])).json()
    };
    let (ab, a, b) = (json("46,1218,605,258,581,471", 3), json("46,1218,605", 3), json("258,581,471", 3));
    let sum = |j: &serde_json::Value| j["nll_sum"].as_f64().unwrap();
    assert_eq!(ab["tokens"], 4);
    assert!((sum(&ab) - sum(&a) - sum(&b)).abs() < 1e-6, "{ab} {a} {b}");
    assert!((ab["ppl"].as_f64().unwrap() - (sum(&ab) / 4.0).exp()).abs() < 1e-6);
}

#[test]
fn bench_gives_a_row_for_each_test_and_thread_count() {
    let args = ["bench", fables(), "-p", "16", "-n", "4", "-t", "1,2", "-r", "1", "-d", "0,24", "--json"];
    let json = run(trit_run(&args)).json();
    let rows = json["rows"].as_array().unwrap();
    let names: Vec<(&str, u64)> =
        rows.iter().map(|r| (r["test"].as_str().unwrap(), r["threads"].as_u64().unwrap())).collect();
    let expected = |t| [("pp16", t), ("tg4", t), ("pp16 @ d24", t), ("tg4 @ d24", t)];
    assert_eq!(names, [expected(1), expected(2)].concat(), "{json}");
    let above_0 = |value: &serde_json::Value| assert!(value.as_f64().unwrap() > 0.0, "{json}");
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(0.0 < number("min") && number("min") <= number("tokens_per_s"), "{row}");
        assert!(number("tokens_per_s") <= number("max"), "{row}");
        assert_eq!(
            row["depth"].as_u64(),
            Some(if row["test"].as_str().unwrap().contains('@') { 24 } else { 0 })
        );
        assert!(row["profile"].is_null(), "{row}");
        let decode = row["phase"] == "decode";
        assert_eq!(row["tokens"].as_u64(), Some(if decode { 4 } else { 16 }));
        if !decode {
            assert!(row["share"].is_null(), "{row}");
            continue;
        }
        ["ternary_bytes", "head_bytes", "ternary_gb_s"].iter().for_each(|key| above_0(&row[*key]));
        // The same arithmetic from the outside.
        let read = (number("ternary_bytes") + number("head_bytes")) * number("tokens_per_s") / 1e9;
        let stream = json["stream_gb_s"][row["threads"].to_string()].as_f64().unwrap();
        assert!((row["share"].as_f64().unwrap() - read / stream).abs() < 1e-6 * (read / stream), "{row}");
    }
    ["open_s", "bytes", "repetitions"].iter().for_each(|key| above_0(&json[*key]));
    assert_eq!(json["bytes"], std::fs::metadata(fables()).unwrap().len());
    assert_eq!(json["model"], "fables-12m");
    assert_eq!(json["kv"], "f16");
    for key in ["version", "cpu", "kernels", "tier"] {
        assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {json}");
    }
    if cfg!(target_os = "linux") {
        above_0(&json["peak_bytes"]);
        // The buffer that the bandwidth is measured with does not count.
        assert!(json["peak_bytes"].as_u64().unwrap() < 512 << 20, "{json}");
        // What is printed can be drawn.
        let pictures = trit_tests::plots::draw(&[("bench.json".to_owned(), json.to_string())]).unwrap();
        assert!(pictures.iter().all(|picture| picture.svg.is_ok()), "{pictures:?}");
    }
}

/// Rows of several sequences at once count the tokens of all of them.
#[test]
fn bench_runs_sequences_at_once() {
    let args =
        ["bench", fables(), "-p", "0", "-n", "3", "-t", "2", "-r", "1", "-b", "1,3,20", "-d", "5", "--json"];
    let json = run(trit_run(&args)).json();
    let rows = json["rows"].as_array().unwrap();
    let seen: Vec<(&str, u64)> =
        rows.iter().map(|r| (r["test"].as_str().unwrap(), r["batch"].as_u64().unwrap())).collect();
    assert_eq!(seen, [("tg3 @ d5", 1), ("tg3 x 3 @ d5", 3), ("tg3 x 20 @ d5", 20)]);
    for row in rows {
        assert!(row["tokens_per_s"].as_f64().unwrap() > 0.0 && row["tokens"] == 3, "{row}");
        assert_eq!(row["share"].is_null(), row["batch"] != 1, "{row}");
    }
    for bad in ["0", "257", "x"] {
        run(trit_run(&["bench", fables(), "-b", bad])).fails(2, &["from 1 to 256"]);
    }
}

/// What a token reads is known from the model: nothing is left out and nothing is counted twice.
#[test]
fn bench_counts_the_weights_a_token_reads() {
    let json =
        run(trit_run(&["bench", fables(), "-p", "0", "-n", "2", "-t", "1", "-r", "1", "--json"])).json();
    let row = &json["rows"][0];
    // Eight layers, each of q and o, k and v with a third of the heads, and gate, up and down; five trits a byte.
    let ternary = row["ternary_bytes"].as_f64().unwrap();
    let weights = 8.0 * 384.0 * (2.0 * 384.0 + 2.0 * 128.0 + 3.0 * 1024.0);
    assert!(weights / 5.0 <= ternary && ternary < weights / 4.7, "{row}");
    // At most the whole table of 4096 rows in 16 bits and both planes of it.
    let head = row["head_bytes"].as_f64().unwrap();
    assert!(head <= 4096.0 * 384.0 * 4.0, "{row}");
}

#[test]
fn bench_prints_a_table_to_copy_and_profiles_beside_it() {
    let args = ["bench", fables(), "-p", "16", "-n", "4", "-t", "2", "-r", "1", "--profile", "--kv", "int8"];
    let ran = run(trit_run(&args));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for word in
        ["| fables-12m |", " pp16 |", " tg4 |", " int8 |", "trit-run ", "kernels: ", "opened and verified"]
    {
        assert!(ran.out.contains(word), "no {word:?} in {}", ran.out);
    }
    for word in ["plain streaming read with 2 threads: ", "a decoded token reads "] {
        assert!(ran.out.contains(word), "no {word:?} in {}", ran.out);
    }
    let widths: Vec<usize> = ran.out.lines().take_while(|l| l.starts_with('|')).map(str::len).collect();
    assert_eq!(widths.len(), 4, "{}", ran.out);
    assert!(widths.iter().all(|w| *w == widths[0]), "{}", ran.out);
    for word in ["pp16, 2 threads\n", "tg4, 2 threads\n", "ternary", "attention"] {
        assert!(ran.err.contains(word), "no {word:?} in {}", ran.err);
    }
    let json = run(trit_run(&[&args[..], &["--json"]].concat())).json();
    for row in json["rows"].as_array().unwrap() {
        let steps = row["profile"]["steps"].as_array().unwrap();
        let ternary = steps.iter().find(|step| step["step"] == "ternary").unwrap();
        assert!(ternary["seconds"].as_f64().unwrap() > 0.0, "{json}");
        assert_eq!(row["profile"]["tokens"], row["tokens"], "{json}");
    }
}

#[test]
fn bench_runs_the_tokens_of_a_text() {
    let file = scratch().join("cli-bench.txt");
    std::fs::write(&file, "Once upon a time there was a king.").unwrap();
    let args = ["bench", fables(), "-p", "0", "-n", "60", "-t", "1", "-r", "1", "--json", "--file"];
    let json = run(trit_run(&[&args[..], &[path(&file)]].concat())).json();
    assert_eq!(json["rows"][0]["test"], "tg60", "a text that is too short begins anew");
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    run(trit_run(&[&args[..], &[path(&file)]].concat())).fails(3, &["cli-bench.txt"]);
    run(trit_run(&[&args[..], &["/no/such/text"]].concat())).fails(3, &["/no/such/text"]);
    let args = ["bench", ids_only(), "-n", "1", "--file", path(&file)];
    std::fs::write(&file, "text").unwrap();
    run(trit_run(&args)).fails(2, &["tokenizer", "--file"]);
}

#[test]
fn bench_refuses_what_the_context_has_no_room_for() {
    for (args, words) in [
        (&["-d", "1020", "-n", "5", "-p", "0"][..], ["tg5 @ d1020", "1025", "1024"]),
        (&["-d", "0,1000", "-p", "25", "-n", "1"], ["pp25 @ d1000", "1025", "1024"]),
        (&["-p", "2000"], ["pp2000", "2000", "1024"]),
        (&["-d", "18446744073709551615"], ["@ d18446744073709551615", "at most", "1024"]),
    ] {
        let ran = run(trit_run(&[&["bench", fables(), "-r", "1"], args].concat()));
        ran.fails(2, &words);
        assert!(ran.out.is_empty(), "{}", ran.out);
    }
    // To the last token.
    let args = ["bench", fables(), "-d", "1020", "-n", "4", "-p", "0", "-t", "1", "-r", "1", "--json"];
    assert_eq!(run(trit_run(&args)).json()["rows"][0]["test"], "tg4 @ d1020");
}

#[test]
fn a_profile_of_prompt_and_generated_tokens_is_printed() {
    let args = [fables(), "-p", "Once upon a time", "-n", "8", "--temp", "0", "--ignore-eos"];
    let plain = run(trit_run(&args));
    assert!(!plain.err.contains("ms/token"), "{}", plain.err);
    let profiled = run(trit_run(&[&args[..], &["--profile"]].concat()));
    assert_eq!((profiled.code, &profiled.out), (Some(0), &plain.out), "{}", profiled.err);
    let (prompt, decode) = profiled.err.split_once("generated tokens\n").expect(&profiled.err);
    assert!(prompt.contains("prompt\n") && prompt.contains("over 6 tokens in 1 passes"), "{prompt}");
    for word in ["ternary", "attention", "head", "ms/token", "guessed "] {
        assert!(decode.contains(word), "no {word:?} in {decode}");
    }
    let undrafted = run(trit_run(&[&args[..], &["--profile", "--no-speculation"]].concat()));
    assert!(undrafted.err.contains("over 7 tokens in 7 passes"), "{}", undrafted.err);
    assert!(undrafted.err.contains("guessed 0 tokens, 0 of them right"), "{}", undrafted.err);
}

#[test]
fn selftest_and_verify_accept_what_was_compiled() {
    run(trit_run(&["selftest", fables()])).ok();
    run(tritc(&["verify", fables()])).ok();
    run(tritc(&["verify", fables(), "--rebuild"])).ok();
}

#[test]
fn inspect_and_disasm_show_what_is_there() {
    let json = run(tritc(&["inspect", fables(), "--json"])).json();
    assert!(json.to_string().contains("fables-12m"), "{json}");
    assert!(run(tritc(&["inspect", fables()])).ok().contains("fables-12m"));
    for (target, mnemonic) in [
        (Target::X86_64V2, "pmaddubsw"),
        (Target::X86_64V3Vnni, "vpdpbusd"),
        (Target::Aarch64, "smlal2"),
        (Target::Aarch64Dotprod, "sdot"),
        (Target::Aarch64I8mm, "smmla"),
    ] {
        let text = run(tritc(&["disasm", fables(), "--target", target.name()])).ok();
        assert!(text.contains(mnemonic), "{target} has no {mnemonic}");
    }
}

/// A reader that has seen enough, such as `head`, is no error.
#[test]
fn a_closed_pipe_ends_quietly() {
    for mut command in [
        tritc(&["disasm", fables()]),
        trit_run(&[fables(), "-p", "Once", "-n", "400", "--ignore-eos", "--seed", "1"]),
    ] {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !err.contains("panicked"), "{command:?}: {err}");
    }
}

// ---- refusals

#[test]
fn typing_errors_are_usage_errors() {
    for args in [
        &["compil", "x"][..],
        &["compile"],
        &["compile", "x", "--targett", "native"],
        &["inspect", fables(), "--frobnicate"],
    ] {
        run(tritc(args)).fails(2, &[]);
    }
    for args in [
        &[fables(), "--temp", "warm"][..],
        &[fables(), "-p", "x", "--ids", "1"],
        &[fables(), "-p", "x", "--kernels", "fast"],
        &[fables(), "-p", "x", "--cpu", "x86-64-v9"],
        &["bench", fables(), "-t", "0"],
        &["logits", fables(), "--ids", "1"],
    ] {
        run(trit_run(args)).fails(2, &[]);
    }
    run(trit_run(&[fables(), "--ids", "5000", "-n", "1"])).fails(2, &["5000", "4096"]);
    run(trit_run(&[fables(), "-p", "x", "-c", "5000"])).fails(2, &["5000", "1024"]);
}

#[test]
fn what_is_no_checkpoint_or_bundle_is_named_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let absent = folder.path().join("absent");
    run(tritc(&["compile", path(&absent)])).fails(3, &[path(&absent)]);
    run(trit_run(&[path(&absent), "-p", "x"])).fails(3, &[path(&absent)]);
    run(tritc(&["inspect", path(&absent)])).fails(3, &[path(&absent)]);
    for (name, bytes) in [("empty.trit", &b""[..]), ("text.trit", &[b'x'; 100][..])] {
        let bundle = file(name, bytes);
        run(trit_run(&[path(&bundle), "-p", "x"])).fails(3, &[name]);
        run(tritc(&["verify", path(&bundle)])).fails(3, &[name]);
    }
    // A folder without weights, and one whose architecture nobody knows.
    run(tritc(&["compile", path(folder.path())])).fails(3, &[]);
    let config = std::fs::read_to_string(fixture("bitnet-online/config.json")).unwrap();
    std::fs::copy(fixture("bitnet-online/model.safetensors"), folder.path().join("model.safetensors"))
        .unwrap();
    file(
        "config.json",
        config.replace("BitNetForCausalLM", "MambaForCausalLM").replace("\"bitnet\"", "\"mamba\"").as_bytes(),
    );
    run(tritc(&["compile", path(folder.path())])).fails(4, &["MambaForCausalLM"]);
    // A key that changes the arithmetic and is not known.
    file("config.json", config.replacen('{', r#"{"attention_twist": 0.5,"#, 1).as_bytes());
    let refused = run(tritc(&["compile", path(folder.path())]));
    assert!(matches!(refused.code, Some(3 | 4)), "{:?} {}", refused.code, refused.err);
    assert!(refused.err.contains("attention_twist"), "{}", refused.err);
}

#[test]
fn a_truncated_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("bitnet-online/config.json"), folder.path().join("config.json")).unwrap();
    let bytes = std::fs::read(fixture("bitnet-online/model.safetensors")).unwrap();
    for keep in [0, 7, 200, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(folder.path().join("model.safetensors"), &bytes[..keep]).unwrap();
        run(tritc(&["compile", path(folder.path())])).fails(3, &["model.safetensors"]);
    }
    assert!(!folder.path().join("bitnet-online.trit").exists());
}

/// One bit in each section, in each header field's neighbourhood, and in padding; and files cut short.
#[test]
fn damaged_bundles_are_refused() {
    let whole = std::fs::read(fables()).unwrap();
    let header = trit_format::container::Header::parse(&whole).unwrap();
    let damaged = scratch().join("cli-damaged.trit");
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let args = [path(&damaged), "--ids", "1,2", "-n", "1", "--trust"];
        for ran in [run(trit_run(&args)), run(tritc(&["verify", path(&damaged)]))] {
            assert_eq!(ran.code, Some(3), "{what}: {} {}", ran.out, ran.err);
            ran.fails(3, &["cli-damaged.trit"]);
        }
    };
    let mut places: Vec<(usize, String)> =
        [0, 8, 12, 16, 24, 40, 64, 72, 80, 100].map(|at| (at, format!("header byte {at}"))).into();
    for section in &header.sections {
        let range = section.range();
        for at in [range.start, (range.start + range.end) / 2, range.end - 1] {
            places.push((at, format!("{} byte {}", section.kind, at - range.start)));
        }
    }
    for (at, what) in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        refused(&bytes, &what);
    }
    for keep in [0, 63, 64, 200, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..keep], &format!("the first {keep} bytes"));
    }
    refused(&[&whole[..], b"x"].concat(), "a byte more");
}

/// Code is as dangerous as a program: a bundle from elsewhere does not get to run its own.
#[test]
fn code_of_others_does_not_run_unasked() {
    let nobody = tempfile::tempdir().unwrap();
    let args = [fables(), "-p", "Once upon a time", "-n", "4", "--temp", "0", "--json", "--verbose"];
    let ran = |more: &[&str]| {
        let mut command = trit_run(&[&args[..], more].concat());
        command.env("TRIT_TRUST_DIR", nobody.path());
        run(command)
    };
    ran(&["--kernels", "embedded"]).fails(5, &["--trust"]);
    let auto = ran(&[]);
    assert!(!auto.err.contains("kernels: embedded") && auto.err.contains("not trusted"), "{}", auto.err);
    let trusted = ran(&["--kernels", "embedded", "--trust"]);
    assert!(trusted.err.contains("kernels: embedded"), "{}", trusted.err);
    assert_eq!(auto.json()["ids"], trusted.json()["ids"]);
    // One's own bundles just work.
    let own = run(trit_run(&[&args[..], &["--kernels", "embedded"]].concat()));
    assert!(own.err.contains("kernels: embedded"), "{}", own.err);
}

#[test]
fn a_tier_the_cpu_lacks_is_refused_by_name() {
    let tiers = CpuTiers::detect();
    let lacking =
        Target::ALL.into_iter().find(|&t| !tiers.contains(t)).expect("no CPU has all architectures");
    for kernels in ["auto", "embedded", "jit"] {
        let args = [fables(), "-p", "x", "-n", "1", "--cpu", lacking.name(), "--kernels", kernels, "--trust"];
        run(trit_run(&args)).fails(4, &[lacking.name()]);
    }
}

// ---- compiling

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = repository().join("examples/models/fables-12m");
    let bytes = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        run(tritc(&[&["compile", path(&checkpoint), "--target", "all", "-o", path(&out)], more].concat()))
            .ok();
        std::fs::read(out).unwrap()
    };
    let first = bytes("a.trit", &[]);
    for (name, more) in
        [("b.trit", &[][..]), ("c.trit", &["--threads", "1"]), ("d.trit", &["--threads", "2"])]
    {
        assert!(bytes(name, more) == first, "{name} differs");
    }
    // The file, the index or the folder: the same checkpoint.
    let out = folder.path().join("e.trit");
    let file = checkpoint.join("model.safetensors");
    run(tritc(&["compile", path(&file), "--target", "all", "-o", path(&out)])).ok();
    assert!(std::fs::read(out).unwrap() == first, "compiled from the file it differs");
}

#[test]
fn compile_json_names_the_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.trit");
    let checkpoint = fixture("llama-bitlinear");
    let json =
        run(tritc(&["compile", path(&checkpoint), "-o", path(&out), "--name", "Nom", "--json"])).json();
    assert_eq!(json["bundle"], path(&out));
    assert_eq!(json["name"], "Nom");
    assert_eq!(json["bytes"], std::fs::metadata(&out).unwrap().len());
}

#[test]
fn what_is_no_bundle_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let precious = folder.path().join("precious.safetensors");
    std::fs::write(&precious, b"years of work").unwrap();
    run(tritc(&["compile", path(&fixture("llama-bitlinear")), "-o", path(&precious)]))
        .fails(2, &["precious"]);
    assert_eq!(std::fs::read(&precious).unwrap(), b"years of work");
}

/// Killed at any moment, a compile leaves either no bundle or a whole one.
#[test]
fn a_killed_compile_leaves_no_half_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("killed.trit");
    let checkpoint = repository().join("examples/models/fables-12m");
    let compile = || tritc(&["compile", path(&checkpoint), "--target", "all", "-o", path(&out)]);
    // Ever later, until one compile ends before it is killed: so every part of it was interrupted.
    let mut interrupted = 0;
    for step in 0.. {
        let mut child = compile().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(step * step * 4));
        let done = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if out.exists() {
            run(tritc(&["verify", path(&out)])).ok();
            std::fs::remove_file(&out).unwrap();
        } else {
            interrupted += 1;
        }
        if done {
            break;
        }
    }
    assert!(interrupted > 0, "no compile was interrupted");
    // What was left behind does not stand in the way.
    run(compile()).ok();
}

/// Whoever types a command of the compiler to the runtime is told so, whatever commands the compiler has.
#[test]
fn commands_of_the_compiler_are_known_to_the_runtime() {
    let help = run(tritc(&["help"])).ok();
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"compile") && names.contains(&"sign"), "{help}");
    // The runtime has these itself.
    for name in names.iter().filter(|name| !["completions", "man", "help"].contains(name)) {
        run(trit_run(&[name, "model.trit"])).fails(2, &[&format!("{name} is a command of tritc")]);
    }
}
