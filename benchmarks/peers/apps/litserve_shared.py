"""A trunk and eight heads behind LitServe: one worker process that has them all."""

# mypy: ignore-errors
import os
from pathlib import Path

import litserve as ls
import numpy as np
import onnxruntime as ort


def open_session(path):
    """Open a network with the threads that it may use; they wait for each other awake, and sleep between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Shared(ls.LitAPI):
    """Runs the trunk, and the heads of the tasks that are asked for."""

    def setup(self, device):
        """Open trunk and heads."""
        models = Path(os.environ["MODELS"], "shared")
        self.trunk = open_session(models / "trunk.onnx")
        self.heads = {path.stem: open_session(path) for path in models.glob("heads/*.onnx")}
        self.tensor = self.trunk.get_inputs()[0]
        self.tap = next(iter(self.heads.values())).get_inputs()[0].name

    def decode_request(self, request):
        """Take image and tasks from a form."""
        image = np.frombuffer(request["image"].file.read(), np.uint8)
        return image.reshape(1, *self.tensor.shape[1:]), request["tasks"].split(",")

    def predict(self, inputs):
        """Run the trunk, and the tasks' heads on its features."""
        image, tasks = inputs
        features = self.trunk.run(None, {self.tensor.name: image})[0]
        return {task: self.heads[task].run(None, {self.tap: features})[0][0].tolist() for task in tasks}


if __name__ == "__main__":
    server = ls.LitServer(Shared(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False)
