"""Packs a ternary matrix in 1.6 bits a weight, and multiplies with it."""

import numpy as np

import trit

rng = np.random.default_rng(0)
n, k = 2560, 6912

trits = rng.integers(-1, 2, (n, k), dtype=np.int8)
scales = rng.random(n, dtype=np.float32)
matrix = trit.pack(trits, scales)
print(matrix)
bits = 8 * matrix.nbytes / trits.size
print(f"{matrix.nbytes / 1e6:.1f} MB, {bits:.2f} bits a weight; as float32 {4 * trits.size / 1e6:.1f} MB")

# As precise as float32.
x = rng.standard_normal((4, k)).astype(np.float32)
exact = x.astype(np.float64) @ (trits * scales[:, None].astype(np.float64)).T
error = np.abs(trit.gemm(x, matrix) - exact).max()
print(f"gemm differs by {error:.1e} from float64; values reach {np.abs(exact).max():.0f}")

# Int8 activations give exact integers.
q = rng.integers(-128, 128, (4, k), dtype=np.int8)
assert np.array_equal(trit.gemm_i8(q, matrix), q.astype(np.int32) @ trits.T.astype(np.int32))
print("gemm_i8 is exact")
