"""The network's modules that nodes come from, where the producer recorded them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile

import onnx_ir as ir

_KNOWN = 4096  # texts: networks of one architecture have the same
_NAME_SCOPES = "pkg.torch.onnx.name_scopes"  # module paths, as torch's exporter records them on each node


def modules_of(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    """Return the modules that `nodes` come from: per top-level module, the deepest path that covers all of its nodes."""
    grouped: dict[str, list[str]] = {}
    for node in nodes:
        for path in module_path(node):
            parts = path.split(".")
            grouped[parts[0]] = _common_prefix(grouped.get(parts[0], parts), parts)
    return tuple(".".join(parts) for parts in grouped.values())


def module_path(node: ir.Node) -> list[str]:
    """Return the node's module path below the exporter's wrapper, in a list that is empty if unknown."""
    return [*_path_in(str(node.metadata_props.get(_NAME_SCOPES, "[]")))]


@lru_cache(_KNOWN)
def _path_in(written: str) -> tuple[str, ...]:
    try:
        scopes = [str(scope) for scope in ast.literal_eval(written)]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # somebody else's metadata under that name
        return ()
    # The scopes go from the root to the operator; the wrapper's own child is called "network".
    paths = [scope.removeprefix("network.") for scope in scopes[1:-1] if scope not in ("", "network")]
    return tuple(paths[-1:])


def _common_prefix(left: list[str], right: list[str]) -> list[str]:
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))]
