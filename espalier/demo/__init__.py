"""The main job on real data: pretrain, tune four tasks, export, serve, query, measure. Each step is a module."""

from espalier.demo.run import DemoOptions, run_demo

__all__ = ["DemoOptions", "run_demo"]
