"""The tree of what is served, drawn once for each catalogue, when somebody looks."""

from __future__ import annotations

import asyncio

from serving.catalog import Catalog
from serving.page.page import DrawTree
from serving.process.threads import to_thread


class Tree:
    """The picture of the newest catalogue that was asked for. draw: makes it. Used from one event loop."""

    def __init__(self, draw: DrawTree) -> None:
        self._draw = draw
        self._drawing = asyncio.Lock()
        self._catalog: Catalog | None = None
        self._picture = b""

    async def of(self, catalog: Catalog) -> bytes:
        """Return the picture of `catalog`, which has one, as an SVG document."""
        async with self._drawing:  # whoever else asks meanwhile gets the same
            if self._catalog is not catalog:
                self._picture = (await to_thread(self._draw, catalog.repository.exported)).encode()
                self._catalog = catalog
            return self._picture
