"""The commands of the CLI, one file each. They import what they need when they run, so that `--help` is quick and serving torch-free."""

__all__: list[str] = []
