"""Names of sizes that follow from others: "length", "height/8", "12*length", "(height+3)/4", "height*width".

Such a name is whole-number arithmetic on names, "/" rounding down, so that whoever reads it can compute the size, too.
"""

from __future__ import annotations

import ast
import hashlib
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import prod

_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_LARGEST = 64  # divisor that is looked for
_MOST = 1 << 16  # the largest size that is looked for

Vector = tuple[int, ...]  # a size at each of several choices of the free sizes


def evaluate(name: str, sizes: Mapping[str, int]) -> int:
    """Return the size that `name` stands for. Raises KeyError where a size is missing, ValueError for what is no such arithmetic."""
    return _evaluate(_parsed(name), sizes)


def names_in(name: str) -> frozenset[str]:
    """Return the names that `name` is computed from; itself, if it is no arithmetic."""
    try:
        return frozenset(node.id for node in ast.walk(_parsed(name)) if isinstance(node, ast.Name))
    except ValueError:
        return frozenset((name,))


def invert(names: Mapping[str, int], base: str) -> int | None:
    """Return the least size of `base` at which each of `names`, which are computed from it alone, has the size that is given; or None."""
    for size in range(1, _MOST):
        if all(evaluate(name, {base: size}) == wanted for name, wanted in names.items()):
            return size
    return None


def describe(vector: Vector, bases: Mapping[str, Vector], others: Collection[Vector] = ()) -> str:
    """Return the name of a size that is `vector`: the plainest that fits. Different vectors get different names.

    bases: the free sizes. others: sizes that occur, of which it may be the product of two.
    """
    found = _of_one(vector, bases)
    if found:
        return found
    alone = sorted((other for other in others if _of_one(other, bases)), key=lambda other: (len(_of_one(other, bases)), other))
    for index, first in enumerate(alone):
        for second in alone[index:]:
            if tuple(map(prod, zip(first, second, strict=True))) == vector:
                return "*".join(sorted(_bracketed(_of_one(part, bases)) for part in (first, second)))
    return f"size_{hashlib.sha256(repr(vector).encode()).hexdigest()[:8]}"


def _of_one(vector: Vector, bases: Mapping[str, Vector]) -> str:
    """Return the name of what follows from one of `bases`, "" if it does from none."""
    return next((name for base, sizes in bases.items() for name in _of(vector, base, sizes)), "")


def _of(vector: Vector, base: str, sizes: Vector) -> Iterator[str]:
    if vector == sizes:
        yield base
    pairs = sorted(set(zip(sizes, vector, strict=True)))
    if len({size for size, _ in pairs}) != len(pairs) or len(pairs) < 2:
        return
    (first, low), *_, (last, high) = pairs
    factor, rest = divmod(high - low, last - first)
    if not rest and factor and all(value - low == factor * (size - first) for size, value in pairs):
        yield _sum(f"{factor}*{base}" if factor != 1 else base, low - factor * first)
    yield from _divided(pairs, base)


def _divided(pairs: Sequence[tuple[int, int]], base: str) -> Iterator[str]:
    for divisor in range(2, _LARGEST + 1):
        # Rounded down or up, as pooling does; else as convolutions with other kernels do.
        for added in (0, divisor - 1, *sorted(range(-4 * divisor, 4 * divisor), key=lambda number: (abs(number), number))):
            if all((size + added) // divisor == value for size, value in pairs):
                yield f"{_bracketed(_sum(base, added))}/{divisor}"


def _sum(name: str, added: int) -> str:
    return f"{name}{added:+d}" if added else name


def _bracketed(name: str) -> str:
    return name if name.isidentifier() else f"({name})"


def _parsed(name: str) -> ast.expr:
    try:
        return ast.parse(name.replace("/", "//"), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{name!r} is not the name of a size") from error


def _evaluate(node: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, sizes), _evaluate(node.right, sizes)
        if right or not isinstance(node.op, ast.FloorDiv):
            return _OPERATORS[type(node.op)](left, right)
    raise ValueError("that is no whole-number arithmetic")
