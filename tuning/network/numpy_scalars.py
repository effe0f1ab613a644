"""Single numbers of numpy in pickled checkpoints (a best accuracy, a learning rate), read without numpy's own unpickling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_KINDS = "biufc"  # booleans and numbers


class _Dtype:
    """What a pickle says of an element type: its code ("f8") and the order of its bytes."""

    def __init__(self, code: str, *_: object) -> None:
        self._code, self._order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = str(state[1])

    def of(self, content: bytes) -> np.generic:
        """Return the number in `content`. Raises ValueError unless it is one."""
        try:
            dtype = np.dtype(str(self._code)).newbyteorder(self._order.replace("|", "="))  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"no type of a number: {self._code!r}") from error
        if dtype.kind not in _KINDS or dtype.itemsize != len(content):
            raise ValueError(f"no number: {len(content)} bytes of {self._code!r}")
        number: np.generic = np.frombuffer(content, dtype)[0]
        return number


def _scalar(dtype: object, content: object) -> np.generic:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
        raise ValueError("no number")
    return dtype.of(content)


def as_globals() -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """Return what `torch.serialization.safe_globals` is to let a pickle call in place of numpy's functions of these names."""
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # of numpy 1, and of numpy 2
    return [(_Dtype, "numpy.dtype"), *((_scalar, f"{module}.scalar") for module in modules)]
