"""Eight networks behind LitServe: one worker process that has them all."""

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


class Separate(ls.LitAPI):
    """Runs the networks of the tasks that are asked for."""

    def setup(self, device):
        """Open the networks."""
        self.networks = {path.stem: open_session(path) for path in Path(os.environ["MODELS"], "separate").glob("*.onnx")}
        self.tensor = next(iter(self.networks.values())).get_inputs()[0]

    def decode_request(self, request):
        """Take image and tasks from a form."""
        image = np.frombuffer(request["image"].file.read(), np.uint8)
        return image.reshape(1, *self.tensor.shape[1:]), request["tasks"].split(",")

    def predict(self, inputs):
        """Run the tasks' networks."""
        image, tasks = inputs
        return {task: self.networks[task].run(None, {self.tensor.name: image})[0][0].tolist() for task in tasks}


if __name__ == "__main__":
    server = ls.LitServer(Separate(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False)
