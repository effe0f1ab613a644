"""Published weights: whether they can be had is asked first, in seconds; the libraries ask for a minute and say much meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
import torch
import torchvision
from huggingface_hub import constants, get_session, try_to_load_from_cache

_SECONDS = 4.0  # to find a name, connect, and be answered
_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm looks for on a hub


def find_obstacle(library: str, name: str) -> str:
    """Return why the published weights of a network can be neither found on this machine nor fetched, or ""."""
    if library == "torchvision":
        return _of_url(torchvision.models.get_model_weights(name).DEFAULT.url)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        return ""  # which timm says without asking anybody
    if not config.hf_hub_id:
        return _of_url(config.url) if isinstance(config.url, str) else ""
    if _is_cached(config.hf_hub_id, (config.hf_hub_filename, *_FILES)):
        return ""
    return _obstacle(constants.ENDPOINT, lambda: get_session().head(constants.ENDPOINT))


def _is_cached(repository: str, files: Iterable[str | None]) -> bool:
    name, _, revision = repository.partition("@")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in files if file)


def _of_url(url: str) -> str:
    return "" if (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file() else _obstacle(url, lambda: _ask(url))


def _ask(url: str) -> None:
    with suppress(HTTPError):  # an answer: what it means is the library's to say
        urlopen(Request(url, method="HEAD"), timeout=_SECONDS).close()


def _obstacle(where: str, ask: Callable[[], object]) -> str:
    """Return why `ask` fails, "" if it does not. It is not waited for longer than a few seconds, whatever holds it up."""
    outcome = [f"no answer within {_SECONDS:g} seconds"]

    def run() -> None:
        try:
            ask()
            outcome[:] = [""]
        except Exception as error:  # of whatever library asks; what matters is that there was no answer
            outcome[:] = [str(getattr(error, "reason", error)).partition("\n")[0] or type(error).__name__]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return f"{where} cannot be reached ({outcome[0]})" if outcome[0] else ""
