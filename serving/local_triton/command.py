"""How tritonserver is started, on this machine or in its container: pure functions of the options."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.local_triton.environment import TritonEnvironment

_CONTAINER = "nvcr.io/nvidia/tritonserver:24.10-py3"
_DEFAULT_PORTS = (8000, 8001, 8002)  # Triton's own, for HTTP, gRPC and metrics
ModelControl = Literal["none", "explicit", "poll"]


@dataclass(frozen=True)
class TritonOptions:
    """How a Triton runs. Ports: 0 is any free one.

    threads: of each model's session; None: one here, where the models work side by side, and in the container, where they share a
    pool, as many as ONNX Runtime chooses. model_control: which models are loaded, and when: all at the start ("none"), those of `load`
    and whatever clients ask for ("explicit"), or all and what changes on disk ("poll"); an ensemble brings its segments with it.
    exit_s: seconds for requests in flight when it is stopped.
    """

    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    threads: int | None = None
    model_control: ModelControl = "none"
    load: tuple[str, ...] = ()
    exit_s: int = 30


@dataclass(frozen=True)
class Ports:
    """The ports that a Triton listens on."""

    http: int
    grpc: int
    metrics: int


def _server_arguments(repository: Path | str, options: TritonOptions) -> list[str]:
    """Return the arguments that a local Triton and the container have in common."""
    return [
        f"--model-repository={repository}",
        "--disable-auto-complete-config",
        f"--model-control-mode={options.model_control}",
        *(f"--load-model={name}" for name in options.load),
        *(["--repository-poll-secs=2"] if options.model_control == "poll" else []),
    ]


def local_command(
    environment: TritonEnvironment, backends: Path, repository: Path, ports: Ports, options: TritonOptions, regions: str
) -> list[str]:
    """Return the command that starts Triton here, on the loopback. regions: begins the names of its shared memory regions."""
    return [
        str(environment.server),
        *_server_arguments(repository, options),
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={regions}",
        *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
        f"--exit-timeout-secs={options.exit_s}",
    ]


def docker_command(repository: Path, options: TritonOptions, ports: Sequence[int] = _DEFAULT_PORTS) -> str:
    """Return the command that serves the same repository with NVIDIA's container, whose ONNX Runtime backend is the native one.

    The folder above is mounted: a change of the repository puts another folder in its place, which a mount of the folder itself
    would not see. One pool of threads for all models: pools of their own take the cores from each other.
    """
    repository = repository.resolve()
    publish = [word for outer, inner in zip(ports, _DEFAULT_PORTS, strict=True) for word in ("-p", f"127.0.0.1:{outer}:{inner}")]
    pool = ["enable-global-threadpool=1", f"intra_op_thread_count={options.threads or 0}", "inter_op_thread_count=1"]
    return shlex.join(
        [
            *("docker", "run", "--rm", *publish),
            *("-v", f"{repository.parent}:/models:ro", _CONTAINER, "tritonserver"),
            *_server_arguments(f"/models/{repository.name}", options),
            *(f"--backend-config=onnxruntime,{setting}" for setting in pool),
        ]
    )
