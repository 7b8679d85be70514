"""Traced and transformed calls: the compiled engine as an operator, in graphs and under every transform of torch.func."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch

import pairx
from pairx import plan as plans
from pairx.measure import missing_tool
from pairx_backends.torch import operators
from pairx_backends.torch.measure import peak_bytes

pytest.importorskip("llvmlite", reason="Numba is not installed")
pytestmark = pytest.mark.skipif(not operators.AVAILABLE, reason="torch is too old for operators with derivatives")

NAMES = ["cityblock", "chebyshev", "minkowski", "euclidean", "cosine", "canberra", "jensenshannon"]
BACKENDS = ["eager", "aot_eager"]


def given(name: str) -> dict[str, Any]:
    return {"p": 3.0} if name == "minkowski" else {}


def data(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.rand(s, dtype=torch.float64) + 0.1 for s in shapes]


def formula(name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Written out once more, in ordinary operations."""
    u, v = x.unsqueeze(-2), y.unsqueeze(-3)
    d = (u - v).abs()
    if name == "cosine":
        return 1 - (u * v).sum(-1) / (u.norm(dim=-1) * v.norm(dim=-1))
    if name == "jensenshannon":
        p, q = u / u.sum(-1, keepdim=True), v / v.sum(-1, keepdim=True)
        m = (p + q) / 2
        return (((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2).sqrt()
    return {
        "cityblock": lambda: d.sum(-1),
        "chebyshev": lambda: d.amax(-1),
        "minkowski": lambda: (d**3).sum(-1) ** (1 / 3),
        "euclidean": lambda: (d**2).sum(-1).sqrt(),
        "canberra": lambda: (d / (u.abs() + v.abs())).sum(-1),
    }[name]()


def close(got: Any, want: Any, rtol: float = 1e-10) -> None:
    torch.testing.assert_close(got, want, rtol=rtol, atol=rtol)


@pytest.fixture(autouse=True)
def fresh_graphs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operators, "SMALL", 0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def calls_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is run in machine code: a graph that fell back to ordinary operations would give the same numbers."""
    seen: list[str] = []
    from pairx_backends.compiled import Kernel

    for name in ("fill", "pull"):
        own = getattr(Kernel, name)
        monkeypatch.setattr(Kernel, name, lambda *a, _own=own, _name=name, **k: (seen.append(_name), _own(*a, **k))[1])
    return seen


def operands(name: str, **settings: Any) -> tuple[Any, ...]:
    """What an operator is told of a metric."""
    return (json.dumps(["distance", name, list(settings), {}, "float64", "float64", False, False]), [*settings.values()])


# --- torch.compile ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_graph_with_its_gradient(calls_of: list[str], name: str, how: str):
    x, y = (a.requires_grad_() for a in data((6, 5), (4, 5)))
    f = torch.compile(lambda a, b: pairx.cdist(a, b, name, **given(name)), backend=how, fullgraph=True)
    v = torch.randn(6, 4, dtype=torch.float64)
    got, want = f(x, y), formula(name, x, y)
    close(got, want)
    close(torch.autograd.grad(got, (x, y), v), torch.autograd.grad(want, (x, y), v))
    assert set(calls_of) == ({"fill", "pull"} if name != "cosine" else set())


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor(calls_of: list[str]):
    x, y = (a.requires_grad_() for a in data((6, 5), (4, 5)))
    f = torch.compile(lambda a, b: 2 * pairx.cdist(a.sin(), b, "cityblock"), fullgraph=True)
    got, want = f(x, y), 2 * formula("cityblock", x.sin(), y)
    close(got, want)
    close(torch.autograd.grad(got.sum(), (x, y)), torch.autograd.grad(want.sum(), (x, y)))
    assert set(calls_of) == {"fill", "pull"}


def test_one_graph_for_all_sizes_and_parameters():
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    f = torch.compile(lambda a, b: pairx.cdist(a, b, "cityblock"), backend=counter, fullgraph=True, dynamic=True)
    for n in (5, 9, 200, 1000):
        x, y = data((n, 7), (n + 1, 7))
        close(f(x, y), formula("cityblock", x, y))
    assert counter.frame_count == 1
    g = torch.compile(lambda a, b, p: pairx.cdist(a, b, "minkowski", p=p), backend="aot_eager", fullgraph=True)
    x, y = data((6, 5), (4, 5))
    for p in (3.0, 2.5, 1.7):
        close(g(x, y, p), torch.cdist(x, y, p=p))


def test_calls_beside_a_graph_do_not_compile_it_again():
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    f = torch.compile(lambda a, b: pairx.cdist(a, b, "cityblock"), backend=counter, fullgraph=True)
    x, y = data((6, 5), (4, 5))
    for _ in range(3):
        close(f(x, y), formula("cityblock", x, y))
        for a, b in ((x, y), (x.numpy(), y.numpy()), (x.float(), y.float())):  # small calls are remembered by their type and form
            pairx.cdist(a, b, "cityblock")
    assert counter.frame_count == 1


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize(
    "function",
    [lambda a, b: pairx.cdist(a, b, "cityblock"), lambda a, b: pairx.losses.supcon(a, y=b, labels=[0, 1, 0, 1], y_labels=[0, 1, 1, 0])],
)
def test_make_fx_records_the_call_and_not_its_values(function: Any, mode: str):
    from torch.fx.experimental.proxy_tensor import make_fx

    x, y = data((4, 5), (4, 5))
    for _ in range(3):
        function(x, y)
    recorded = make_fx(function, tracing_mode=mode)(x, y)
    close(recorded(3 * x, y), function(3 * x, y))


def test_a_small_call_is_left_to_the_graph_unless_its_sizes_are_unknown(calls_of: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operators, "SMALL", 1 << 10)
    for (m, n), settings, keywords, operator in (
        ((6, 5), {}, {}, False),
        ((6, 5), {}, {"engine": "compiled"}, True),
        ((6, 5), {"dynamic": True}, {}, True),
        ((300, 2), {}, {}, True),
        ((2, 300), {}, {}, True),
    ):
        torch._dynamo.reset()
        calls_of.clear()
        x, y = data((m, 4), (n, 4))
        f = torch.compile(lambda a, b, k=keywords: pairx.cdist(a, b, "cityblock", **k), backend="eager", fullgraph=True, **settings)
        close(f(x, y), formula("cityblock", x, y))
        assert bool(calls_of) is operator


@pytest.mark.parametrize("name", ["rbf", "laplacian"])
def test_a_parameter_that_follows_from_a_size(name: str):
    f = torch.compile(lambda a, b: pairx.gram(a, b, name), backend="aot_eager", fullgraph=True, dynamic=True)
    for n, d in ((6, 5), (9, 8)):
        x, y = data((n, d), (n + 2, d))
        close(f(x, y), torch.exp(-(formula("cityblock" if name == "laplacian" else "euclidean", x, y) ** (1 + (name == "rbf"))) / d))


@pytest.mark.parametrize("how", BACKENDS)
@pytest.mark.parametrize(
    "function",
    [
        lambda a: pairx.cdist(a, metric="canberra"),
        lambda a: pairx.pdist(a, "cityblock"),
        lambda a: pairx.cdist(a, a[..., :3, :], "cityblock", w=a[0, 0]),
        lambda a: pairx.cdist(a, a[0], "euclidean", out_dtype=torch.float32),
        lambda a: pairx.cdist(torch.where(a < 0.3, torch.nan, a), a, "cityblock", nan_policy="omit"),
        lambda a: pairx.cdist(a, a + 1, "seuclidean", V=a[1, 0]),
        lambda a: pairx.cdist(a.to(torch.bfloat16), metric="cityblock"),
        lambda a: pairx.cdist((10 * a).long(), metric="cityblock"),
        lambda a: pairx.paired(a, a + 1, "cityblock"),
    ],
    ids=["one set", "pdist", "weights", "out_dtype", "omit", "V", "bfloat16", "integers", "paired"],
)
def test_every_form_as_eagerly(function: Any, how: str):
    (x,) = data((2, 5, 4))
    x.requires_grad_()
    got, want = torch.compile(function, backend=how, fullgraph=True)(x), function(x)
    assert got.dtype == want.dtype
    close(got, want)
    assert got.requires_grad == want.requires_grad
    if want.requires_grad:
        v = torch.randn(want.shape, dtype=want.dtype)
        close(torch.autograd.grad(got, x, v), torch.autograd.grad(want, x, v), 1e-6)


@pytest.mark.skipif(missing_tool() is not None, reason="memray measures the peak")
def test_a_compiled_backward_keeps_to_the_budget():
    budget, n, d = 1 << 20, 600, 64
    x, y = (torch.rand(n, d, requires_grad=True) for _ in range(2))
    v = torch.ones(n, n)
    f = torch.compile(lambda a, b: pairx.cdist(a, b, "cityblock", max_bytes=budget), backend="aot_eager", fullgraph=True)
    peak = peak_bytes(lambda: torch.autograd.grad(f(x, y), (x, y), v))
    assert peak is not None
    assert peak <= 4 * (n * n + 2 * n * d) + budget + (1 << 20)  # the result, the gradients, the budget, the library's own


def test_export():
    class Module(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return pairx.cdist(a, b, "cityblock")

    x, y = data((6, 5), (4, 5))
    rows = torch.export.Dim("rows", min=2, max=4096)
    program = torch.export.export(Module(), (x, y), dynamic_shapes=({0: rows}, None))
    assert "pairx.values" in str(program.graph)
    x, _ = data((9, 5), (4, 5), seed=1)
    close(program.module()(x, y), formula("cityblock", x, y))


def test_a_graph_on_another_device_takes_the_array_engine():
    x = torch.rand(4, 3, device="meta")
    assert torch.compile(lambda a: pairx.cdist(a, metric="cityblock"), backend="eager", fullgraph=True)(x).shape == (4, 4)
    with pytest.raises(ValueError, match="meta"):
        pairx.cdist(x, metric="cityblock", engine="compiled")


def test_without_machine_code_the_operator_walks_the_array_engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operators, "machine_code", lambda *a: "not here")
    monkeypatch.setattr(operators, "_PLANNED", {})
    x, y = (a.requires_grad_() for a in data((6, 5), (4, 5)))
    got = torch.ops.pairx.values(x, y, None, *operands("cityblock"), False, 1 << 14)
    close(got, formula("cityblock", x, y))
    close(torch.autograd.grad(got.sum(), (x, y)), torch.autograd.grad(formula("cityblock", x, y).sum(), (x, y)))


# --- torch.func ---------------------------------------------------------------------------------------------------------


TRANSFORMS = {
    "grad": torch.func.grad,
    "jacrev": torch.func.jacrev,
    "jacfwd": torch.func.jacfwd,
    "hessian": torch.func.hessian,
    "reverse over reverse": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    "reverse over forward": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "third": lambda f: torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(f))),
}


@pytest.mark.parametrize(
    ("name", "transform", "compiled"),
    [
        *(
            pytest.param(name, transform, False, id=f"{name}-{transform}")
            for name in ("minkowski", "jensenshannon")
            for transform in TRANSFORMS
        ),
        *(
            pytest.param("minkowski", transform, True, id=f"minkowski-{transform}-compiled")
            for transform in ("grad", "jacrev", "hessian", "reverse over reverse")
        ),
    ],
)
def test_transforms(calls_of: list[str], name: str, transform: str, compiled: bool):
    x, y = data((3, 4), (2, 4))
    pairx.cdist(x, y, name, engine="compiled", **given(name))  # so that a small call takes it

    def loss(f: Any) -> Any:
        return lambda a, b: (f(a, b) ** 2).sum() if transform != "jacrev" else f(a, b)

    got = TRANSFORMS[transform](loss(lambda a, b: pairx.cdist(a, b, name, **given(name))))
    want = TRANSFORMS[transform](loss(lambda a, b: formula(name, a, b)))(x, y)
    calls_of.clear()
    close((torch.compile(got, backend="aot_eager", fullgraph=True) if compiled else got)(x, y), want, 1e-8)
    if transform in ("grad", "jacrev"):
        assert set(calls_of) == {"fill", "pull"}


def test_forward_mode_against_finite_differences():
    x, y = data((3, 4), (2, 4))
    t = torch.randn(3, 4, dtype=torch.float64)

    def f(a: torch.Tensor) -> torch.Tensor:
        return pairx.cdist(a, y, "cityblock", engine=None)

    want = (f(x + 1e-6 * t) - f(x - 1e-6 * t)) / 2e-6
    close(torch.func.jvp(f, (x,), (t,))[1], want, 1e-6)
    close(torch.compile(lambda a, b: torch.func.jvp(f, (a,), (b,))[1], backend="eager", fullgraph=True)(x, t), want, 1e-6)
    with torch.autograd.forward_ad.dual_level():
        close(torch.autograd.forward_ad.unpack_dual(f(torch.autograd.forward_ad.make_dual(x, t))).tangent, want, 1e-6)
    operator = lambda a: torch.ops.pairx.values(a, y, None, *operands("cityblock"), False, 1 << 20)  # noqa: E731
    close(torch.func.jvp(operator, (x,), (t,))[1], want, 1e-6)  # in a graph that was traced before
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(torch.func.grad(lambda a: (operator(a) ** 2).sum()), (x,), (t,))


def test_a_tangent_of_the_cotangent_alone_is_not_lost():
    x, y = data((3, 4), (2, 4))
    x.requires_grad_()
    v, t = torch.ones(3, 2, dtype=torch.float64), torch.rand(3, 2, dtype=torch.float64)
    out = pairx.cdist(x, y, "cityblock", engine="compiled")
    with torch.autograd.forward_ad.dual_level():
        (g,) = torch.autograd.grad(out, x, torch.autograd.forward_ad.make_dual(v, t))
        tangent = torch.autograd.forward_ad.unpack_dual(g).tangent
    close(tangent, torch.autograd.grad(formula("cityblock", x, y), x, t)[0])


@pytest.mark.parametrize("dims", [(0, 0, None), (0, None, None), (None, 1, None), (2, 0, None), (0, 0, 0), (None, None, 0)])
@pytest.mark.parametrize("gradient", [(), (0, 1), (1,), (0, 1, 2)], ids=["values", "x and y", "y", "x, y and w"])
def test_vmap(calls_of: list[str], dims: tuple[int | None, ...], gradient: tuple[int, ...]):
    x, y, w = data((5, 4), (2, 3, 4), (4,))
    pairx.cdist(x, y, "cityblock", w=w, engine="compiled")
    batch = torch.rand(3, 1, 1, 1, dtype=torch.float64)
    tensors = [a if k is None else (a * batch.reshape(3, *(1,) * a.ndim)).movedim(0, k) for a, k in zip((x, y, w), dims, strict=True)]

    def f(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return (pairx.cdist(a, b, "cityblock", w=c) ** 2).sum()

    function = torch.func.grad(f, argnums=gradient) if gradient else f
    calls_of.clear()
    got = torch.vmap(function, in_dims=dims)(*tensors)
    assert calls_of
    calls_of.clear()
    each = [function(*(a if k is None else a.select(k, i).clone() for a, k in zip(tensors, dims, strict=True))) for i in range(3)]
    close(got, tuple(torch.stack(s) for s in zip(*each, strict=True)) if gradient else torch.stack(each))


def test_second_derivatives():
    x, y, w = (a.requires_grad_() for a in data((4, 3), (3, 3), (3,)))
    given = operands("minkowski", p=3.0)
    weighted = (given[0].replace("false]", "true]"), given[1])
    for tensors, f in (
        ((x, y), lambda a, b: torch.ops.pairx.values(a, b, None, *given, False, 1 << 20)),
        ((x,), lambda a: torch.ops.pairx.values(a, None, None, *given, True, 1 << 20)),
        ((x, y, w), lambda a, b, c: torch.ops.pairx.values(a, b, c, *weighted, False, 1 << 20)),
    ):
        assert torch.autograd.gradcheck(f, tensors, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(f, tensors)


@pytest.mark.parametrize("one_set", [False, True])
def test_the_operators_obey_torch(one_set: bool):
    x, y = (a.requires_grad_() for a in data((5, 4), (3, 4)))
    told = (*operands("minkowski", p=3.0), one_set, 1 << 20)
    other = None if one_set else y
    torch.library.opcheck(torch.ops.pairx.values.default, (x, other, None, *told))
    g = torch.ones(10 if one_set else (5, 3), dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.pairx.pull.default, (g, x.mT.contiguous().mT, other, None, *told, [True, not one_set, False]))


def test_options_of_threads_count_when_the_graph_runs():
    x = torch.rand(300, 40)
    f = torch.compile(lambda a: pairx.cdist(a, metric="cityblock", max_bytes="200kB"), backend="eager", fullgraph=True)
    want = f(x)
    for threads in (1, 3):
        with pairx.options(threads=threads):
            np.testing.assert_array_equal(f(x).numpy(), want.numpy())
            assert plans.thread_count() == threads
