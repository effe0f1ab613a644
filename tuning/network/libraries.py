"""timm and torchvision behind one face: build a network by name, fetch its pretrained weights, say its preprocessing.

Whether published weights can be had is asked first, in seconds; the libraries ask for a minute and say much meanwhile.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
import torch
import torchvision
from huggingface_hub import constants, get_session, try_to_load_from_cache
from timm.data.config import resolve_model_data_config
from torch import nn

from contract.preprocessing import Preprocessing, resampling_of
from tuning.errors import BackboneOptions, UnknownBackbone, UnsupportedNetwork, WeightsUnavailable
from tuning.network.packaged import find_packaged

Library = Literal["timm", "torchvision"]

_CLASSES_WITHOUT_HEAD = 2  # outputs of the head that a network without a classifier gets; tasks replace it anyway
_OBSTACLE_S = 4.0  # to find a name, connect, and be answered
_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm looks for on a hub


def split_name(name: str) -> tuple[Library, str]:
    """Return (library, name within it) of "torchvision/NAME", a timm name, or "pypi:NAME". Raises UnknownBackbone with close matches."""
    if packaged := find_packaged(name):
        return "timm", packaged.network
    library, _, rest = name.rpartition("/")
    if library == "torchvision":
        known = torchvision.models.list_models(module=torchvision.models)
        if rest not in known:
            raise UnknownBackbone(name, [f"torchvision/{near}" for near in difflib.get_close_matches(rest, known)])
        return "torchvision", rest
    base, _, tag = name.removeprefix("timm/").partition(".")
    if not timm.is_model(base):
        raise UnknownBackbone(name, difflib.get_close_matches(base, timm.list_models()))
    tagged = timm.list_pretrained(base + ".*") if tag else []
    if tag and f"{base}.{tag}" not in tagged:
        raise UnknownBackbone(name, tagged)
    return "timm", name.removeprefix("timm/")


def create_network(library: Library, name: str, options: Mapping[str, Any], num_classes: int | None, weights: bool) -> nn.Module:
    """Return the network in eval mode, float32, with pretrained `weights` or as the library initialises it.

    num_classes None keeps the number the weights were trained with. Raises WeightsUnavailable or BackboneOptions.
    """
    create = _create_timm if library == "timm" else _create_torchvision
    full_name = name if library == "timm" else f"{library}/{name}"
    if weights and (obstacle := find_obstacle(library, name)):
        raise WeightsUnavailable(full_name, obstacle)
    try:
        return create(name, options, num_classes, weights).float().eval()
    except (TypeError, AssertionError) as error:
        raise BackboneOptions(name, str(error)) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise (WeightsUnavailable if weights else BackboneOptions)(full_name, reason) from error


def with_input_size(library: Library, name: str, options: Mapping[str, Any], image_size: int | None) -> dict[str, Any]:
    """Return `options` for square images of `image_size` pixels: networks built for one size must be told, others take any."""
    if image_size is None:
        return dict(options)
    if library == "timm":
        return {"img_size": image_size, **options} if _fixed_size(name) else dict(options)
    if name.startswith("vit_"):
        return {"image_size": image_size, **options}
    return dict(options)


def find_preprocessing(library: Library, name: str, network: nn.Module, image_size: int | None) -> Preprocessing:
    """Return the preprocessing the pretrained weights expect, for `image_size` pixels when given.

    timm's crop modes other than the centre crop are replaced by it: tasks are tuned with what is returned here.
    """
    found = _timm_preprocessing(network) if library == "timm" else _torchvision_preprocessing(name)
    return found if image_size is None else replace(found, height=image_size, width=image_size)


def check_forward(network: nn.Module, name: str, preprocessing: Preprocessing) -> None:
    """Run one black image through `network`. Raises UnsupportedNetwork unless logits of shape (1, classes) come out."""
    size = f"{preprocessing.height}x{preprocessing.width}"
    try:
        with torch.inference_mode():
            logits = network(torch.zeros(1, 3, preprocessing.height, preprocessing.width))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UnsupportedNetwork(f"Backbone {name!r} does not take RGB images of {size} pixels: {reason}.") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[0] != 1:
        raise UnsupportedNetwork(f"Backbone {name!r} does not return one vector of class scores per image.")


def _create_timm(name: str, options: Mapping[str, Any], num_classes: int | None, weights: bool) -> nn.Module:
    config = timm.get_pretrained_cfg(name)
    if weights and (config is None or not config.has_weights):
        raise WeightsUnavailable(name, "timm has none for this network", published=False)
    classes = num_classes or (config.num_classes if config else 0) or _CLASSES_WITHOUT_HEAD
    return timm.create_model(name, pretrained=weights, num_classes=classes, **options)


def _create_torchvision(name: str, options: Mapping[str, Any], num_classes: int | None, weights: bool) -> nn.Module:
    if weights:  # torchvision refuses another number of classes here; the caller replaces the head
        return cast(nn.Module, torchvision.models.get_model(name, weights="DEFAULT", **options))
    classes = {} if num_classes is None else {"num_classes": num_classes}
    return cast(nn.Module, torchvision.models.get_model(name, weights=None, **{**options, **classes}))


def _fixed_size(name: str) -> bool:
    config = timm.get_pretrained_cfg(name)
    return bool(config and config.fixed_input_size)


def _timm_preprocessing(network: nn.Module) -> Preprocessing:
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    _, height, width = config["input_size"]
    return Preprocessing(
        height=height,
        width=width,
        mean=_triple(config["mean"]),
        std=_triple(config["std"]),
        interpolation=resampling_of(config["interpolation"]),
        crop_fraction=min(1.0, config["crop_pct"]),
    )


def _torchvision_preprocessing(name: str) -> Preprocessing:
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    (crop,), (resize,) = transform.crop_size, transform.resize_size
    return Preprocessing(
        height=crop,
        width=crop,
        mean=_triple(transform.mean),
        std=_triple(transform.std),
        interpolation=resampling_of(transform.interpolation.value),
        crop_fraction=min(1.0, crop / resize),
    )


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide about the result of a training, by name."""
    return {"torch": torch.__version__, "timm": timm.__version__, "torchvision": torchvision.__version__}


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
        urlopen(Request(url, method="HEAD"), timeout=_OBSTACLE_S).close()


def _obstacle(where: str, ask: Callable[[], object]) -> str:
    """Return why `ask` fails, "" if it does not. It is not waited for longer than a few seconds, whatever holds it up."""
    outcome = [f"no answer within {_OBSTACLE_S:g} seconds"]

    def run() -> None:
        try:
            ask()
            outcome[:] = [""]
        except Exception as error:  # of whatever library asks; what matters is that there was no answer
            outcome[:] = [str(getattr(error, "reason", error)).partition("\n")[0] or type(error).__name__]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_OBSTACLE_S)
    return f"{where} cannot be reached ({outcome[0]})" if outcome[0] else ""
