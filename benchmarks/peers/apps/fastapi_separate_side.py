"""Eight networks behind a hand-written FastAPI application; those of a request run side by side."""

# mypy: ignore-errors
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool


def open_session(path):
    """Open a network that runs in the thread that calls it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


app = FastAPI()
networks = {path.stem: open_session(path) for path in Path(os.environ["MODELS"], "separate").glob("*.onnx")}
pool = ThreadPoolExecutor(int(os.environ["THREADS"]))  # of all requests, so that no more networks run than there are cores


def run(body, tasks):
    """Run the tasks' networks on an image."""
    tensor = next(iter(networks.values())).get_inputs()[0]
    image = np.frombuffer(body, np.uint8).reshape(1, *tensor.shape[1:])
    answers = pool.map(lambda task: networks[task].run(None, {tensor.name: image}), tasks)
    return {task: outputs[0][0].tolist() for task, outputs in zip(tasks, answers, strict=True)}


@app.post("/predict")
async def predict(request: Request, tasks: str) -> dict[str, list[float]]:
    """Answer with the scores by task."""
    return await run_in_threadpool(run, await request.body(), tasks.split(","))
