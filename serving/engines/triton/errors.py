"""What can be wrong with a Triton, and the one table from its refusals to our errors.

Triton's own text goes into the log, as the cause of ours; clients never see it, since it may hold paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import grpc

from contract.errors import EspalierError, RepositoryError
from serving.errors import DeadlineExceeded, EngineDown, EngineError, QueueFull


class InvalidTritonUrl(EspalierError):
    """An address that can be no Triton's."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url!r} is not the address of a Triton; give that of its gRPC port, such as grpc://127.0.0.1:8001, or several with "
            "commas in between."
        )


class TritonUnreachable(EspalierError):
    """Nothing that could serve answers at an address."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"No Triton answers at {where} ({reason}); start one, or give another address.")


class ModelUnavailable(EngineError):
    """Triton does not serve a model that it should."""

    def __init__(self, model: str) -> None:
        super().__init__(f"Triton does not serve model {model!r} at the moment.")


class TritonBusy(QueueFull):
    """Triton has refused a request because too many wait for one of its models."""

    def __init__(self) -> None:
        EspalierError.__init__(self, "Too many requests wait in Triton; try again later.")


class ModelControlOff(RepositoryError):
    """A model has to be loaded into a Triton that loads none when asked to."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"Triton would have to load {model!r}, but it was not started with --model-control-mode=explicit; start it so, or again "
            "after the repository has changed."
        )


class TritonLoadFailed(RepositoryError):
    """Triton could not load a model."""

    def __init__(self, model: str) -> None:
        super().__init__(f"Triton could not load model {model!r}; its log says why.")


class ModelTooLarge(RepositoryError):
    """A model that does not fit into one message."""

    def __init__(self, model: str, size_bytes: int) -> None:
        super().__init__(
            f"Model {model!r} has {size_bytes / 1e9:.1f} GB, and one message to Triton takes 2 GB; give Triton the repository instead "
            "of sending its files."
        )


_Code = grpc.StatusCode
# The first row fits whose code is the refusal's and whose words, if it has any, are among Triton's.
_TABLE: tuple[tuple[frozenset[grpc.StatusCode], tuple[str, ...], Callable[[str], EspalierError]], ...] = (
    (frozenset({_Code.DEADLINE_EXCEEDED}), (), lambda model: DeadlineExceeded()),
    (frozenset({_Code.UNAVAILABLE}), ("timeout expired", "request expired"), lambda model: DeadlineExceeded()),
    (
        frozenset({_Code.UNAVAILABLE, _Code.RESOURCE_EXHAUSTED}),
        ("maximum queue size", "rows are waiting"),
        lambda model: TritonBusy(),
    ),
    (frozenset({_Code.NOT_FOUND}), (), ModelUnavailable),
    # A model that is unloaded or failed to load; the last is what an espalier server says in Triton's place.
    (frozenset({_Code.UNAVAILABLE}), ("unknown model", "not ready", "no available version", "not be computed"), ModelUnavailable),
    (frozenset({_Code.UNAVAILABLE, _Code.CANCELLED}), (), lambda model: EngineDown()),
)


def translated(error: grpc.aio.AioRpcError, model: str) -> EspalierError:
    """Return what a refusal of an inference of `model` means for us."""
    text = (error.details() or "").lower()
    for codes, words, make in _TABLE:
        if error.code() in codes and (not words or any(word in text for word in words)):
            return make(model)
    return EngineError(f"Triton failed on model {model!r}.")


def translated_control(error: grpc.aio.AioRpcError, model: str, where: str) -> EspalierError:
    """Return what a refusal by the Triton at `where` means when it was told, or asked, about `model` ("": about itself)."""
    text = (error.details() or "").lower()
    if "model load / unload is not allowed" in text or error.code() in (_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED):
        return ModelControlOff(model)
    if error.code() in (_Code.UNAVAILABLE, _Code.CANCELLED, _Code.DEADLINE_EXCEEDED):
        return TritonUnreachable(where, "not in time" if error.code() == _Code.DEADLINE_EXCEEDED else "it does not answer")
    if error.code() == _Code.UNIMPLEMENTED:
        return TritonUnreachable(where, "what answers there is not a Triton")
    return TritonLoadFailed(model)


def said(error: EspalierError) -> str:
    """Return what Triton itself said when `error` came about, for logs: a line to be put behind a sentence, or ""."""
    cause = error.__cause__
    return f" Triton: {' '.join((cause.details() or '').split())}" if isinstance(cause, grpc.aio.AioRpcError) else ""


def most_telling(errors: Iterable[EspalierError]) -> EspalierError | None:
    """Return the error that says most: one about models before one about a server that does not answer."""
    return min(errors, key=lambda error: not isinstance(error, RepositoryError), default=None)
