"""espalier: many fine-tuned tasks on one shared, frozen trunk. The front door: the CLI and the public names."""

from importlib.metadata import version as _version

__version__ = _version("espalier")
