"""The routes of the page. Everything has an ETag and is asked for anew: nothing is sent twice, and nothing is old."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serving.catalog import Catalog
from serving.page.facts import task_facts, task_numbers, why_no_tree
from serving.page.page import Page
from serving.page.tree import Tree
from serving.process.threads import to_thread
from serving.router import Router

_SOURCES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{what} {source}" for what, source in _SOURCES.items()),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_JSON = "application/json"


def page_routes(router: Router, page: Page) -> APIRouter:
    """Return the routes `/` and `/page/...`, which are no part of the API."""
    routes = APIRouter(include_in_schema=False)
    parts = _static_files()
    tree = Tree(page.draw)
    known: tuple[Catalog, bytes] | None = None

    @routes.get("/")
    async def index(request: Request) -> Response:
        """Return the page, to whoever takes HTML; others hear that there is nothing, as they did before there was a page."""
        if not _takes_html(request.headers.get("accept", "*/*")):
            raise HTTPException(404)
        response = _answer(request, parts["index.html"], _TYPES[".html"])
        response.headers["Vary"] = "Accept"
        return response

    @routes.get("/page/tasks")
    async def tasks(request: Request) -> Response:
        """Return which tasks are served."""
        nonlocal known
        catalog = router.catalog
        if known is None or known[0] is not catalog:
            known = catalog, await to_thread(lambda: msgspec.json.encode(task_facts(catalog.repository)))
        return _answer(request, known[1], _JSON)

    @routes.get("/page/numbers")
    async def numbers(request: Request) -> Response:
        """Return what was counted of tasks, and the deploys of late."""
        return _answer(request, await to_thread(_numbers, router, page), _JSON)

    @routes.get("/page/tree.svg")
    async def picture(request: Request) -> Response:
        """Return the tree of the tasks."""
        catalog = router.catalog
        if why_no_tree(catalog.repository):
            raise HTTPException(404)
        return _answer(request, await tree.of(catalog), _TYPES[".svg"])

    @routes.get("/page/{name}")
    async def part(request: Request, name: str) -> Response:
        """Return a static file."""
        if name not in parts:
            raise HTTPException(404)
        return _answer(request, parts[name], _TYPES[name[name.rindex(".") :]])

    return routes


def _numbers(router: Router, page: Page) -> bytes:
    numbers: dict[str, Any] = {
        "ready": router.ready,
        "tasks": task_numbers(router.catalog, router.all_statistics(), router.queued_rows()),
        "deploys": [asdict(deploy) for deploy in page.deploys.newest_first()],
    }
    return msgspec.json.encode(numbers)


@cache
def _static_files() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (files(__package__) / "static").iterdir()}


def _takes_html(accept: str) -> bool:
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return not ranges.isdisjoint({"text/html", "text/*", "*/*", ""})


def _tags(asked: str) -> set[str]:
    """Return the ETags of an If-None-Match, also those that a proxy has made weak when it compressed the body."""
    return {tag.strip().removeprefix("W/") for tag in asked.split(",")}


def _answer(request: Request, body: bytes, media_type: str) -> Response:
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = {**_HEADERS, "ETag": tag}
    if tag in _tags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)
