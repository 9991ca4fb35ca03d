#!/usr/bin/env bash
# mlx 0.32.4 (CPU): `mx.quantize(w, bits=2)` does not keep weights that are exactly ternary, although its format can hold them.
#
# The affine format stores a scale and a bias a group and gives code * scale + bias: with scale s and bias -s the codes 0, 1, 2
# are exactly -s, 0, +s. The quantizer spreads its four levels between the group's minimum and maximum instead. Then of
# {-0.5, 0, +0.5} one of the two ends comes back as half of itself, at every group size. With 3, 4 and 8 bits all three come back exactly.
# So an MLX pack of a ternary model cannot be made by quantizing its unpacked weights at 2 bits: the packs that are published
# were written with scale and bias chosen for the purpose, and a file whose bias is not -scale must be refused as not ternary.
#
# Seen: the distinct values after 2 bits are -0.25, 0 and 0.5 (largest error 0.25), after 3, 4 and 8 bits -0.5, 0 and 0.5.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import mlx.core as mx
import numpy as np

trits = np.random.default_rng(0).integers(-1, 2, (8, 256)).astype(np.float32) * 0.5


def after(bits, group):
    packed, scales, biases = mx.quantize(mx.array(trits), group_size=group, bits=bits)
    return np.array(mx.dequantize(packed, scales, biases, group_size=group, bits=bits))


for group in (32, 64, 128):
    values = np.unique(after(2, group)).tolist()
    print("2 bits, group", group, values)
    assert values == [-0.25, 0.0, 0.5], values
for bits in (3, 4, 8):
    assert np.array_equal(after(bits, 64), trits), bits

# The format itself holds them: codes 0, 1, 2 with scale 0.5 and bias -0.5, sixteen codes a word.
codes = (trits * 2 + 1).astype(np.uint32).reshape(8, 16, 16)
words = (codes << (2 * np.arange(16, dtype=np.uint32))).sum(axis=2, dtype=np.uint32)
scales = mx.full((8, 4), 0.5)
back = mx.dequantize(mx.array(words), scales, -scales, group_size=64, bits=2)
assert np.array_equal(np.array(back), trits)
print("as found: 2 bits lose an end of {-s, 0, s}; packed by hand with bias -s they do not")
PYTHON
