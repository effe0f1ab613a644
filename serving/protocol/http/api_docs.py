"""What /docs and /openapi.json say beyond the endpoints' own words: bodies, examples that work, and the errors that there are."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from contract.dtypes import BYTES, NUMPY_DTYPES
from serving.catalog import Catalog, Model
from serving.router import Router

_HOST = "http://127.0.0.1:8000"
_MAX_EXAMPLE_VALUES = 20_000  # a longer example helps nobody
_PARAMETERS = {"type": "object", "description": "Of the v2 protocol and its extensions."}
_VALUE = {"type": ["number", "string", "boolean", "array"]}
_NAMED = {"name": {"type": "string"}, "parameters": _PARAMETERS}
INFER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "description": "Comes back with the answer."},
        "parameters": _PARAMETERS,
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape"],
                "properties": {
                    **_NAMED,
                    "datatype": {"type": "string", "enum": list(NUMPY_DTYPES)},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "description": "First the rows."},
                    "data": {"type": "array", "description": "The values in row-major order, flat or nested.", "items": _VALUE},
                },
            },
        },
        "outputs": {
            "type": "array",
            "description": "Which outputs to compute; left out: all.",
            "items": {"type": "object", "required": ["name"], "properties": _NAMED},
        },
    },
}
_BINARY = {"type": "string", "format": "binary"}


_TEXT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["text"],
    "additionalProperties": False,
    "properties": {
        "text": {
            "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "description": "One text, or several; the answer is one, or a list.",
        },
        "tasks": {
            "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "description": "Left out: as the address says, or all that take text.",
        },
        "top_k": {"type": "integer", "minimum": 1},
        "truncate": {
            "type": "boolean",
            "default": False,
            "description": "Whether of a text with more tokens than the network takes the beginning is answered, which the answer then "
            "says; otherwise it is refused.",
        },
    },
}


def predict_docs(path: str) -> dict[str, Any]:
    """Return what OpenAPI says about the body of an endpoint that takes images or texts, and how to call it as `path`."""
    text = f"""curl -H 'Content-Type: application/json' -d '{{"text": ["..."]}}' '{_HOST}{path}'"""
    one = f"curl --data-binary @photo.jpg '{_HOST}{path}'"
    several = f"curl -F files=@photo.jpg -F files=@other.png '{_HOST}{path}'"
    return {
        "requestBody": {
            "required": True,
            "description": "The bytes of a PNG, JPEG, WebP, GIF or BMP file, or a form with several such files, whatever its fields "
            f"are called; or JSON with texts.\n\n    {one}\n    {several}\n    {text}",
            "content": {
                "image/*": {"schema": _BINARY},
                "application/json": {"schema": _TEXT_SCHEMA, "example": {"text": ["..."]}},
                "multipart/form-data": {
                    "schema": {"type": "object", "properties": {"files": {"type": "array", "items": _BINARY, "minItems": 1}}}
                },
            },
        },
        "x-codeSamples": [
            {"lang": "Shell", "label": "one image", "source": one},
            {"lang": "Shell", "label": "several images", "source": several},
            {"lang": "Shell", "label": "texts", "source": text},
        ],
    }


def add_docs_page(app: FastAPI) -> None:
    """Add /docs, whose parts are here and named from where it is: a proxy may show it at another path."""
    parts = "static-offline-docs"

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} - API",
            swagger_js_url=f"{parts}/swagger-ui-bundle.js",
            swagger_css_url=f"{parts}/swagger-ui.css",
            swagger_favicon_url=f"{parts}/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},  # an address elsewhere
        )


def document(app: FastAPI, router: Router) -> None:
    """Let `app` describe itself with an example for the models of `router`, and without answers that it never gives."""
    described: Catalog | None = None

    def openapi() -> dict[str, Any]:
        nonlocal described
        if app.openapi_schema is None or described is not router.catalog:  # its examples are of models that are there
            described = router.catalog
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                servers=[{"url": "."}],  # from where this document is, see add_docs_page
            )
            app.openapi_schema = _completed(schema, router)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _completed(schema: dict[str, Any], router: Router) -> dict[str, Any]:
    example = min(router.catalog.models.values(), key=_cost_of_example, default=None)
    values = {} if example is None else {"model": example.name, "version": example.version}
    if router.repository.tasks:
        values["task"] = next(iter(router.repository.tasks))
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own; ours is 400
            if example is not None and path.endswith("/infer"):
                _add_infer_example(operation, example)
            _add_parameter_examples(operation, values)
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)
    return schema


def _add_parameter_examples(operation: dict[str, Any], values: dict[str, str]) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" and parameter["name"] in values:
            parameter["example"] = values[parameter["name"]]


def _add_infer_example(operation: dict[str, Any], model: Model) -> None:
    if _input_values(model) <= _MAX_EXAMPLE_VALUES:
        operation["requestBody"]["content"]["application/json"]["example"] = _infer_example(model)


def _infer_example(model: Model) -> dict[str, Any]:
    """Return a request of one row for `model`."""
    inputs = [
        {
            "name": model.shown(spec.name),
            "datatype": spec.dtype,
            "shape": [abs(size) for size in model.whole_shape(spec)],
            "data": [_ZEROS.get(spec.dtype, 0)] * math.prod(spec.shape),
        }
        for spec in model.example_inputs()
    ]
    return {"id": "42", "inputs": inputs, "outputs": [{"name": model.shown(name)} for name in model.outputs]}


_ZEROS: dict[str, object] = {BYTES: "", "BOOL": False}


def _cost_of_example(model: Model) -> tuple[bool, int]:
    """What espalier has exported takes any values; of other models nobody knows."""
    return model.plain is not None, _input_values(model)


def _input_values(model: Model) -> int:
    return sum(math.prod(spec.shape) for spec in model.example_inputs())
