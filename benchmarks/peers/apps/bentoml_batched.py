"""A trunk and eight heads in a BentoML service that takes requests in batches, behind one that takes them one at a time."""

# mypy: ignore-errors
import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort
from pydantic import BaseModel


def open_session(path):
    """Open a network with the threads that it may use; they wait for each other awake, and sleep between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Question(BaseModel):
    """An image and the tasks that it is for: what is batched has one parameter."""

    image: bytes
    tasks: list[str]


@bentoml.service
class Networks:
    """Runs the trunk on all images, and each head on the features of those that ask for it."""

    def __init__(self):
        models = Path(os.environ["MODELS"], "shared")
        self.trunk = open_session(models / "trunk.onnx")
        self.heads = {path.stem: open_session(path) for path in models.glob("heads/*.onnx")}
        self.tensor = self.trunk.get_inputs()[0]
        self.tap = next(iter(self.heads.values())).get_inputs()[0].name

    @bentoml.api(batchable=True, max_batch_size=8)
    def predict(self, questions: list[Question]) -> list[dict[str, list[float]]]:
        """Answer each with the scores by task."""
        images = np.frombuffer(b"".join(question.image for question in questions), np.uint8)
        features = self.trunk.run(None, {self.tensor.name: images.reshape(-1, *self.tensor.shape[1:])})[0]
        answers = [{} for _ in questions]
        for task, head in self.heads.items():
            rows = [row for row, question in enumerate(questions) if task in question.tasks]
            if rows:
                for row, scores in zip(rows, head.run(None, {self.tap: features[rows]})[0], strict=True):
                    answers[row][task] = scores.tolist()
        return answers


@bentoml.service
class Batched:
    """Takes an image as a file."""

    networks = bentoml.depends(Networks)

    @bentoml.api
    async def predict(self, image: Path, tasks: str) -> dict[str, list[float]]:
        """Answer with the scores by task."""
        question = Question(image=image.read_bytes(), tasks=tasks.split(","))
        return (await self.networks.to_async.predict([question]))[0]
