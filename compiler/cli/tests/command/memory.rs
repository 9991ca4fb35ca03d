//! A checkpoint may be larger than memory: it is mapped and streamed, never held.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const HIDDEN: usize = 2048;
const FFN: usize = 4096;
const LAYERS: usize = 2;
const VOCAB: usize = 64;

/// Writes a Llama with f32 weights. All but the embedding and the norms are a hole in the file, which
/// takes no room on disk and reads as zeros; gives its length in bytes.
fn sparse_checkpoint(folder: &Path) -> u64 {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": VOCAB,
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": 16,
        "tie_word_embeddings": true, "max_position_embeddings": 64,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut written = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    let mut hole = Vec::new();
    for layer in 0..LAYERS {
        let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
        for name in ["input_layernorm", "post_attention_layernorm"] {
            written.push((at(name), vec![HIDDEN]));
        }
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            hole.push((at(&format!("self_attn.{name}")), vec![HIDDEN, HIDDEN]));
        }
        for name in ["gate_proj", "up_proj"] {
            hole.push((at(&format!("mlp.{name}")), vec![FFN, HIDDEN]));
        }
        hole.push((at("mlp.down_proj"), vec![HIDDEN, FFN]));
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in written.iter().chain(&hole) {
        let bytes: usize = 4 * shape.iter().product::<usize>();
        let info = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [end, end + bytes] });
        header.insert(name.clone(), info);
        end += bytes;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let floats = written.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>();
    let values: Vec<u8> = (0..floats).flat_map(|i| (1.0 + (i % 97) as f32 / 97.0).to_le_bytes()).collect();
    file.write_all(&values).unwrap();
    let len = 8 + header.len() as u64 + end as u64;
    file.set_len(len).unwrap();
    len
}

/// The most memory that a process has had resident so far, in KiB; mapped files count.
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_checkpoint_larger_than_memory_compiles() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: memory is limited and measured on Linux alone");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = sparse_checkpoint(folder.path()) / 1024;
    // What the process may allocate, in KiB; and with mapped pages on top, it stays below this too.
    let (allocated, resident) = (checkpoint / 4, checkpoint / 2);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -d {allocated} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_tritc")]);
    command.args(["compile", ".", "-o", "out.trit", "--target", "portable", "--threads", "2"]);
    command.current_dir(folder.path()).env("TRIT_TRUST_DIR", folder.path().join("trusted"));
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(peak(child.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("a checkpoint of {checkpoint} KiB, {most} KiB resident at most");
    assert!(most > 0 && most < resident, "{most} KiB of {checkpoint} were resident");
    assert!(fs::metadata(folder.path().join("out.trit")).unwrap().len() > checkpoint * 1024 / 32);
}
