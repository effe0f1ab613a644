"""A trunk and eight heads as a custom runtime of MLServer."""

# mypy: ignore-errors
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


def open_session(path):
    """Open a network with the threads that it may use; they wait for each other awake, and sleep between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Shared(MLModel):
    """Runs the trunk, and the heads of the tasks that are asked for, as the outputs of one model."""

    async def load(self) -> bool:
        """Open trunk and heads."""
        models = Path(os.environ["MODELS"], "shared")
        self.trunk = open_session(models / "trunk.onnx")
        self.heads = {path.stem: open_session(path) for path in models.glob("heads/*.onnx")}
        self.tensor = self.trunk.get_inputs()[0]
        self.tap = next(iter(self.heads.values())).get_inputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer with an output per task."""
        image = np.frombuffer(payload.inputs[0].data[0], np.uint8).reshape(1, *self.tensor.shape[1:])
        features = self.trunk.run(None, {self.tensor.name: image})[0]
        answers = {output.name: self.heads[output.name].run(None, {self.tap: features})[0] for output in payload.outputs}
        outputs = [NumpyCodec.encode_output(task, scores) for task, scores in answers.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
