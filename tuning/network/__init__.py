"""The pretrained network that tasks share: its parts, its weights, and the files that hold what a task changed."""
