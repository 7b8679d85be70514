"""TensorFlow: eager tensors in one aligned buffer, and loops of tiles inside a ``tf.function`` or under XLA.

Its Array API namespace is our own (``namespace``). What runs where:

- ``eager``: a Python loop over tiles; on the CPU into one NumPy buffer that becomes the result without a copy.
- ``graph``: one ``tf.while_loop``, since sizes are known only when it runs.
- ``hosted``: the compiled engine in a graph, for who asks for it: Python functions that make eager calls.
- ``gradient``: one custom gradient around either, which computes the tiles again instead of keeping them.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from pairx.backend import Backend
from pairx.engine import Rule, Task

from . import eager, gradient, graph, hosted, namespace
from .blocks import blocksum, blockwise
from .gradient import recorded, traced

Array = Any

_KINDS = {
    "bool": ("bool",),
    "integral": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    "real floating": ("float16", "bfloat16", "float32", "float64"),
    "complex floating": ("complex64", "complex128"),
}
_KIND = {name: kind for kind, names in _KINDS.items() for name in names}

_ADVICE = {
    "RaggedTensor": "pad it: {name}.to_tensor()",
    "SparseTensor": "pass tf.sparse.to_dense({name})",
    "IndexedSlices": "pass tf.convert_to_tensor({name})",
    "TensorArray": "pass {name}.stack()",
    "TensorSpec": "it has no values; call pairx inside the tf.function",
    "DatasetV2": "take its elements: for {name} in dataset",
    "PerReplica": "call pairx inside strategy.run",
    "KerasTensor": "a symbolic Keras tensor has no values: call pairx inside Layer.call or a keras.layers.Lambda",
}


def coerce(value: Any, name: str) -> Array:
    """A dense tensor of known rank; variables are read."""
    if type(value) is gradient.EAGER:
        return value
    classes = [c.__name__ for c in type(value).__mro__]
    if isinstance(value, tf.Variable) or any(c.__name__ == "Variable" and c.__module__.startswith("keras.") for c in type(value).__mro__):
        value = tf.convert_to_tensor(value)
    elif not isinstance(value, tf.Tensor):
        why = next((_ADVICE[c] for c in classes if c in _ADVICE), "pass tf.convert_to_tensor({name})")
        raise TypeError(f"{name} is a {classes[0]}, which is no dense tensor; {why.format(name=name)}.")
    if value.shape.rank is None:
        raise TypeError(
            f"{name} is a tensor of unknown rank: state how many axes it has, tf.ensure_shape({name}, [None, None]), or give the "
            "tf.function an input_signature."
        )
    return value


def asarray(value: Any, like: Array, dtype: Any) -> Array:
    """An auxiliary argument on the device of ``like``; a tensor or variable keeps its gradient."""
    with placed(like):
        if isinstance(value, (tf.Tensor, tf.Variable)) or hasattr(value, "__tf_tensor__"):
            found = tf.convert_to_tensor(value)
        elif isinstance(value, (list, tuple)) and any(isinstance(v, (tf.Tensor, tf.Variable)) for v in value):
            found = tf.stack(value)
        else:  # in its own dtype at once: float32 on the way would lose digits
            found = tf.constant(np.asarray(value, None if dtype is None else dtype.as_numpy_dtype))
        return found if dtype is None or found.dtype == dtype else tf.cast(found, dtype)


def device(x: Array) -> str | None:
    """Such as ``"GPU:0"``; None in a graph, which decides when it runs."""
    if traced(x):
        return None
    where: str = x.device
    job, _, unit = where.rpartition("/device:")
    return unit if "job:localhost" in job or not job else where


@cache
def _several() -> bool:
    return len(tf.config.list_logical_devices()) > 1


def placed(x: Array) -> Any:
    """The scope of a tensor's device: by itself an eager operation goes to the first GPU."""
    return tf.device(device(x)) if _several() and not traced(x) else eager.NOWHERE


def kind(backend: Backend, dtype: Any) -> str:
    """Strings, resources, quantised numbers and floats of 8 bits are no numbers to compute with."""
    return _KIND.get(getattr(dtype, "name", ""), "other") if isinstance(dtype, tf.DType) else "other"


def differentiated(*arrays: Array) -> bool:
    """Whether a gradient may be asked for; in a graph nobody can know."""
    return traced(*arrays) or recorded(*arrays)


def put(block: Array, index: Array, values: Array) -> Array:
    """A copy with other values at flat positions."""
    flat = tf.tensor_scatter_nd_update(tf.reshape(block, (-1,)), tf.expand_dims(index, -1), values)
    return tf.reshape(flat, tf.shape(block))


def lowered(x: Array) -> str | None:
    """TF32 on a GPU (on by default), or oneDNN's bfloat16."""
    if x.dtype in (tf.float64, tf.complex128):
        return None
    where = device(x)
    on_gpu = "GPU" in where if where is not None else bool(tf.config.list_physical_devices("GPU"))
    if on_gpu and tf.config.experimental.tensor_float_32_execution_enabled():
        return "TF32 is on (tf.config.experimental.enable_tensor_float_32_execution), which keeps 10 bits: differences instead"
    for name in ("TF_SET_ONEDNN_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE"):
        if os.environ.get(name, "STRICT").upper() not in ("STRICT", ""):
            return f"{name}={os.environ[name]} lowers products: differences instead"
    return None


@cache
def _limit(where: str) -> int | None:
    from tensorflow.python.client import device_lib

    return next((int(d.memory_limit) for d in device_lib.list_local_devices() if d.name.endswith(f"device:{where}")), None)


def free_bytes(where: str | None) -> int | None:
    """What TensorFlow's allocator has left on a GPU."""
    if where is None or "GPU" not in where:
        return None
    limit = _limit(where)
    return None if limit is None else limit - int(tf.config.experimental.get_memory_info(where)["current"])


def unwatched(*arrays: Array) -> bool:
    """Whether these are eager tensors in main memory, there is no other, and no tape watches them."""
    return not (_several() or traced(*arrays) or recorded(*arrays))


def run(task: Task) -> Array:
    """Values now, or the operations of a graph; a gradient where something may ask for one."""
    tensors = gradient.inputs(task)
    if traced(*tensors):
        way: Any = graph if task.kernel is None else hosted
        return gradient.attach(task, way.forward, way.backward)
    with placed(task.x):
        if recorded(*tensors):
            return gradient.attach(task, eager.forward, eager.backward)
        return eager.forward(task)


def compiler(rule: Rule, tensors: tuple[Array, ...], asked: bool) -> Any:
    """Of the compiled engine, for tensors in main memory; in a graph for who asks for it, since XLA or a SavedModel may come later."""
    if traced(*tensors):
        if not asked:
            return "a traced call may end on another device, under XLA or in a file"
        if graph.under_xla():
            return "XLA cannot call it; pass jit_compile=False (Keras: to Model.compile) or"
        rule = hosted.plain(rule)
    elif not eager.is_host(tensors[0]):
        return f"the tensors are on {device(tensors[0])}"
    from pairx_backends import compiled

    return compiled.compiler(rule)


def product(rule: Rule, tensors: tuple[Array, ...]) -> Any:
    """A matrix product of tensors in main memory, on views as NumPy has it, and machine code after it."""
    if not eager.is_host(tensors[0]):
        return f"the tensors are on {device(tensors[0])}"
    from pairx_backends import numpy

    return numpy.product(rule, tensors)


def uniform(rng: Any, shape: tuple[Any, ...], like: Array, dtype: Any) -> Array | None:
    """Of a tf.random.Generator."""
    return rng.uniform(shape, dtype=dtype) if isinstance(rng, tf.random.Generator) else None


BACKEND = Backend(
    name="tensorflow",
    xp=namespace,
    coerce=coerce,
    asarray=asarray,
    run=run,
    default_float=lambda: tf.float32,
    shape=namespace.shape,
    device=device,
    traced=traced,
    differentiated=differentiated,
    detach=tf.stop_gradient,
    kind=kind,
    itemsize=lambda dtype: int(dtype.size),
    put=put,
    free_bytes=free_bytes,
    tile_bytes=eager.TILE_BYTES,
    devices=lambda: tuple(d.name.rpartition("device:")[2] for d in tf.config.list_logical_devices()),
    lowered=lowered,
    writable=False,
    compiler=compiler,
    product=product,
    blockwise=blockwise,
    blocksum=blocksum,
    uniform=uniform,
    along=lambda x, index: tf.gather(x, index, batch_dims=1),
    host=eager.view,
    guest=eager.handed,
    unwatched=unwatched,
)
