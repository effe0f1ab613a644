"""A trunk and eight heads behind a hand-written FastAPI application; the heads of a request run side by side."""

# mypy: ignore-errors
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool


def open_session(path, threads):
    """Open a network with the threads that it may use; they sleep when there is nothing to do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


app = FastAPI()
models = Path(os.environ["MODELS"], "shared")
threads = int(os.environ["THREADS"])
trunk = open_session(models / "trunk.onnx", threads)
heads = {path.stem: open_session(path, 1) for path in models.glob("heads/*.onnx")}
pool = ThreadPoolExecutor(threads)  # of all requests, so that no more heads run than there are cores


def run(body, tasks):
    """Run the trunk on an image, and the tasks' heads on its features."""
    tensor = trunk.get_inputs()[0]
    features = trunk.run(None, {tensor.name: np.frombuffer(body, np.uint8).reshape(1, *tensor.shape[1:])})[0]
    answers = pool.map(lambda task: heads[task].run(None, {heads[task].get_inputs()[0].name: features}), tasks)
    return {task: outputs[0][0].tolist() for task, outputs in zip(tasks, answers, strict=True)}


@app.post("/predict")
async def predict(request: Request, tasks: str) -> dict[str, list[float]]:
    """Answer with the scores by task."""
    return await run_in_threadpool(run, await request.body(), tasks.split(","))
