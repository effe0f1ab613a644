"""A trunk and eight heads as deployments of Ray Serve, composed by another one."""

# mypy: ignore-errors
import asyncio
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import ray
from ray import serve
from starlette.requests import Request


def open_session(path):
    """Open a network with the threads that it may use; they sleep when there is nothing to do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Trunk:
    """Runs the trunk."""

    def __init__(self, path):
        self.session = open_session(path)
        self.tensor = self.session.get_inputs()[0]

    def __call__(self, body):
        """Return the features of an image."""
        image = np.frombuffer(body, np.uint8).reshape(1, *self.tensor.shape[1:])
        return self.session.run(None, {self.tensor.name: image})[0]


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Head:
    """Runs one head."""

    def __init__(self, path):
        self.session = open_session(path)

    def __call__(self, features):
        """Return the scores."""
        return self.session.run(None, {self.session.get_inputs()[0].name: features})[0][0].tolist()


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=100)
class Tasks:
    """Asks the trunk, and the heads of the tasks that are asked for."""

    def __init__(self, trunk, heads):
        self.trunk, self.heads = trunk, heads

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        """Answer with the scores by task."""
        body, tasks = await request.body(), request.query_params["tasks"].split(",")
        features = self.trunk.remote(body)
        answers = await asyncio.gather(*(self.heads[task].remote(features) for task in tasks))
        return dict(zip(tasks, answers, strict=True))


models = Path(os.environ["MODELS"], "shared")
heads = {path.stem: Head.options(name=path.stem).bind(str(path)) for path in sorted(models.glob("heads/*.onnx"))}
app = Tasks.bind(Trunk.bind(str(models / "trunk.onnx")), heads)
if __name__ == "__main__":
    ray.init("local", include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(app, route_prefix="/predict", blocking=True)
