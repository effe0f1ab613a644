"""A name is public on purpose: a package lists it, or another module uses it; what is neither begins with an underscore."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from importlib import import_module

import pytest

from tests import names

# What is found by its name, and by whom.
FOUND_BY_NAME = {
    r".*\.log": "nobody; it is called so everywhere",
    r"espalier\.cli\.main": "the command `espalier`, in pyproject.toml",
    r"benchmarks\.\w+\.benchmark\.run": "benchmarks.registry",
    r"benchmarks\.peers\.apps\..*": "the servers that are compared",
    r"serving\.local_triton\.onnx_backend\.TritonPythonModel": "Triton's Python backend",
}


@cache
def wanted() -> set[names.Place]:
    """What other modules use and packages list, with what stands in the signatures of these."""
    source = names.read(names.PACKAGES)
    everything = source | names.read(("tests", "deploy"))
    return names.with_interfaces(source, names.used(everything) | names.listed(source))


@pytest.mark.parametrize("package", names.packages())
def test_every_package_lists_what_is_public(package: str) -> None:
    module = import_module(package)
    assert hasattr(module, "__all__"), f"{package} has no __all__"
    for name in module.__all__:
        found = getattr(module, name, None)
        assert found is not None, f"{package}.__all__ names {name}, which is not there"
        if inspect.isclass(found) or inspect.isroutine(found):
            assert inspect.getdoc(found), f"{package}.{name} has no docstring"


@pytest.mark.slow
@pytest.mark.parametrize("package", names.PACKAGES)
def test_no_name_is_public_by_accident(package: str) -> None:
    accidents = [
        f"{module.name}.{name}"
        for module in names.read((package,)).values()
        for name, node in module.defined()
        if not name.startswith("_") and (module.name, name) not in wanted() and not _is_found_by_name(module, name, node)
    ]
    lines = "".join(f"\n  {name}" for name in accidents)
    assert not accidents, f"{len(accidents)} names that nobody uses and no __all__ has; an underscore says so:{lines}"


def _is_found_by_name(module: names.Module, name: str, node: ast.stmt) -> bool:
    """Whether a name is on the list, a command of typer, or what `python -m` runs."""
    if any(re.fullmatch(pattern, f"{module.name}.{name}") for pattern in FOUND_BY_NAME):
        return True
    if isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(each) for each in node.decorator_list):
        return True
    return name == "main" and any(isinstance(each, ast.If) and "__main__" in ast.unparse(each.test) for each in module.tree.body)
