"""A loss as an object of a framework: a torch Module, a Keras Loss. One line each; the function does the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _named(function: Callable[..., Any], settings: dict[str, Any]) -> str:
    return ", ".join([getattr(function, "__name__", "loss"), *(f"{k}={v!r}" for k, v in settings.items() if not hasattr(v, "shape"))])


def torch_module(function: Callable[..., Any], **settings: Any) -> Any:
    """A ``torch.nn.Module`` that calls a loss.

    Parameters
    ----------
    function : callable
        Any of ``pairx.losses``.
    **settings
        Its keyword arguments. A ``torch.nn.Parameter`` among them (a learnable temperature, proxies) belongs to the module,
        and a tensor moves with it.

    Returns
    -------
    torch.nn.Module
        ``module(*arrays, **more)`` is ``function(*arrays, **settings, **more)``.

    Examples
    --------
    >>> import pairx, torch  # doctest: +SKIP
    >>> criterion = pairx.losses.torch_module(pairx.losses.supcon, temperature=torch.nn.Parameter(torch.tensor(0.1)))
    >>> criterion(embeddings, labels).backward()  # doctest: +SKIP
    """
    import torch

    class Loss(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._plain = {k: v for k, v in settings.items() if not isinstance(v, torch.Tensor)}
            self._held = [k for k, v in settings.items() if isinstance(v, torch.Tensor)]
            for k in self._held:
                if isinstance(settings[k], torch.nn.Parameter):
                    self.register_parameter(k, settings[k])
                else:
                    self.register_buffer(k, settings[k])

        def forward(self, *arrays: Any, **more: Any) -> Any:
            return function(*arrays, **{**self._plain, **{k: getattr(self, k) for k in self._held}, **more})

        def extra_repr(self) -> str:
            return _named(function, self._plain)

    return Loss()


def keras_loss(function: Callable[..., Any], *, name: str | None = None, **settings: Any) -> Any:
    """A ``keras.losses.Loss`` for ``model.compile(loss=...)``.

    Parameters
    ----------
    function : callable
        Any of ``pairx.losses`` that takes predictions (or embeddings) and targets (or labels), in this order.
    name : str, optional
        As Keras shows it. Default: the function's.
    **settings
        The function's keyword arguments.

    Returns
    -------
    keras.losses.Loss
        Keras' ``y_true`` are the targets, its ``y_pred`` the predictions, and its ``sample_weight`` are ``weights``. The
        reduction is pairx's own, so that an anchor without positives leaves the mean.

    Examples
    --------
    >>> import pairx  # doctest: +SKIP
    >>> model.compile("adam", loss=pairx.losses.keras_loss(pairx.losses.supcon, temperature=0.1))  # doctest: +SKIP
    """
    import keras

    class Loss(keras.losses.Loss):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name=name or getattr(function, "__name__", "loss"), reduction=None)

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return function(y_pred, y_true, **settings)

        def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            with keras.name_scope(self.name):
                y_pred = keras.ops.convert_to_tensor(y_pred)
                more = {} if sample_weight is None else {"weights": keras.ops.convert_to_tensor(sample_weight)}
                return function(y_pred, keras.ops.convert_to_tensor(y_true), **{**settings, **more})

    return Loss()
