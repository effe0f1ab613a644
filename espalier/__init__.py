"""espalier: many fine-tuned tasks on one shared, frozen trunk. The front door: the CLI and the public names."""

from typing import TYPE_CHECKING

import contract as _contract  # noqa: F401  (before ONNX Runtime is imported: it says that nothing is to be reported)
from contract.lazy import public

if TYPE_CHECKING:
    from espalier.api import add as add
    from espalier.api import deploy as deploy
    from espalier.api import export as export
    from espalier.api import open as open
    from espalier.api import remove as remove
    from espalier.api import serve as serve
    from espalier.client import AsyncClient as AsyncClient
    from espalier.client import Client as Client

    __version__: str

__all__, _find = public(
    __name__,
    {"api": ["add", "deploy", "export", "open", "remove", "serve"], "client": ["AsyncClient", "Client"]},
)


def __getattr__(name: str) -> object:
    if name != "__version__":
        return _find(name)
    from importlib.metadata import version  # loads the parser of mails

    return version("espalier")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # so that help() and completion know them
