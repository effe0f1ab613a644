"""A trunk and eight heads in one BentoML service."""

# mypy: ignore-errors
import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort


def open_session(path):
    """Open a network with the threads that it may use; they wait for each other awake, and sleep between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@bentoml.service
class Shared:
    """Runs the trunk, and the heads of the tasks that are asked for."""

    def __init__(self):
        models = Path(os.environ["MODELS"], "shared")
        self.trunk = open_session(models / "trunk.onnx")
        self.heads = {path.stem: open_session(path) for path in models.glob("heads/*.onnx")}
        self.tensor = self.trunk.get_inputs()[0]
        self.tap = next(iter(self.heads.values())).get_inputs()[0].name

    @bentoml.api
    def predict(self, image: Path, tasks: str) -> dict[str, list[float]]:
        """Answer with the scores by task."""
        rows = np.fromfile(image, np.uint8).reshape(1, *self.tensor.shape[1:])
        features = self.trunk.run(None, {self.tensor.name: rows})[0]
        return {task: self.heads[task].run(None, {self.tap: features})[0][0].tolist() for task in tasks.split(",")}
