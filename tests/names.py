"""Which names our modules define, and which of them others use: read from the source, nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("contract", "tuning", "serving", "exporter", "benchmarks", "espalier")

# A module and a name that is defined in it.
Place = tuple[str, str]


@dataclass(frozen=True)
class Module:
    """A module's source."""

    name: str  # dotted
    file: str  # from the root
    tree: ast.Module
    is_package: bool

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All of its syntax tree: to walk through it takes most of the time here."""
        return list(ast.walk(self.tree))

    @cached_property
    def imported(self) -> dict[str, Place]:
        """What a name that is imported anywhere in the module means: a module and a name in it, or a module and "" for itself."""
        places: dict[str, Place] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                places |= {alias.asname: (alias.name, "") for alias in node.names if alias.asname}
            elif isinstance(node, ast.ImportFrom) and node.module:
                places |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        return places

    def defined(self) -> Iterator[tuple[str, ast.stmt]]:
        """Functions, classes and constants at the top of the module, each with its statement."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name, node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    yield from ((name.id, node) for name in ast.walk(target) if isinstance(name, ast.Name))


def read(folders: tuple[str, ...]) -> dict[str, Module]:
    """The modules in `folders`, by dotted name."""
    return {name: module for folder in folders for name, module in _read(folder).items()}


@cache
def _read(folder: str) -> dict[str, Module]:
    modules = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        path = file.relative_to(ROOT)
        is_package = path.name == "__init__.py"
        name = ".".join(path.parent.parts if is_package else path.with_suffix("").parts)
        modules[name] = Module(name, path.as_posix(), ast.parse(file.read_text()), is_package)
    return modules


def packages() -> list[str]:
    """Return the dotted names of our packages, at every level."""
    folders = (file.parent for top in PACKAGES for file in (ROOT / top).rglob("__init__.py"))
    return sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)


def listed(modules: Mapping[str, Module]) -> set[Place]:
    """The places of all names that a package's `__all__` has: written out, or made by `contract.lazy.public`."""
    places = set()
    for module in modules.values():
        for _, node in module.defined():
            if not isinstance(node, ast.Assign | ast.AnnAssign) or "__all__" not in ast.dump(node):
                continue
            for part in ast.walk(node):
                if isinstance(part, ast.Dict):  # public(__name__, {"module": ["Name", ...]})
                    names = ast.literal_eval(part).items()
                    places |= {(f"{module.name}.{inner}", name) for inner, found in names for name in found}
                elif isinstance(part, ast.List):
                    strings = [item.value for item in part.elts if isinstance(item, ast.Constant)]
                    places |= {(module.name, name) for name in strings if isinstance(name, str)}
    return {resolved(modules, place) for place in places}


def resolved(modules: Mapping[str, Module], place: Place) -> Place:
    """Where a name is defined that may have been imported from a package that imports it itself."""
    module, name = place
    if module in modules and modules[module].is_package and name in (imported := modules[module].imported):
        return resolved(modules, imported[name])
    return place


def used(modules: Mapping[str, Module]) -> set[Place]:
    """The places that some module uses which is not their own: by import, as an attribute, or by name in a string."""
    uses = ((module.name, place) for module in modules.values() for place in _uses(module, modules))
    return {resolved(modules, place) for user, place in uses if place[0] != user}


def with_interfaces(modules: Mapping[str, Module], places: set[Place]) -> set[Place]:
    """`places`, and what of the same module stands in their signatures, fields and bases, or is a value of theirs."""
    found, waiting = set(places), list(places)
    while waiting:
        module, name = waiting.pop()
        statements = [node for defined, node in modules[module].defined() if defined == name] if module in modules else []
        mentioned = {(module, part.id) for node in statements for part in _interface(node) if isinstance(part, ast.Name)}
        waiting += mentioned - found
        found |= mentioned
    return found


def _interface(node: ast.AST) -> Iterator[ast.AST]:
    """What whoever uses a function, class or value meets: everything but the bodies of functions."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts = [node.args, *([node.returns] if node.returns else [])]
    else:
        yield node
        parts = list(ast.iter_child_nodes(node))
    for part in parts:
        yield from _interface(part)


def _uses(module: Module, modules: Mapping[str, Module]) -> Iterator[Place]:
    imported = module.imported
    loaded = {node.id for node in module.nodes if isinstance(node, ast.Name)}
    # What a package only imports, it offers to others; whether they want it is `__all__`'s matter.
    yield from (place for name, place in imported.items() if name in loaded or not module.is_package)
    for node in module.nodes:
        if isinstance(node, ast.Attribute):
            yield _module_of(node.value, imported, modules), node.attr
        elif isinstance(node, ast.Call):  # patch.setattr(module, "name", ...)
            for owner, name in zip(node.args, node.args[1:], strict=False):
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield _module_of(owner, imported, modules), name.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _named(node.value)


def _module_of(node: ast.expr, imported: Mapping[str, Place], modules: Mapping[str, Module]) -> str:
    """The dotted name of the module that an expression stands for; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    name = ".".join(part for part in (*imported.get(node.id, (node.id,)), *parts) if part)
    return name if name in modules else ""


def _named(text: str) -> Iterator[Place]:
    """Names in a string: `package.module:name` of a registry, `package.module.name` of a patch."""
    for match in re.finditer(rf"\b((?:{'|'.join(PACKAGES)})(?:\.\w+)+)[.:](\w+)", text):
        yield match[1], match[2]
