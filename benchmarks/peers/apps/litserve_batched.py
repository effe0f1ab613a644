"""A trunk and eight heads behind LitServe: one worker process that has them all, and that takes requests in batches."""

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


class Batched(ls.LitAPI):
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
        """Run the trunk on all images, and each head on the features of those that ask for it."""
        images, wanted = zip(*inputs, strict=True)
        features = self.trunk.run(None, {self.tensor.name: np.concatenate(images)})[0]
        answers = [{} for _ in inputs]
        for task, head in self.heads.items():
            rows = [row for row, tasks in enumerate(wanted) if task in tasks]
            if rows:
                for row, scores in zip(rows, head.run(None, {self.tap: features[rows]})[0], strict=True):
                    answers[row][task] = scores.tolist()
        return answers


if __name__ == "__main__":
    server = ls.LitServer(Batched(max_batch_size=8, batch_timeout=0.005), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False)
