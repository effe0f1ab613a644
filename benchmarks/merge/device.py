"""Where torch computes, and how a variant there is run to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.merge.equality import Outputs


@dataclass(frozen=True)
class TorchDevice:
    """name: "cpu" or "cuda". threads: of the CPU."""

    name: str
    threads: int

    @property
    def words(self) -> str:
        """Return what computes, for people."""
        return torch.cuda.get_device_name() if self.name == "cuda" else f"CPU, {self.threads} threads"

    def place(self, module: nn.Module) -> nn.Module:
        """Move `module` in place."""
        return module.to(self.name).eval()

    def images(self, rows: int, size: int) -> Tensor:
        """Return random float32 images (rows, 3, size, size)."""
        return torch.randn((rows, 3, size, size), generator=torch.Generator().manual_seed(0)).to(self.name)

    def timed(self, run: Callable[[], object]) -> Callable[[], None]:
        """Return `run` so that it returns when everything is computed; for the thread that calls it, without gradients."""

        def wait() -> None:
            with torch.inference_mode():
                run()
            if self.name == "cuda":
                torch.cuda.synchronize()

        return wait

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Compute in float32 proper, with the fastest kernels for these shapes, while it lasts."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False):
                yield
        finally:
            torch.set_num_threads(before)


def find_device(threads: int) -> TorchDevice:
    """Return the GPU when there is one, else the CPU."""
    return TorchDevice("cuda" if torch.cuda.is_available() else "cpu", threads)


def as_outputs(run: Callable[[], Sequence[Tensor]]) -> Callable[[], Outputs]:
    """Return `run` with its outputs as arrays, to be compared."""

    def outputs() -> Outputs:
        with torch.inference_mode():
            return [tensor.cpu().numpy() for tensor in run()]

    return outputs
