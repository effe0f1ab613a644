"""Eight networks behind a hand-written FastAPI application."""

# mypy: ignore-errors
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool


def open_session(path):
    """Open a network with the threads that it may use; they sleep when there is nothing to do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


app = FastAPI()
networks = {path.stem: open_session(path) for path in Path(os.environ["MODELS"], "separate").glob("*.onnx")}


def run(body, tasks):
    """Run the tasks' networks on an image."""
    tensor = next(iter(networks.values())).get_inputs()[0]
    image = np.frombuffer(body, np.uint8).reshape(1, *tensor.shape[1:])
    return {task: networks[task].run(None, {tensor.name: image})[0][0].tolist() for task in tasks}


@app.post("/predict")
async def predict(request: Request, tasks: str) -> dict[str, list[float]]:
    """Answer with the scores by task."""
    return await run_in_threadpool(run, await request.body(), tasks.split(","))
