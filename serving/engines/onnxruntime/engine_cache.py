"""Where TensorRT keeps the engines that it compiles, which takes minutes: a folder for each model.

TensorRT's provider names an engine by the model's file name and the names of its tensors, not by its weights
(https://github.com/microsoft/onnxruntime/issues/6455): two tasks that were tuned in the same block would get the same engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from contract.private_folder import make_private_folder
from serving.engines.sessions.digests import FileDigests


class EngineCache:
    """A folder for each model in `folder`, named by the hash of its bytes. What no model needs any more stays there. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests = FileDigests()

    def options(self, model: Path) -> Mapping[str, str]:
        """Return the provider's options for the ONNX file `model`: to keep its engine; none where that cannot be done.

        None for a model with external data (the hash would not say which), and where others could write engines into the folder.
        """
        with suppress(OSError):
            if len(list(model.parent.iterdir())) == 1 and make_private_folder(self._folder):
                engines = self._folder / self._digests.of(model)
                engines.mkdir(mode=0o700, exist_ok=True)
                return engine_options(engines)
        return {}


def engine_options(folder: Path) -> Mapping[str, str]:
    """Return the options of TensorRT's provider to keep one model's engine in `folder`. Precision stays what the model says."""
    return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder), "trt_fp16_enable": "0"}
