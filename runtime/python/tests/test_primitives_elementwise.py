"""Element-wise arithmetic of trits: right results in both storages, and errors that name the argument and the remedy."""

import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import trit

rng = np.random.default_rng(2)

# Each operation, how many operands it has, and the same in NumPy.
OPERATIONS = {
    "tadd": (trit.tadd, 2, lambda a, b: np.clip(a + b, -1, 1)),
    "tmul": (trit.tmul, 2, lambda a, b: a * b),
    "tmin": (trit.tmin, 2, np.minimum),
    "tmax": (trit.tmax, 2, np.maximum),
    "tnot": (trit.tnot, 1, lambda a: -a),
    "ternary_fma": (trit.ternary_fma, 3, lambda a, b, c: np.clip(a * b + c, -1, 1)),
}
every_operation = pytest.mark.parametrize("name", OPERATIONS)


def trits(*shape):
    return rng.integers(-1, 2, shape, dtype=np.int8)


@every_operation
@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (3, 0), (0, 3), (7, 64), (2, 3, 11), (1, 5000), (1500, 1001)])
def test_both_storages_give_what_numpy_gives(name, shape):
    operation, count, reference = OPERATIONS[name]
    operands = [np.asarray(trits(*shape)) for _ in range(count)]
    expected = np.asarray(reference(*operands))
    result = operation(*operands)
    assert result.dtype == np.int8 and result.shape == shape
    np.testing.assert_array_equal(result, expected)
    if shape:
        packed = operation(*(trit.pack_trits(operand) for operand in operands))
        assert isinstance(packed, trit.PackedTrits) and packed.shape == shape
        np.testing.assert_array_equal(packed.unpack(), expected)
        assert packed == trit.pack_trits(expected)


@every_operation
def test_results_can_go_into_an_array(name):
    operation, count, reference = OPERATIONS[name]
    operands = [trits(4, 50) for _ in range(count)]
    out = np.full((4, 50), 7, np.int8)
    assert operation(*operands, out=out) is out
    np.testing.assert_array_equal(out, reference(*operands))
    with pytest.raises(ValueError, match="out shares memory with another argument"):
        operation(*operands, out=operands[0])
    with pytest.raises(ValueError, match=r"out must be of shape \(4, 50\), but has the shape \(4, 51\)"):
        operation(*operands, out=np.empty((4, 51), np.int8))
    with pytest.raises(TypeError, match="out must have elements of int8, not uint8: pass an array made with"):
        operation(*operands, out=np.empty((4, 50), np.uint8))
    with pytest.raises(ValueError, match="out is not contiguous"):
        operation(*operands, out=np.empty((4, 100), np.int8)[:, ::2])
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        operation(*operands, out=out)
    with pytest.raises(TypeError, match="out is for int8 arrays, and packed arrays do not change: leave it away"):
        operation(*(trit.pack_trits(operand) for operand in operands), out=np.empty((4, 50), np.int8))


@every_operation
def test_any_layout_gives_the_right_result(name):
    operation, count, reference = OPERATIONS[name]
    operands = [trits(6, 40) for _ in range(count)]
    expected = reference(*operands)
    frozen = operands[0].copy()
    frozen.flags.writeable = False
    spread = np.repeat(operands[0], 2, 1)[:, ::2]
    for same in [np.asfortranarray(operands[0]), spread, operands[0][::-1][::-1], frozen]:
        np.testing.assert_array_equal(operation(same, *operands[1:]), expected)
        np.testing.assert_array_equal(trit.pack_trits(same).unpack(), operands[0])
    row = np.broadcast_to(operands[0][0], (6, 40))
    np.testing.assert_array_equal(operation(row, *operands[1:]), reference(row, *operands[1:]))


@pytest.mark.parametrize(
    "a, error, words",
    [
        ([1, 0], TypeError, r"a must be a numpy.ndarray of int8, not .*list.*: pass numpy.asarray\(a, dtype=numpy.int8\)"),
        (1, TypeError, r"a must be a numpy.ndarray of int8, not .*int"),
        (None, TypeError, r"a must be a numpy.ndarray of int8, not .*NoneType"),
        (np.ones(2), TypeError, r"a must have elements of int8, not float64: pass a.astype\(numpy.int8\)"),
        (np.ones(2, ">i2"), TypeError, r"a must have elements of int8, not (>i2|int16)"),
        (np.ones(2, np.uint8), TypeError, "a must have elements of int8, not uint8"),
        (np.full(2, np.nan), TypeError, "a must have elements of int8, not float64"),
        (np.array([1, 2], np.int8), ValueError, r"a\[1\] is 2; -1, 0 and 1 are possible: pass numpy.sign\(a\)"),
        (np.ma.masked_array(np.ones(2, np.int8)), TypeError, "a is a masked array: pass a.filled"),
    ],
)
def test_what_is_no_array_of_trits_is_refused_by_name(a, error, words):
    with pytest.raises(error, match=words):
        trit.tnot(a)
    with pytest.raises(error, match=words):
        trit.tadd(a, np.ones(2, np.int8))
    with pytest.raises(error, match=words.replace("a ", "c ", 1).replace("a.", "c.").replace(r"(a", "(c").replace(r"a\[", r"c\[")):
        trit.ternary_fma(np.ones(2, np.int8), np.ones(2, np.int8), a)


def test_the_first_value_that_is_no_trit_is_named():
    a, b = trits(300, 200), trits(300, 200)
    for value, at in [(2, (299, 199)), (-128, (7, 3)), (127, (0, 0))]:
        b[at] = value
        with pytest.raises(ValueError, match=rf"b\[{at[0]}, {at[1]}\] is {value}; -1, 0 and 1 are possible"):
            trit.tmul(a, b)
        with pytest.raises(ValueError, match=rf"trits\[{at[0]}, {at[1]}\] is {value}; -1, 0 and 1 are possible"):
            trit.pack_trits(b)


def test_shapes_must_be_equal():
    words = (
        r"b must have the shape of a, \(3, 4\), but has the shape \(4,\): arrays are not broadcast, pass "
        r"numpy.broadcast_to\(b, a.shape\)"
    )
    with pytest.raises(ValueError, match=words):
        trit.tadd(trits(3, 4), trits(4))
    with pytest.raises(ValueError, match=words):
        trit.tadd(trit.pack_trits(trits(3, 4)), trit.pack_trits(trits(4)))
    # As many bytes, but other rows.
    with pytest.raises(ValueError, match="c must have the shape of a"):
        trit.ternary_fma(*(trit.pack_trits(trits(2, 5)) for _ in range(2)), trit.pack_trits(trits(10)))
    with pytest.raises(TypeError, match=r"b must be a trit.PackedTrits as other operands are, .*: pass trit.pack_trits\(b\)"):
        trit.tmin(trit.pack_trits(trits(4)), trits(4))
    with pytest.raises(TypeError, match=r"a must be a trit.PackedTrits as other operands are"):
        trit.tmin(trits(4), trit.pack_trits(trits(4)))


def test_arrays_that_only_claim_to_be_huge():
    huge = np.broadcast_to(np.int8(1), (1 << 40,))
    with pytest.raises((ValueError, MemoryError)):
        trit.tnot(huge)
    with pytest.raises((ValueError, MemoryError)):
        trit.pack_trits(huge)
    with pytest.raises(ValueError, match="b must have the shape of a"):
        trit.tadd(np.ones(3, np.int8), huge)
    with pytest.raises(ValueError, match="shape .* has too many elements"):
        trit.PackedTrits.from_bytes(b"", (1 << 62, 1 << 62))
    assert trit.pack_trits(np.empty((1 << 40, 0), np.int8)).unpack().shape == (1 << 40, 0)


def golden_bytes():
    """Rows of the table in SPEC.md, where the tests run beside a clone."""
    table = [
        ("[[-1,0,1,1,0,1,-1], [0,0,0,0,0,0,0], [1,1,1,1,1,-1,-1]]", "9c 77  79 79  f2 75"),
        ("[1,0,-1,1,0]", "8c"),
        ("[-1]", "78"),
        ("[]", "none"),
    ]
    spec = Path(__file__).parents[3] / "format-spec" / "SPEC.md"
    section = spec.read_text().split("### Packed arrays")[1].split("\n### ")[0]
    assert re.findall(r"^\| `?(\[.*?)`? \| `?(.*?)`? \|$", section, re.M) == table
    return table


@pytest.mark.parametrize("text, hexadecimal", golden_bytes())
def test_packed_arrays_are_the_golden_bytes_of_the_specification(text, hexadecimal):
    array = np.array(eval(text), np.int8)  # noqa: S307
    expected = b"" if hexadecimal == "none" else bytes.fromhex(hexadecimal)
    packed = trit.pack_trits(array)
    assert packed.tobytes() == expected and packed.nbytes == len(expected) and packed.size == array.size
    np.testing.assert_array_equal(packed.canonical().reshape(-1), np.frombuffer(expected, np.uint8))
    again = trit.PackedTrits.from_bytes(expected, array.shape)
    assert again == packed
    np.testing.assert_array_equal(trit.unpack_trits(again), array)
    if array.ndim == 2:
        matrix = trit.pack(array)
        assert matrix.tobytes() == expected and matrix.packed_trits() == packed
        rows = np.frombuffer(matrix.tobytes(), np.uint8).reshape(3, 2)
        np.testing.assert_array_equal(rows, packed.canonical())


def test_bytes_are_those_that_numpy_makes():
    for shape in [(13,), (4, 21), (2, 3, 5), (1, 4000)]:
        array = trits(*shape)
        filled = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, -shape[-1] % 5)])
        powers = 3 ** np.arange(5)
        expected = ((filled.reshape(*shape[:-1], -1, 5) + 1) * powers).sum(-1).astype(np.uint8)
        np.testing.assert_array_equal(trit.pack_trits(array).canonical(), expected)
        again = trit.PackedTrits.from_bytes(np.asfortranarray(expected), shape)
        np.testing.assert_array_equal(again.unpack(), array)


@pytest.mark.parametrize(
    "data, shape, error, words",
    [
        (b"\xf3", (5,), ValueError, "data does not fit: byte 0 is 243, which holds no five trits: bytes are 0 to 242"),
        (b"\x79\x28", (2, 4), ValueError, "data does not fit: byte 1 is 40"),
        (b"\x79", (2, 4), ValueError, "data does not fit: the bytes .* has 1 elements; 2 are expected"),
        (b"", (), ValueError, "shape must have at least one dimension"),
        ("text", (5,), TypeError, "data must be a numpy.ndarray of uint8, not .*str"),
        (np.zeros(1, np.int8), (5,), TypeError, r"data must have elements of uint8, not int8: pass data.astype"),
        (b"\x79", (-5,), (ValueError, OverflowError), None),
        (b"\x79", 5, TypeError, None),
    ],
)
def test_bytes_that_are_no_packed_trits_are_refused(data, shape, error, words):
    with pytest.raises(error, match=words):
        trit.PackedTrits.from_bytes(data, shape)


def test_packed_arrays_as_values():
    array = trits(3, 7)
    packed = trit.pack_trits(array)
    assert repr(packed) == "<trit.PackedTrits (3, 7), 6 bytes>"
    again = pickle.loads(pickle.dumps(packed))
    assert again == packed and again != trit.pack_trits(-array + (array == 0)) and packed != 3
    assert trit.tnot(trit.tnot(packed)) == packed
    with pytest.raises(ValueError, match=r"trits must be \[..., k\] with at least one dimension, but has the shape \(\)"):
        trit.pack_trits(np.array(1, np.int8))
    with pytest.raises(TypeError):
        packed < again


@trit.fuse
def exclusive_or(a, b):
    return trit.tmax(trit.tmin(a, trit.tnot(b)), trit.tmin(trit.tnot(a), b))


@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (7, 11), (64, 5000)])
def test_fused_operations_give_what_they_give_one_by_one(shape):
    a, b = np.asarray(trits(*shape)), np.asarray(trits(*shape))
    expected = np.maximum(np.minimum(a, -b), np.minimum(-a, b))
    np.testing.assert_array_equal(exclusive_or(a, b), expected)
    out = np.empty(shape, np.int8)
    assert exclusive_or(a, b, out=out) is out
    np.testing.assert_array_equal(out, expected)
    if shape:
        packed = exclusive_or(trit.pack_trits(a), trit.pack_trits(b))
        assert packed == trit.pack_trits(expected)
    assert exclusive_or.parameters == ("a", "b") and exclusive_or.operations == 3
    assert repr(exclusive_or) == "<trit.FusedTrits of a, b, 3 operations>"


def test_functions_that_cannot_be_fused_are_refused():
    with pytest.raises(TypeError, match="the parameter arrays is not positional: name each array"):
        trit.fuse(lambda *arrays: arrays[0])
    with pytest.raises(TypeError, match="the function has no parameters: name each array"):
        trit.fuse(lambda: None)
    with pytest.raises(TypeError, match="the function gives .*NoneType"):
        trit.fuse(lambda a: None)
    with pytest.raises(TypeError, match="b must be a parameter of the function that trit.fuse is given, .*ndarray"):
        trit.fuse(lambda a: trit.tadd(a, np.ones(3, np.int8)))
    with pytest.raises(TypeError, match="out is for arrays: pass it to the fused function"):
        trit.fuse(lambda a: trit.tnot(a, out=np.ones(3, np.int8)))
    kept = []
    trit.fuse(lambda a: kept.append(a) or a)
    with pytest.raises(ValueError, match="belong to different calls of trit.fuse"):
        trit.fuse(lambda a: trit.tadd(a, kept[0]))
    with pytest.raises(ValueError, match="belongs to another call of trit.fuse"):
        trit.fuse(lambda a, b: kept[0])
    with pytest.raises(TypeError, match=r"it takes 2 arrays \(a, b\), and 1 were given"):
        exclusive_or(trits(3))
    with pytest.raises(ValueError, match=r"b\[0\] is 5; -1, 0 and 1 are possible"):
        exclusive_or(trits(1), np.array([5], np.int8))
    with pytest.raises(ValueError, match="b must have the shape of a"):
        exclusive_or(trits(3), trits(4))
    with pytest.raises(TypeError, match="b must be a trit.PackedTrits"):
        exclusive_or(trit.pack_trits(trits(3)), trits(3))
    # A parameter that is not used, and one that is the result.
    a, b = trits(5), trits(5)
    np.testing.assert_array_equal(trit.fuse(lambda a, b: b)(a, b), b)
    np.testing.assert_array_equal(trit.fuse(lambda a, b: trit.tnot(b))(a, b), -b)
    np.testing.assert_array_equal(trit.fuse(lambda a: trit.tadd(a, a))(a), a)
    np.testing.assert_array_equal(trit.fuse(lambda a: trit.tmul(a, trit.tnot(a)))(a), -(a * a))


@settings(max_examples=80, deadline=None)
@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=70),
    choices=st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.tuples(*[st.integers(0, 50)] * 3)), max_size=30),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_chain_gives_what_numpy_gives(shape, choices, seed):
    random = np.random.default_rng(seed)
    arrays = [random.integers(-1, 2, shape, dtype=np.int8) for _ in range(3)]

    def chain(a, b, c, numpy=False):
        values = [a, b, c]
        for name, places in choices:
            operation, count, reference = OPERATIONS[name]
            operands = [values[place % len(values)] for place in places[:count]]
            values.append((reference if numpy else operation)(*operands))
        return values[-1]

    fused = trit.fuse(lambda a, b, c: chain(a, b, c))
    expected = chain(*arrays, numpy=True)
    np.testing.assert_array_equal(fused(*arrays), expected)
    packed = [trit.pack_trits(array) for array in arrays]
    np.testing.assert_array_equal(fused(*packed).unpack(), expected)
    np.testing.assert_array_equal(chain(*packed).unpack(), expected)


anything = st.one_of(
    hnp.arrays(
        st.sampled_from([np.dtype(t) for t in ("i1", "u1", ">i2", "f4", ">f4", "f8", "?", "c8", "O", "U3", "M8[s]")]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
    ),
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=9),
    st.lists(st.integers(-2, 2), max_size=4),
)


@settings(max_examples=200, deadline=None)
@given(a=anything, b=anything, shape=st.lists(st.integers(-2, 9), max_size=3))
def test_nothing_that_is_passed_is_a_defect(a, b, shape):
    """A panic is no Exception, so that it would fail here."""
    for call in [
        lambda: trit.tadd(a, b),
        lambda: trit.tnot(a),
        lambda: trit.ternary_fma(a, b, a),
        lambda: exclusive_or(a, b),
        lambda: trit.pack_trits(a),
        lambda: trit.unpack_trits(a),
        lambda: trit.PackedTrits.from_bytes(a, shape),
        lambda: trit.tmul(a, a, out=b),
        lambda: trit.fuse(a),
    ]:
        try:
            call()
        except (TypeError, ValueError, OverflowError):
            pass


def test_threads_and_a_forked_child():
    a, b = trits(3000, 1001), trits(3000, 1001)
    pa, pb = trit.pack_trits(a), trit.pack_trits(b)
    expected, wrong = np.clip(a + b, -1, 1), []

    def work():
        for _ in range(5):
            if not np.array_equal(trit.tadd(a, b), expected) or not np.array_equal(trit.tadd(pa, pb).unpack(), expected):
                wrong.append(True)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    program = """
import os, numpy as np, trit
x = np.ones((3000, 1001), np.int8)
assert (trit.tadd(x, x) == 1).all()
child = os.fork()
if child == 0:
    os._exit(0 if (trit.tadd(x, x) == 1).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
