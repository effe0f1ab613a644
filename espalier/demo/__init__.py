"""The main job on real data: pretrain, tune five tasks, export, serve, query, measure. Each step is a module."""

__all__: list[str] = []
