//! The `tritc` command: what it prints, what it leaves, how it ends.

use crate::repository;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `tritc` in `folder`, with records of trust of its own.
fn tritc(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tritc"));
    command.args(arguments).current_dir(folder).env("TRIT_TRUST_DIR", folder.join("trusted"));
    command.output().unwrap()
}

fn fixture() -> String {
    repository().join("tests/fixtures/bitnet-online").display().to_string()
}

fn fails(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty());
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text}"));
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn compile_leaves_a_trusted_bundle_named_after_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["compile", &fixture(), "--target", "x86-64-v2,aarch64", "--json", "--threads", "1"];
    let made = json(&tritc(folder.path(), &arguments));
    assert_eq!(made["bundle"], "bitnet-online.trit");
    assert_eq!(made["targets"], serde_json::json!(["x86-64-v2", "aarch64"]));
    assert!(made["warnings"][0].as_str().unwrap().contains("tokenizer"));
    let fingerprint = made["fingerprint"].as_str().unwrap();
    assert!(folder.path().join("trusted").join(fingerprint).is_file());

    let seen = json(&tritc(folder.path(), &["inspect", "bitnet-online.trit", "--json", "--plan"]));
    assert_eq!((&seen["fingerprint"], &seen["trusted"]), (&made["fingerprint"], &true.into()));
    assert_eq!((&seen["bytes"], &seen["name"]), (&made["bytes"], &made["name"]));
    assert!(seen["plan"].as_str().unwrap().contains("gate(relu2) divide"));
    let text = tritc(folder.path(), &["inspect", "bitnet-online.trit"]);
    let text = String::from_utf8(text.stdout).unwrap();
    for words in ["BitNetForCausalLM", "code for aarch64", "sha256", "no tokenizer", fingerprint] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let verified = tritc(folder.path(), &["verify", "--rebuild", "bitnet-online.trit"]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains("ok"));
    // Made again over the old one, under another name.
    let made = json(&tritc(
        folder.path(),
        &["compile", &fixture(), "--name", "a/b c", "--target", "portable", "--json"],
    ));
    assert_eq!((&made["bundle"], &made["name"]), (&"a-b-c.trit".into(), &"a/b c".into()));
}

/// A model's folder in a Hugging Face cache, and one of its snapshots: the bundle is named after the model, and the
/// command says what to run.
#[test]
fn models_in_a_hugging_face_cache_are_compiled_by_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let compile = |path: &str| {
        let output = tritc(folder.path(), &["compile", path, "--target", "portable"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (model, blobs) = ("hub/models--org--tiny-bitnet", "hub/models--org--tiny-bitnet/blobs");
    let snapshot = format!("{model}/snapshots/0123abcd");
    for name in [blobs, &snapshot, &format!("{model}/refs")] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join(model).join("refs/main"), "0123abcd").unwrap();
    for name in ["config.json", "model.safetensors"] {
        let source = Path::new(&fixture()).join(name);
        // The cache has links to files that are named by their digests.
        #[cfg(unix)]
        {
            std::fs::copy(source, folder.path().join(blobs).join(name)).unwrap();
            let link = folder.path().join(&snapshot).join(name);
            std::os::unix::fs::symlink(format!("../../blobs/{name}"), link).unwrap();
        }
        #[cfg(not(unix))]
        std::fs::copy(source, folder.path().join(&snapshot).join(name)).unwrap();
    }
    for path in [model, &snapshot] {
        let said = compile(path);
        assert!(said.starts_with("tiny-bitnet.trit: "), "{said}");
        assert!(said.ends_with("\nrun      trit-run tiny-bitnet.trit --ids 1,2,3\n"), "{said}");
        std::fs::remove_file(folder.path().join("tiny-bitnet.trit")).unwrap();
    }
    let shipped = repository().join("examples/models/fables-12m").display().to_string();
    assert!(compile(&shipped).ends_with("\nrun      trit-run fables-12m.trit\n"));
    let output =
        tritc(folder.path(), &["compile", &shipped, "--target", "portable", "-o", "it's a model.trit"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("\nrun      trit-run 'it'\\''s a model.trit'\n"), "{said}");
}

#[test]
fn an_account_without_a_trust_folder_is_warned() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trusted"), "in the way").unwrap();
    let output = tritc(folder.path(), &["compile", &fixture(), "--target", "portable"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("warning: bitnet-online.trit: cannot be recorded as trusted"), "{text}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| tritc(folder.path(), arguments);
    let fixture = fixture();
    fails(&run(&["compile", &fixture, "--target", "x86-65"]), 2, &["x86-65", "native, portable, all"]);
    let packed = fixture.replace("bitnet-online", "llama-bitlinear");
    fails(
        &run(&["compile", &packed, "--quantize", "absmean"]),
        2,
        &["--quantize absmean", "declares ternary"],
    );
    // Once, and in the words of the command line alone.
    let whole = |arguments: &[&str]| String::from_utf8(run(arguments).stderr).unwrap();
    assert_eq!(
        whole(&["compile", &packed, "--quantize", "absmean"]),
        "tritc: --quantize absmean is for float weights, but the model's quantization_config declares ternary ones with \
         their scales; leave it away\n"
    );
    assert_eq!(
        whole(&["compile", &fixture, "--context", "16777217"]),
        "tritc: --context 16777217: a bundle's context is 16777216 tokens at most\n"
    );
    let typo = fixture.replace("bitnet-online", "bitnet-onlin");
    fails(&run(&["compile", &typo]), 3, &["bitnet-onlin: no such file; did you mean", "bitnet-online?"]);
    fails(&run(&["compile", "no/such/model"]), 3, &["there is no folder no"]);
    fails(&run(&["inspect", &fixture, "--plan"]), 2, &["--plan", "is a checkpoint", "compile it first"]);
    let neither = format!("{fixture}/prompts.json");
    fails(&run(&["inspect", &neither]), 4, &["neither a bundle nor a checkpoint", "a model's directory"]);
    fails(&run(&["verify", &format!("{fixture}/config.json")]), 3, &["checkpoint", "tritc compile"]);
    std::fs::write(folder.path().join("kept"), "kept").unwrap();
    fails(&run(&["compile", &fixture, "-o", "kept"]), 2, &["kept", "is no .trit bundle"]);
    assert_eq!(std::fs::read(folder.path().join("kept")).unwrap(), b"kept");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn float_weights_are_reported_and_activations_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let run = |model: &str, more: &[&str]| {
        let path = repository().join("tests/fixtures").join(model).display().to_string();
        let mut arguments = vec!["compile", &path, "-o", "out.trit", "--target", "portable"];
        arguments.extend(more);
        let output = tritc(folder.path(), &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stderr).unwrap();
        let plan = tritc(folder.path(), &["inspect", "--plan", "out.trit"]);
        (said, String::from_utf8(plan.stdout).unwrap(), output.stdout)
    };
    let (said, plan, _) = run("llama-trilm", &["-v"]);
    let q =
        "self_attn.q_proj.weight F16 128x128: ternary, a scale per row, 2 different, 40% zeros (2 times)\n";
    assert!(said.contains(q) && said.contains("lm_head.weight F16 400x128: floats, kept\n"), "{said}");
    assert!(plan.contains("absmax of 128"), "{plan}");
    let inspected = tritc(folder.path(), &["inspect", "out.trit"]).stdout;
    let inspected = String::from_utf8(inspected).unwrap();
    for line in ["scales      f16 for each row, in 8", "activations int8, a scale for each 128 columns"] {
        assert!(inspected.contains(line), "{inspected}");
    }
    let (_, plan, made) = run("llama-trilm", &["--activations", "f32", "--json"]);
    assert!(plan.contains("24 bits of 128") && !plan.contains("absmax"), "{plan}");
    let made: serde_json::Value = serde_json::from_slice(&made).unwrap();
    assert_eq!((made["tensors"].as_array().unwrap().len(), &made["tensors"][2]["scales"]), (16, &2.into()));

    let (said, plan, _) = run("llama-trilm", &["-v", "--quantize", "absmean"]);
    assert!(said.contains("q_proj.weight F16 128x128: latent weights, rounded to trits (2 times)"), "{said}");
    assert!(plan.contains("divide") && plan.contains("absmax"), "{plan}");
    let (said, plan, _) = run("bitnet-online", &["--activations", "f32"]);
    assert!(said.contains("warning: the model was trained with int8 activations"), "{said}");
    assert!(plan.contains("24 bits of 128"), "{plan}");
    let (said, plan, _) = run("bitnet-online", &["--activations", "int8"]);
    assert!(!said.contains("trained with") && !plan.contains("of 128"), "{said}{plan}");
}

/// What is known goes to standard output, the reason and the exit code are those of compile, and no file is made.
#[test]
fn checkpoints_are_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| tritc(folder.path(), arguments);
    let path = fixture();
    let seen = json(&run(&["inspect", &path, "--json"]));
    assert_eq!((&seen["architecture"], &seen["refused"]), (&"BitNetForCausalLM".into(), &().into()));
    assert_eq!(seen["tensors"][1]["found"], "latent weights, rounded to trits");
    let text = String::from_utf8(run(&["inspect", &format!("{path}/model.safetensors")]).stdout).unwrap();
    assert!(
        text.contains("activations int8, one scale a token") && text.contains("compiles    yes"),
        "{text}"
    );
    let text = run(&["inspect", &path, "--activations", "f32", "--context", "8"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("activations f32") && text.contains("context     8 tokens"), "{text}");

    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(Path::new(&path).join("model.safetensors"), copy.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(Path::new(&path).join("config.json")).unwrap();
    let config = config.replacen('{', "{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0},", 1);
    std::fs::write(copy.join("config.json"), config).unwrap();
    for arguments in [&["inspect", "copy"][..], &["inspect", "copy", "--json"]] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("rope_scaling.rope_type \"dynamic\" is not supported"), "{said}");
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains("copy"), "{shown}");
        if arguments.contains(&"--json") {
            let refused = &serde_json::from_str::<serde_json::Value>(&shown).unwrap()["refused"];
            assert_eq!(refused["exit_code"], 4);
            assert!(said.contains(refused["message"].as_str().unwrap()), "{refused} {said}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
