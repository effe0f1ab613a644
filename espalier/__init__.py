"""espalier: many fine-tuned tasks on one shared, frozen trunk. The front door: the CLI and the public names."""

from importlib.metadata import version as _version

import contract as _contract  # noqa: F401  (before ONNX Runtime is imported: it says that nothing is to be reported)

__version__ = _version("espalier")
