"""Measures a family of networks of real size, with random weights: `python -m benchmarks --network resnet50 --tasks 8`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.flops import separate_cost, shared_cost
from benchmarks.latency import compare_latency
from benchmarks.memory import compare_memory
from benchmarks.synthetic import make_family, random_backbone


def main() -> None:
    """Measure a network with random weights and `--tasks` tasks, each tuned in one block, and print what sharing wins."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--network", default="resnet50", help="a timm name")
    parser.add_argument("--block", default="layer4.1", help="the block that every task tunes")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels of the square input")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        backbone = random_backbone(arguments.network, arguments.size)
        family = make_family(backbone, [(arguments.block,)] * arguments.tasks, 100, Path(folder))
        repository, names = family.repository, list(family.networks)
        rows = np.random.default_rng(0).integers(0, 256, (1, arguments.size, arguments.size, 3), dtype=np.uint8)
        latency = compare_latency(repository, family.networks, rows, rounds=arguments.rounds)
        memory = compare_memory(repository.path, family.networks)
    shared, separate = shared_cost(repository, names), separate_cost(repository, names)
    print(f"{arguments.network}, {arguments.size} px, {arguments.tasks} tasks, each with {arguments.block} and a head of its own")
    print(
        f"MACs      shared {shared.macs / 1e9:.2f} G   separate {separate.macs / 1e9:.2f} G   ratio {separate.macs / shared.macs:.2f}"
    )
    print(f"latency   shared {latency.shared}   separate {latency.separate}   ratio {latency.speedup:.2f}")
    print(f"memory    shared {memory.shared_resident / 1e6:.0f} MB   separate {memory.separate_resident / 1e6:.0f} MB")
    print(f"disk      shared {memory.shared_disk / 1e6:.0f} MB   separate {memory.separate_disk / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
