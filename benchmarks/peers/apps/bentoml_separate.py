"""Eight networks in one BentoML service."""

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
class Separate:
    """Runs the networks of the tasks that are asked for."""

    def __init__(self):
        self.networks = {path.stem: open_session(path) for path in Path(os.environ["MODELS"], "separate").glob("*.onnx")}
        self.tensor = next(iter(self.networks.values())).get_inputs()[0]

    @bentoml.api
    def predict(self, image: Path, tasks: str) -> dict[str, list[float]]:
        """Answer with the scores by task."""
        rows = np.fromfile(image, np.uint8).reshape(1, *self.tensor.shape[1:])
        return {task: self.networks[task].run(None, {self.tensor.name: rows})[0][0].tolist() for task in tasks.split(",")}
