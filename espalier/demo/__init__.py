"""The main job on real data: pretrain, tune four tasks, export, serve, query, measure. Each step is a module."""
