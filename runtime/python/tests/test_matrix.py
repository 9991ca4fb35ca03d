"""Packed matrices and their products: right results, and errors that name the argument and the remedy."""

import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import trit

rng = np.random.default_rng(1)


def trits(n: int, k: int) -> np.ndarray:
    return rng.integers(-1, 2, (n, k), dtype=np.int8)


@pytest.mark.parametrize("kernels", ["auto", "portable"])
@pytest.mark.parametrize("n, k", [(1, 1), (3, 5), (80, 128), (81, 129), (200, 1000)])
def test_a_packed_matrix_has_the_trits_and_products_of_its_array(n, k, kernels):
    w = trits(n, k)
    packed = trit.pack(w, kernels=kernels)
    assert packed.shape == (n, k) and packed.scales == 1.0 and packed.group_size is None
    np.testing.assert_array_equal(packed.unpack(), w)
    np.testing.assert_array_equal(trit.unpack(packed), w)
    x = rng.integers(-128, 128, (4, k), dtype=np.int8)
    sums = trit.gemm_i8(x, packed)
    assert sums.dtype == np.int32
    np.testing.assert_array_equal(sums, x.astype(np.int32) @ w.T.astype(np.int32))


@pytest.mark.parametrize("scales", ["tensor", "rows", "groups"])
def test_float_products_are_as_exact_as_float32(scales):
    n, k = 160, 256
    w = trits(n, k)
    group = None
    if scales == "tensor":
        s, whole = 0.37, np.full((n, k), 0.37)
    elif scales == "rows":
        s = rng.random(n, dtype=np.float32)
        whole = np.repeat(s[:, None], k, 1)
    else:
        s, group = rng.random((n, 2), dtype=np.float32), 128
        whole = np.repeat(s, 128, 1)
    packed = trit.pack(w, s, group)
    np.testing.assert_allclose(packed.scales, s)
    x = rng.standard_normal((5, k)).astype(np.float32)
    exact = x.astype(np.float64) @ (w * whole).T
    np.testing.assert_allclose(trit.gemm(x, packed), exact, rtol=0, atol=2e-6 * k)
    coarse = trit.gemm(x, packed, activations="int8-group")
    assert np.linalg.norm(coarse - exact) < 0.02 * np.linalg.norm(exact)
    np.testing.assert_array_equal(trit.gemm(x[2], packed), trit.gemm(x, packed)[2])


def test_int8_activations_are_those_of_bitnet():
    w, x = trits(64, 96), rng.standard_normal((3, 96)).astype(np.float32)
    s = np.float32(127) / np.abs(x).max(1, keepdims=True)
    q = np.rint(x * s).astype(np.int32)
    expected = (q @ w.T.astype(np.int32)) / s * np.float32(0.5)
    np.testing.assert_allclose(trit.gemm(x, trit.pack(w, 0.5), activations="int8"), expected, rtol=1e-6)


def test_any_layout_and_byte_order_gives_the_right_result():
    w, x = trits(40, 64), rng.standard_normal((6, 64)).astype(np.float32)
    packed = trit.pack(w)
    expected = trit.gemm(x, packed)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in [
        np.asfortranarray(x),
        x.astype(">f4"),
        np.repeat(x, 2, 0)[::2],
        x[::-1][::-1],
        unaligned,
        frozen,
    ]:
        np.testing.assert_array_equal(trit.gemm(same, packed), expected)
    np.testing.assert_array_equal(trit.pack(np.asfortranarray(w)).unpack(), w)
    np.testing.assert_array_equal(trit.pack(w[::-1]).unpack(), w[::-1])


def test_results_can_go_into_an_array():
    packed, x = trit.pack(trits(40, 64)), rng.standard_normal((6, 64)).astype(np.float32)
    out = np.empty((6, 40), np.float32)
    assert trit.gemm(x, packed, out=out) is out
    np.testing.assert_array_equal(out, trit.gemm(x, packed))
    square = trit.pack(trits(64, 64))
    with pytest.raises(ValueError, match="out shares memory with another argument"):
        trit.gemm(x, square, out=x)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only: pass an array that can be written"):
        trit.gemm(x, packed, out=out)
    with pytest.raises(ValueError, match="out is not contiguous: pass an array made by numpy.empty"):
        trit.gemm(x, packed, out=np.empty((6, 80), np.float32)[:, ::2])
    with pytest.raises(ValueError, match=r"out must be of shape \(6, 40\), but has the shape \(6, 41\)"):
        trit.gemm(x, packed, out=np.empty((6, 41), np.float32))
    with pytest.raises(
        TypeError, match="out must have elements of float32, not float64: pass an array made with"
    ):
        trit.gemm(x, packed, out=np.empty((6, 40)))


def test_sizes_of_nothing():
    packed = trit.pack(trits(40, 64))
    assert trit.gemm(np.empty((0, 64), np.float32), packed).shape == (0, 40)
    for shape in [(0, 4), (4, 0), (0, 0)]:
        with pytest.raises(ValueError, match="[nk] is 0; at least 1 is needed"):
            trit.pack(np.empty(shape, np.int8))


@pytest.mark.parametrize(
    "argument, error, words",
    [
        (
            [[1, 0]],
            TypeError,
            r"trits must be a numpy.ndarray of int8, not .*list.*: pass numpy.asarray\(trits, dtype",
        ),
        (
            np.ones((2, 2)),
            TypeError,
            r"trits must have elements of int8, not float64: pass trits.astype\(numpy.int8\)",
        ),
        (np.ones((2, 2), np.uint8), TypeError, "trits must have elements of int8, not uint8"),
        (
            np.ones(4, np.int8),
            ValueError,
            r"trits must be \[n, k\] with at most 2\^24 rows, but has the shape \(4,\)",
        ),
        (np.full((2, 3), 2, np.int8), ValueError, "row 0, column 0 is 2; -1, 0 and 1 are possible"),
        (
            np.broadcast_to(np.int8(1), (1 << 30, 1 << 10)),
            ValueError,
            r"trits must be \[n, k\] with at most 2\^24",
        ),
        (
            np.ma.masked_array(np.ones((2, 2), np.int8)),
            TypeError,
            "trits is a masked array: pass trits.filled",
        ),
    ],
)
def test_what_is_no_matrix_of_trits_is_refused_by_name(argument, error, words):
    with pytest.raises(error, match=words):
        trit.pack(argument)


@pytest.mark.parametrize(
    "scales, group_size, error, words",
    [
        (float("nan"), None, ValueError, "scale 0 is NaN; scales are finite"),
        (np.array([1, np.inf], np.float32), None, ValueError, "scale 1 is inf; scales are finite"),
        (np.ones(3, np.float32), None, ValueError, r"scales must be a number, or float32 \[2\], or"),
        (
            np.ones(2),
            None,
            TypeError,
            r"scales must have elements of float32, not float64: pass scales.astype",
        ),
        ("big", None, TypeError, "scales must be a numpy.ndarray of float32, not .*str"),
        (0.5, 32, ValueError, "group_size is 32, but scales have no groups"),
        (
            np.ones((2, 3), np.float32),
            64,
            ValueError,
            "scales are for 3 groups, but 64 columns in groups of 64 are 1",
        ),
        (np.ones((2, 4), np.float32), 16, ValueError, "multiple"),
        (
            np.ones((2, 1), np.float32),
            0,
            ValueError,
            "scales are for 1 groups, but 64 columns in groups of 0 are 0",
        ),
    ],
)
def test_scales_that_do_not_fit_are_refused_by_name(scales, group_size, error, words):
    with pytest.raises(error, match=words):
        trit.pack(trits(2, 64), scales, group_size)


def test_activations_that_do_not_fit_are_refused_by_name():
    packed = trit.pack(trits(40, 64))
    with pytest.raises(ValueError, match=r"x must be \[m, 64\] or \[64\], but has the shape \(2, 63\)"):
        trit.gemm(np.zeros((2, 63), np.float32), packed)
    with pytest.raises(TypeError, match=r"x must have elements of float32, not float64: pass x.astype"):
        trit.gemm(np.zeros((2, 64)), packed)
    with pytest.raises(
        ValueError, match='activations is "int4"; "float", "int8" and "int8-group" are possible'
    ):
        trit.gemm(np.zeros((2, 64), np.float32), packed, activations="int4")
    with pytest.raises(MemoryError):
        trit.gemm(np.broadcast_to(np.float32(1), (1 << 40, 64)), packed)
    grouped = trit.pack(trits(2, 64), np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="scales of groups"):
        trit.gemm_i8(np.zeros((1, 64), np.int8), grouped)
    bad = np.ones((2, 64), np.float32)
    bad[1, 3] = np.nan
    y = trit.gemm(bad, packed)
    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()


@settings(max_examples=60, deadline=None)
@given(
    w=hnp.arrays(np.int8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=90), elements=st.integers(-1, 1)),
    x=hnp.arrays(
        st.sampled_from([np.dtype(t) for t in ("f4", ">f4", "f8", "i1", "f2", "?", "c8", "O", "U3")]),
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=90),
    ),
)
def test_nothing_that_is_passed_is_a_defect(w, x):
    """A panic is no Exception, so that it would fail here."""
    try:
        packed = trit.pack(w)
    except ValueError:
        packed = trit.pack(trits(7, x.shape[-1] if x.ndim and x.shape[-1] else 1))
    for product in (trit.gemm, trit.gemm_i8):
        try:
            y = product(x, packed)
        except (TypeError, ValueError):
            continue
        assert y.shape == x.shape[:-1] + packed.shape[:1]


def test_pickles_and_words():
    w = trits(5, 64)
    for packed in [
        trit.pack(w, 0.5, kernels="portable"),
        trit.pack(w, rng.random((5, 2), dtype=np.float32), 32),
    ]:
        again = pickle.loads(pickle.dumps(packed))
        np.testing.assert_array_equal(again.unpack(), w)
        np.testing.assert_array_equal(again.scales, packed.scales)
        assert (again.kernels, again.group_size) == (packed.kernels, packed.group_size)
    assert (
        repr(trit.pack(w, 0.5, kernels="portable"))
        == "<trit.PackedMatrix [5, 64], scale 0.5, 1 KiB, portable>"
    )


def test_threads_share_a_matrix_and_results_do_not_depend_on_their_number():
    packed, x = trit.pack(trits(400, 512)), rng.standard_normal((9, 512)).astype(np.float32)
    expected = trit.gemm(x, packed)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(trit.gemm(x, packed), expected):
                wrong.append(True)

    before = trit.get_num_threads()
    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for count in (1, 3, 2):
        trit.set_num_threads(count)
        assert trit.get_num_threads() == count
    for worker in workers:
        worker.join()
    assert not wrong
    for count in (0, 5000):
        with pytest.raises(ValueError, match=f"threads is {count}; 1 to 4096 are possible"):
            trit.set_num_threads(count)
    trit.set_num_threads(before)


def test_a_forked_child_multiplies_too():
    program = """
import os, numpy as np, trit
w = trit.pack(np.ones((300, 256), np.int8))
x = np.ones((3, 256), np.float32)
assert (trit.gemm(x, w) == 256).all()
child = os.fork()
if child == 0:
    os._exit(0 if (trit.gemm(x, w) == 256).all() else 1)
assert os.waitpid(child, 0)[1] == 0
assert (trit.gemm(x, w) == 256).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_numpys_functions_are_looked_up_by_the_import():
    """Ctrl-C while they were looked up later was a panic."""
    program = """
import importlib, sys, trit
core = "numpy._core" if "numpy._core" in sys.modules else "numpy.core"
assert hasattr(importlib.import_module(core + ".multiarray"), "_RUST_NUMPY_BORROW_CHECKING_API")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
