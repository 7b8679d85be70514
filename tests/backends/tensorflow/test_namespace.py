"""pairx's Array API namespace over tf.Tensor: eager against NumPy, then graphs with unknown sizes and XLA against eager."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from pairx_backends.tensorflow import namespace as xp  # noqa: E402

NAN, INF = np.nan, np.inf
RNG = np.random.default_rng(0)

A = RNG.normal(size=(3, 4))
B = RNG.normal(size=(3, 4))
P = RNG.uniform(0.1, 0.9, size=(3, 4))  # within every domain
BAD = np.array([[1.0, NAN, -2.0, INF], [-0.0, 0.0, -INF, 3.5], [2.5, -1.5, 0.5, 2.5]])
WORSE = np.array([[NAN, 2.0, -3.0, -INF], [0.0, -0.0, 2.0, INF], [2.5, INF, NAN, -1.0]])
I = RNG.integers(-9, 9, size=(3, 4)).astype(np.int32)  # noqa: E741
J = np.array([[1, -2, 3, 4], [5, 2, -7, 3], [2, 9, 4, -3]], np.int32)
U = RNG.integers(0, 255, size=(3, 4)).astype(np.uint8)
M = BAD > 0
S = RNG.normal(size=(3, 4, 4))
SPD = S @ S.swapaxes(-1, -2) + 4 * np.eye(4)
Z = A + 1j * B
V3 = RNG.normal(size=(5, 3))
W3 = RNG.normal(size=(5, 3))
IDX = np.array([[0, -1], [2, 1], [3, 3]], np.int64)

# name: (call on (namespace, *arrays), the same in NumPy or None where the call reads alike, arrays)
CASES = {
    # element by element
    "abs": (lambda x, a: x.abs(a), None, [BAD]),
    "abs_uint": (lambda x, a: x.abs(a), None, [U]),
    "abs_complex": (lambda x, a: x.abs(a), None, [Z]),
    "sign": (lambda x, a: x.sign(a), None, [BAD]),
    "sign_uint": (lambda x, a: x.sign(a), None, [U]),
    "sqrt": (lambda x, a: x.sqrt(a), None, [BAD]),
    "square": (lambda x, a: x.square(a), None, [BAD]),
    "reciprocal": (lambda x, a: x.reciprocal(a), None, [BAD]),
    "negative": (lambda x, a: x.negative(a), None, [BAD]),
    "negative_uint": (lambda x, a: x.negative(a), None, [U]),
    "exp": (lambda x, a: x.exp(a), None, [BAD]),
    "expm1": (lambda x, a: x.expm1(a), None, [BAD]),
    "log": (lambda x, a: x.log(a), None, [BAD]),
    "log1p": (lambda x, a: x.log1p(a), None, [BAD]),
    "log2": (lambda x, a: x.log2(a), None, [BAD]),
    "log10": (lambda x, a: x.log10(a), None, [BAD]),
    "trigonometry": (lambda x, a: [x.sin(a), x.cos(a), x.tan(a), x.asin(a), x.acos(a), x.atan(a)], None, [P]),
    "hyperbolic": (lambda x, a: [x.sinh(a), x.cosh(a), x.tanh(a), x.asinh(a), x.acosh(a + 1), x.atanh(a)], None, [P]),
    "atan2": (lambda x, a, b: x.atan2(a, b), None, [BAD, WORSE]),
    "hypot": (lambda x, a, b: x.hypot(a, b), None, [BAD, WORSE]),
    "hypot_large": (lambda x, a, b: x.hypot(a * 1e300, b * 1e300), None, [A, B]),
    "logaddexp": (lambda x, a, b: x.logaddexp(a, b), lambda x, a, b: np.logaddexp(a, b), [BAD, WORSE]),
    "copysign": (lambda x, a, b: x.copysign(a, b), None, [BAD, WORSE]),
    "signbit": (lambda x, a: x.signbit(a), None, [BAD]),
    "signed_zeros": (
        lambda x, a, b: [x.signbit(x.copysign(x.abs(a), b)), x.signbit(x.trunc(a)), x.signbit(x.remainder(a * 0, b))],
        None,
        [A / 4, B],
    ),
    "nextafter": (lambda x, a, b: x.nextafter(a, b), None, [A, B]),
    "rounding": (lambda x, a: [x.floor(a), x.ceil(a), x.round(a), x.trunc(a)], None, [BAD]),
    "rounding_int": (lambda x, a: [x.floor(a), x.ceil(a), x.round(a), x.trunc(a)], None, [I]),
    "add": (lambda x, a, b: x.add(a, b), None, [BAD, WORSE]),
    "add_row": (lambda x, a, b: x.add(a, b), None, [A, B[:1]]),
    "add_scalar": (lambda x, a: x.add(2.5, a), None, [BAD]),
    "subtract": (lambda x, a, b: x.subtract(a, b), None, [BAD, WORSE]),
    "subtract_uint": (lambda x, a: x.subtract(a, 200), None, [U]),
    "multiply": (lambda x, a, b: x.multiply(a, b), None, [BAD, WORSE]),
    "divide": (lambda x, a, b: x.divide(a, b), None, [BAD, WORSE]),
    "floor_divide_int": (lambda x, a, b: x.floor_divide(a, b), None, [I, J]),
    "remainder_int": (lambda x, a, b: x.remainder(a, b), None, [I, J]),
    "remainder": (lambda x, a, b: x.remainder(a, b), None, [A, B]),
    "pow": (lambda x, a, b: x.pow(a, b), None, [BAD, WORSE]),
    "pow_int": (lambda x, a: x.pow(a, 3), None, [I]),
    "pow_uint": (lambda x, a: x.pow(a, 3), None, [U]),
    "maximum": (lambda x, a, b: x.maximum(a, b), None, [BAD, WORSE]),
    "minimum": (lambda x, a, b: x.minimum(a, b), None, [BAD, WORSE]),
    "clip": (lambda x, a: x.clip(a, -1.0, 2.0), None, [BAD]),
    "clip_min": (lambda x, a: x.clip(a, min=0), None, [I]),
    "comparisons": (
        lambda x, a, b: [f(a, b) for f in (x.equal, x.not_equal, x.less, x.less_equal, x.greater, x.greater_equal)],
        None,
        [BAD, WORSE],
    ),
    "logical": (
        lambda x, a, b: [x.logical_and(a, b), x.logical_or(a, b), x.logical_xor(a, b), x.logical_not(a)],
        None,
        [M, M[::-1].copy()],
    ),
    "bitwise": (
        lambda x, a, b: [x.bitwise_and(a, b), x.bitwise_or(a, b), x.bitwise_xor(a, b), x.bitwise_invert(a)],
        None,
        [I, J],
    ),
    "shifts": (lambda x, a: [x.bitwise_left_shift(a, 2), x.bitwise_right_shift(a, 40)], None, [I]),
    "predicates": (lambda x, a: [x.isnan(a), x.isinf(a), x.isfinite(a)], None, [BAD]),
    "predicates_int": (lambda x, a: [x.isnan(a), x.isinf(a), x.isfinite(a)], None, [I]),
    "complex": (lambda x, a: [x.real(a), x.imag(a), x.conj(a)], None, [Z]),
    "where": (lambda x, a, b: x.where(x.isnan(a), b, a), None, [BAD, A]),
    "where_scalar": (lambda x, a: x.where(a > 0, a, 0.0), None, [BAD]),
    # reductions
    "sum": (lambda x, a: [x.sum(a), x.sum(a, axis=0), x.sum(a, axis=(0, 1), keepdims=True)], None, [BAD]),
    "sum_empty": (lambda x, a: [x.sum(a[:0], axis=0), x.prod(a[:0], axis=0)], None, [A]),
    "sum_int": (lambda x, a: x.sum(a, axis=1), lambda x, a: a.sum(1, dtype=np.uint32), [U]),
    "prod": (lambda x, a: x.prod(a, axis=-1), None, [BAD]),
    "max": (lambda x, a: [x.max(a), x.max(a, axis=0), x.max(a, axis=1, keepdims=True)], None, [BAD]),
    "min": (lambda x, a: [x.min(a), x.min(a, axis=0), x.min(a, axis=1, keepdims=True)], None, [BAD]),
    "max_int": (lambda x, a: [x.max(a, axis=0), x.min(a, axis=0)], None, [I]),
    "mean": (lambda x, a: [x.mean(a), x.mean(a, axis=0)], None, [A]),
    "var": (lambda x, a: [x.var(a, axis=0), x.var(a, axis=0, correction=1), x.std(a)], None, [A]),
    "all_any": (lambda x, a: [x.all(a, axis=0), x.any(a, axis=1), x.any(a)], None, [M]),
    "count_nonzero": (lambda x, a: x.count_nonzero(a, axis=0), None, [I]),
    "cumulative_sum": (
        lambda x, a: [x.cumulative_sum(a, axis=1), x.cumulative_sum(a, axis=0, include_initial=True)],
        None,
        [BAD],
    ),
    # searching and sorting
    "argmax": (lambda x, a: [x.argmax(a), x.argmax(a, axis=0), x.argmax(a, axis=1, keepdims=True)], None, [BAD]),
    "argmin": (lambda x, a: [x.argmin(a), x.argmin(a, axis=0), x.argmin(a, axis=1, keepdims=True)], None, [BAD]),
    "sort": (lambda x, a: [x.sort(a), x.sort(a, axis=0)], None, [BAD]),
    "argsort": (
        lambda x, a: [x.argsort(a), x.argsort(a, axis=0)],
        lambda x, a: [np.argsort(a, kind="stable"), np.argsort(a, axis=0, kind="stable")],
        [BAD],
    ),
    "sort_descending": (lambda x, a: x.sort(a, descending=True), lambda x, a: -np.sort(-a), [A]),
    "sort_uint": (lambda x, a: x.sort(a), None, [U]),
    "searchsorted": (
        lambda x, a, b: [x.searchsorted(a, b), x.searchsorted(a, b, side="right")],
        None,
        [np.array([-INF, 0.0, 1.0, 1.0, INF, NAN]), BAD],
    ),
    # shapes
    "reshape": (lambda x, a: [x.reshape(a, (-1,)), x.reshape(a, (2, -1))], None, [A]),
    "broadcast": (lambda x, a, b: list(x.broadcast_arrays(a, b)), None, [A[:, None], B[None]]),
    "expand_squeeze": (lambda x, a: x.squeeze(x.expand_dims(x.expand_dims(a, 0), axis=-1), (0,)), None, [A]),
    "permute": (lambda x, a: [x.permute_dims(a, (2, 0, 1)), x.moveaxis(a, 0, -1), x.matrix_transpose(a)], None, [S]),
    "flip": (lambda x, a: [x.flip(a), x.flip(a, axis=1)], None, [A]),
    "roll": (lambda x, a: [x.roll(a, 2), x.roll(a, (1, -1), axis=(0, 1))], None, [A]),
    "concat": (lambda x, a, b: [x.concat([a, b], axis=1), x.concat([a, b], axis=None)], None, [A, B]),
    "stack": (lambda x, a, b: x.stack([a, b], axis=-1), None, [A, B]),
    "repeat": (lambda x, a: [x.repeat(a, 2), x.repeat(a, 3, axis=0)], None, [A]),
    "tile": (lambda x, a: [x.tile(a, (2,)), x.tile(a, (2, 1, 2))], None, [A]),
    "take": (lambda x, a: x.take(a, x.asarray([0, -1, 1]), axis=1), None, [A]),
    "take_along_axis": (lambda x, a, i: x.take_along_axis(a, i, axis=1), None, [A, IDX]),
    "diff": (lambda x, a: [x.diff(a), x.diff(a, axis=0, n=2)], None, [A]),
    "tril": (lambda x, a: [x.tril(a), x.tril(a, k=-1), x.triu(a, k=1)], None, [S]),
    "astype": (lambda x, a: [x.astype(a, x.float32), x.astype(a, x.int32), x.astype(a, x.bool)], None, [A]),
    # products and linear algebra
    "matmul": (lambda x, a, b: x.matmul(a, x.matrix_transpose(b)), None, [A, B]),
    "matmul_batch": (lambda x, a, b: x.matmul(a, x.matrix_transpose(b)), None, [S, A]),
    "matmul_vector": (lambda x, a, b: [x.matmul(a, b[0]), x.matmul(b[0], x.matrix_transpose(a))], None, [A, B]),
    "matmul_int": (lambda x, a, b: x.matmul(a, x.matrix_transpose(b)), None, [U, U]),
    "tensordot": (lambda x, a, b: [x.tensordot(a, b), x.tensordot(a, b, axes=([0], [0]))], None, [A, B]),
    "tensordot_outer": (lambda x, a, b: x.tensordot(a, b, axes=0), None, [A, B]),
    "vecdot": (lambda x, a, b: [x.vecdot(a, b), x.vecdot(a, b, axis=-2)], None, [Z, A]),
    "vector_norm": (lambda x, a: [x.linalg.vector_norm(a, axis=-1, ord=p) for p in (2, 1, 0, 3, 0.5, INF, -INF)], None, [A]),
    "vector_norm_nan": (lambda x, a: [x.linalg.vector_norm(a, axis=-1, ord=p) for p in (2, 1, 3, INF)], None, [BAD]),
    "matrix_norm": (lambda x, a: [x.linalg.matrix_norm(a, ord=p) for p in ("fro", "nuc", 1, -1, 2, -2, INF, -INF)], None, [S]),
    "svdvals": (lambda x, a: x.linalg.svdvals(a), None, [S]),
    "svd": (
        lambda x, a: x.matmul(x.linalg.svd(a, full_matrices=False)[0], x.linalg.svd(a, full_matrices=False)[2]),
        None,
        [S],
    ),
    "qr": (lambda x, a: x.matmul(*x.linalg.qr(a)), lambda x, a: a, [S]),
    "eigh": (lambda x, a: [x.linalg.eigh(a)[0], x.linalg.eigvalsh(a)], None, [SPD]),
    "cholesky": (lambda x, a: [x.linalg.cholesky(a), x.linalg.cholesky(a, upper=True)], None, [SPD]),
    "solve": (lambda x, a, b: [x.linalg.solve(a, b[0]), x.linalg.solve(a, x.matrix_transpose(b))], None, [SPD, A]),
    "inverses": (lambda x, a: [x.linalg.inv(a), x.linalg.pinv(a)], None, [SPD]),
    "matrix_power": (lambda x, a: [x.linalg.matrix_power(a, n) for n in (0, 1, 3, -2)], None, [SPD]),
    "matrix_rank": (lambda x, a: x.linalg.matrix_rank(a), None, [SPD]),
    "trace": (lambda x, a: [x.linalg.trace(a), x.linalg.trace(a, offset=1), x.linalg.diagonal(a, offset=-1)], None, [S]),
    "outer_cross": (lambda x, a, b: [x.linalg.outer(a[0], b[0]), x.linalg.cross(a, b)], None, [V3, W3]),
    # sizes taken from an array that may have none
    "sizes": (
        lambda x, a: [
            x.zeros(_shape(x, a), dtype=x.float64),
            x.full((_shape(x, a)[0], 2), 7.0, dtype=x.float64),
            x.arange(_shape(x, a)[0]) + 0 * x.arange(_shape(x, a)[0]),
            x.eye(_shape(x, a)[1], _shape(x, a)[0], k=1, dtype=x.float64),
            x.broadcast_to(a, (2, *_shape(x, a))),
            x.reshape(a, (_shape(x, a)[0] * _shape(x, a)[1],)),
            x.ones_like(a),
            x.zeros_like(a, dtype=x.int32),
        ],
        None,
        [A],
    ),
    "constants": (
        lambda x, a: [
            x.arange(7) + 0 * x.arange(7),
            x.arange(1.0, 2.0, 0.25, dtype=x.float64),
            x.linspace(0, 1, 5, dtype=x.float64),
            x.linspace(-1, 2, 4, endpoint=False, dtype=x.float64),
            x.asarray(-0.0, dtype=x.float64) + 0 * a,
        ],
        None,
        [A],
    ),
}

# No XLA: the sizes of the results depend on the values, or TensorFlow has no kernel there.
NO_XLA = {
    "determinants": (lambda x, a: [x.linalg.det(a), *x.linalg.slogdet(a)], None, [SPD]),
    "nonzero": (lambda x, a: list(x.nonzero(a)), None, [I]),
    "unique_values": (lambda x, a: x.unique_values(a), lambda x, a: np.unique(a), [I]),
    "unique_all": (lambda x, a: list(x.unique_all(a)), None, [J]),
    "repeat_each": (lambda x, a: x.repeat(a, x.asarray([1, 0, 2]), axis=0), None, [A]),
}


def _shape(x, a):
    return a.shape if x is np else x.shape(a)


def _leaves(out):
    return list(out) if isinstance(out, (list, tuple)) else [out]


def _tensors(arrays):
    return [tf.constant(a) for a in arrays]


def _same(actual, expected, *, exact_dtype=True, tolerance=1e-10):
    actual, expected = _leaves(actual), _leaves(expected)
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        a, e = np.asarray(a), np.asarray(e)
        assert a.shape == e.shape
        if exact_dtype:
            assert a.dtype == e.dtype
        tol = 1e-5 if a.dtype in (np.float32, np.complex64) else tolerance
        np.testing.assert_allclose(a, e, rtol=tol, atol=tol)


ALL_CASES = CASES | NO_XLA


@pytest.mark.parametrize("name", ALL_CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_eager_equals_numpy(name):
    call, reference, arrays = ALL_CASES[name]
    expected = (reference or call)(np, *arrays)
    kinds = {np.asarray(e).dtype.kind for e in _leaves(expected)}
    # integers: NumPy's defaults (int64) are not TensorFlow's
    _same(call(xp, *_tensors(arrays)), expected, exact_dtype=kinds <= {"f", "c", "b"} and name != "reciprocal")


def _batch(a):
    return tf.TensorSpec([None, *a.shape[1:]], tf.as_dtype(a.dtype))


def _unknown(a):
    return tf.TensorSpec([None] * a.ndim, tf.as_dtype(a.dtype))


@pytest.mark.parametrize("spec", [_batch, _unknown], ids=["batch", "all"])
@pytest.mark.parametrize("name", ALL_CASES)
def test_graph_of_unknown_sizes_equals_eager(name, spec):
    call, _, arrays = ALL_CASES[name]
    traced = tf.function(
        tf.autograph.experimental.do_not_convert(lambda *a: call(xp, *a)), input_signature=[spec(a) for a in arrays]
    )
    _same(traced(*_tensors(arrays)), call(xp, *_tensors(arrays)))


@pytest.mark.parametrize("part", range(4))
def test_xla_equals_eager(part):
    names = list(CASES)[part::4]  # few functions with many results: each compilation costs most of a second

    @tf.autograph.experimental.do_not_convert
    def everything(inputs):
        return {name: _leaves(CASES[name][0](xp, *inputs[name])) for name in names}

    inputs = {name: _tensors(CASES[name][2]) for name in names}
    signature = {name: [_unknown(a) for a in CASES[name][2]] for name in names}
    compiled = tf.function(everything, jit_compile=True, input_signature=[signature])(inputs)
    for name, expected in everything(inputs).items():
        try:
            # XLA's singular vectors, from its own Jacobi iteration, are good to about 1e-6 even in float64
            _same(compiled[name], expected, tolerance=1e-5 if name in ("svd", "inverses") else 1e-10)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


# --- promotion ---

PROMOTIONS = [
    ("int8", "int16", "int16"),
    ("uint8", "int8", "int16"),
    ("uint32", "int32", "int64"),
    ("uint8", "uint16", "uint16"),
    ("int64", "float32", "float32"),
    ("uint8", "float16", "float16"),
    ("int32", "bfloat16", "bfloat16"),
    ("float32", "float64", "float64"),
    ("float16", "bfloat16", "float32"),
    ("bfloat16", "float32", "float32"),
    ("float64", "complex64", "complex128"),
    ("float32", "complex64", "complex64"),
    ("bool", "float32", "float32"),
    ("bool", "int8", "int8"),
]


@pytest.mark.parametrize(("first", "second", "expected"), PROMOTIONS)
def test_promotion(first, second, expected):
    x1, x2 = (tf.cast([1, 0], d) for d in (first, second))
    assert xp.result_type(x1, x2) == xp.result_type(x2, x1) == tf.as_dtype(expected)
    for f in (xp.add, xp.multiply, lambda a, b: xp.where([True, False], a, b)):
        assert f(x1, x2).dtype == f(x2, x1).dtype == tf.as_dtype(expected)
    assert xp.concat([x1, x2]).dtype == tf.as_dtype(expected)


@pytest.mark.parametrize(
    ("dtype", "scalar", "expected"),
    [
        ("float16", 2.5, "float16"),
        ("float64", 2, "float64"),
        ("uint8", 2, "uint8"),
        ("uint8", True, "uint8"),
        ("int64", 2.5, "float32"),
        ("float64", 2j, "complex128"),
        ("float32", 2j, "complex64"),
        ("bool", 2, "int32"),
    ],
)
def test_python_scalars_are_weak(dtype, scalar, expected):
    x = tf.cast([1, 1], dtype)
    assert xp.multiply(x, scalar).dtype == xp.multiply(scalar, x).dtype == tf.as_dtype(expected)
    assert xp.result_type(x, scalar) == tf.as_dtype(expected)


def test_numpy_arguments_are_strong():
    x = tf.ones(2, tf.float32)
    assert xp.add(x, np.ones(2)).dtype == xp.float64
    assert xp.add(np.float64(1), x).dtype == xp.float64


def test_integers_take_the_default_float():
    x = tf.constant([4, 9])
    assert xp.sqrt(x).dtype == xp.divide(x, x).dtype == xp.mean(x).dtype == xp.float32


def test_default_dtypes():
    assert [xp.asarray(v).dtype for v in (1, 1.0, 1j, True, [1, 2], [1.5, 2])] == [
        xp.int32, xp.float32, xp.complex64, xp.bool, xp.int32, xp.float32
    ]  # fmt: skip
    assert xp.asarray(np.ones(2)).dtype == xp.float64
    assert xp.asarray(2**40).dtype == xp.int64


def test_negative_zero_survives():
    xp.asarray(0.0)
    assert np.signbit(xp.asarray(-0.0).numpy())  # tf.constant remembers scalars by value


# --- gradients ---


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "xla"])
def test_gradients_are_finite_where_promised(jit):
    zero = tf.zeros((2, 3))

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(zero)
            parts = [xp.sum(xp.linalg.vector_norm(zero, axis=-1, ord=p)) for p in (2, 1, 3, 0.5, xp.inf)]
            parts.append(xp.sum(xp.hypot(zero, zero)))
            loss = xp.sum(xp.stack(parts))
        return tape.gradient(loss, zero)

    result = (tf.function(gradients, jit_compile=True, autograph=False) if jit else gradients)()
    assert np.isfinite(result.numpy()).all()


NOT_DIFFERENTIABLE = {"nextafter", "constants", "sizes", "matrix_rank", "astype", "signed_zeros"}
DIFFERENTIABLE = [
    name
    for name, (_, _, arrays) in CASES.items()
    if name not in NOT_DIFFERENTIABLE and all(a.dtype == np.float64 and np.isfinite(a).all() for a in arrays)
]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_flows(name):
    call, _, arrays = CASES[name]
    inputs = _tensors(arrays)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = [o for o in _leaves(call(xp, *inputs)) if o.dtype == tf.float64]
    gradients = tape.gradient(outputs, inputs)
    assert all(g is not None and np.isfinite(g.numpy()).all() for g in gradients)


# --- errors ---


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: xp.add(tf.constant([1], tf.uint64), tf.constant([1], tf.int64)), TypeError, "uint64"),
        (lambda: xp.add(tf.constant([1], tf.uint8), 300), OverflowError, "300"),
        (lambda: xp.sum(tf.ones(2), axis=1), IndexError, "axis 1"),
        (lambda: xp.squeeze(tf.ones((2, 1)), axis=0), ValueError, "size 1"),
        (lambda: xp.broadcast_arrays(tf.ones(2), tf.ones(3)), ValueError, "do not broadcast"),
        (lambda: xp.asarray(tf.sparse.eye(2)), TypeError, "SparseTensor"),
        (lambda: xp.asarray(tf.ragged.constant([[1], []])), TypeError, "RaggedTensor"),
        (lambda: xp.add(tf.constant(["a"]), 1.0), TypeError, "string"),
        (lambda: xp.take(tf.ones((2, 2)), tf.constant([0])), ValueError, "axis"),
        (lambda: xp.matmul(tf.constant(1.0), tf.ones(2)), ValueError, "dimension"),
        (lambda: xp.sort(tf.constant([1j])), TypeError, "order"),
        (lambda: xp.isdtype(xp.int8, "integer"), ValueError, "kind"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("call", [xp.shape, xp.sum, xp.sort, lambda x: xp.expand_dims(x, 0)])
def test_unknown_rank_is_refused(call):
    with pytest.raises(ValueError, match="unknown rank"):
        tf.function(call, autograph=False).get_concrete_function(tf.TensorSpec(None, tf.float32))


def test_unknown_sizes_are_not_taken_for_equal():
    @tf.function(input_signature=[tf.TensorSpec([None, None])] * 2, autograph=False)
    def both(a, b):
        return xp.broadcast_arrays(a, b)

    assert [x.shape for x in both(tf.ones((1, 3)), tf.ones((2, 1)))] == [(2, 3), (2, 3)]


def test_device_is_entered_only_when_given():
    with tf.device("CPU:0"):
        x = xp.asarray([1.0])
    assert "CPU" in xp.device(x)
    assert "CPU" in xp.device(xp.zeros(2, device="CPU:0"))


def test_variables_and_their_gradients():
    v = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = xp.sum(xp.multiply(v, 3.0))
    assert tape.gradient(y, v).numpy().tolist() == [3.0, 3.0]
