"""How operators are defined: since which version they mean what they mean, and what they take where nothing is said.

An operator of opset 21 is mostly the one of opset 7: later versions take more types, or get an attribute whose default says what held
before. Two files of different opsets compute the same where all their operators are such.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache

import onnx
import onnx_ir as ir
from onnx import defs

_DEFAULT = ("", "ai.onnx")
_OPTIONAL = defs.OpSchema.FormalParameterOption.Optional
_SINGLE = defs.OpSchema.FormalParameterOption.Single
# Versions that mean something else by the same inputs and attributes, and the attribute without which they do not: how windows count that
# begin in the padding, where regions begin, and whether a scale is of a group or of a channel.
_MEANT_ANEW = {("AveragePool", 19): "ceil_mode", ("RoiAlign", 16): None, ("GroupNormalization", 21): None}


def version_of(domain: str, operator: str, opset: int, said: Collection[str] = ()) -> int:
    """Return the first version of `domain` in which `operator` meant what it means in `opset`.

    That is its own version, or an earlier one that differs in nothing but types and attributes with a default. Of operators that onnx
    does not know it is `opset`. said: the attributes of the node that say something else than their default.
    """
    return _first_like(_written(domain), operator, opset, frozenset(said).intersection(_MEANT_ANEW.values()))


def defaults_of(domain: str, operator: str, opset: int) -> Mapping[str, ir.Attr]:
    """Return the attributes that `operator` has in `opset` where a node leaves them out; empty for what onnx does not know."""
    return _defaults(_written(domain), operator, opset)


def _written(domain: str) -> str:
    return "" if domain in _DEFAULT else domain


@cache
def _first_like(domain: str, operator: str, opset: int, said: Collection[str | None]) -> int:
    if not defs.has(operator, opset, domain):
        return opset
    schema = defs.get_schema(operator, opset, domain)
    while (earlier := _before(schema)) is not None and _says_the_same(earlier, schema, said):
        schema = earlier
    return int(schema.since_version)


def _before(schema: defs.OpSchema) -> defs.OpSchema | None:
    """Return the version before that of `schema`, None if that is the first."""
    version = schema.since_version - 1
    known = version > 0 and defs.has(schema.name, version, schema.domain)
    return defs.get_schema(schema.name, version, schema.domain) if known else None


def _says_the_same(earlier: defs.OpSchema, later: defs.OpSchema, said: Collection[str | None]) -> bool:
    """Whether a node of the `earlier` version that is read as one of the `later` means the same."""
    return (
        _MEANT_ANEW.get((later.name, later.since_version), "") not in (None, *said)
        and _is_wider(earlier.inputs, later.inputs)
        and _is_wider(earlier.outputs, later.outputs)
        and _keeps_attributes(earlier.attributes, later.attributes)
    )


def _is_wider(earlier: list[defs.OpSchema.FormalParameter] | object, later: list[defs.OpSchema.FormalParameter] | object) -> bool:
    """Whether each input (or output) has its place still, and those that came since may be left out."""
    before, after = [[parameter.option for parameter in parameters] for parameters in (earlier, later)]  # type: ignore[attr-defined]
    same = all(new in (old, _OPTIONAL) if old == _SINGLE else new == old for old, new in zip(before, after, strict=False))
    return same and len(before) <= len(after) and all(option == _OPTIONAL for option in after[len(before) :])


def _keeps_attributes(earlier: Mapping[str, defs.OpSchema.Attribute], later: Mapping[str, defs.OpSchema.Attribute]) -> bool:
    kept = all(name in later and _default(later[name]) == _default(attribute) for name, attribute in earlier.items())
    return kept and not any(attribute.required for name, attribute in later.items() if name not in earlier)


def _default(attribute: defs.OpSchema.Attribute) -> tuple[object, bytes]:
    value: onnx.AttributeProto = attribute.default_value
    return attribute.type, value.SerializeToString(deterministic=True) if value.name else b""


@cache
def _defaults(domain: str, operator: str, opset: int) -> Mapping[str, ir.Attr]:
    if not defs.has(operator, opset, domain):
        return {}
    attributes = defs.get_schema(operator, opset, domain).attributes
    values = {name: attribute.default_value for name, attribute in attributes.items() if attribute.default_value.name}
    return {name: ir.serde.deserialize_attribute(value) for name, value in values.items()}
