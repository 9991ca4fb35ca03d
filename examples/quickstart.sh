#!/bin/sh
# Compiles the shipped checkpoint for this machine and continues a prompt. Needs nothing but Rust.
#
#     sh examples/quickstart.sh ["Another prompt"]
set -eu
cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-target}
cargo build --release --locked -p tritc -p trit-run
"$out/release/tritc" compile examples/models/fables-12m -o "$out/fables-12m.trit"
"$out/release/trit-run" "$out/fables-12m.trit" -p "${1:-Once upon a time there was}" -n 100 --temp 0.8 --top-k 60 --seed 7
