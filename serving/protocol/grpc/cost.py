"""What a gRPC message costs, counted on the wire before protobuf makes objects of it.

An empty field of two bytes becomes an object of hundreds. What is counted here is all that costs more than its bytes, so that a message
takes at most eight times its size, and a few megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tritonclient.grpc import service_pb2

from contract.tensors import check_strings
from serving.errors import TextTooLong, TooManyFields, Undecodable
from serving.protocol.grpc.wire import LENGTH, Malformed, fields
from serving.protocol.message_limits import USUAL, MessageLimits

QUICK_BYTES = 1 << 12  # so much structure is decoded in a millisecond, and to two megabytes at most
_QUICK_FIELDS = 64
QUICK_DATA_BYTES = 1 << 22  # they are copied
_CONTENTS = service_pb2.InferTensorContents.DESCRIPTOR.full_name
_DATA = {service_pb2.ModelInferRequest.DESCRIPTOR.full_name: frozenset({7})}  # raw_input_contents
_STRINGS = service_pb2.InferTensorContents.DESCRIPTOR.fields_by_name["bytes_contents"].number


@dataclass(frozen=True)
class Schema:
    """What the fields of a kind of message are, by their numbers. The others are text, single numbers, or unknown.

    parts: messages. numbers: repeated and packed. data: of tensors, of which each field counts, but not its bytes. strings: of tensors.
    """

    parts: Mapping[int, Schema]
    numbers: frozenset[int]
    data: frozenset[int]
    strings: frozenset[int]


@cache
def schema_of(descriptor: Any) -> Schema:
    """Return the schema of the messages of a protobuf `descriptor`, in which no message holds one of its own kind."""
    repeated = frozenset(field.number for field in descriptor.fields if field.is_packed)
    is_contents = descriptor.full_name == _CONTENTS
    return Schema(
        parts={field.number: schema_of(field.message_type) for field in descriptor.fields if field.message_type},
        numbers=frozenset() if is_contents else repeated,
        data=repeated if is_contents else _DATA.get(descriptor.full_name, frozenset()),
        strings=frozenset({_STRINGS}) if is_contents else frozenset(),
    )


def check_cost(data: bytes, schema: Schema, limits: MessageLimits = USUAL) -> None:
    """Look through a message before it is decoded. Raises TooManyFields, TooMuch (strings), TextTooLong, Undecodable.

    It ends at the first field too many, and looks at no byte of a tensor's data.
    """
    try:
        _CostCounter(limits).add(data, 0, len(data), schema)
    except Malformed:
        raise Undecodable from None


def is_quick(data: bytes, schema: Schema) -> bool:
    """Whether a message has little but raw data of tensors, so that it can be decoded at once, and costs little whatever it holds."""
    if len(data) <= QUICK_BYTES:
        return True
    structure = len(data)
    try:
        for count, (number, _, start, stop) in enumerate(fields(data, 0, len(data))):
            structure -= (stop - start) * (number in schema.data)
            if count == _QUICK_FIELDS:
                return False
    except Malformed:
        return False
    return structure <= QUICK_BYTES and len(data) <= QUICK_DATA_BYTES


class _CostCounter:
    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits
        self._fields = 0
        self._strings = 0

    def add(self, data: bytes, start: int, end: int, schema: Schema) -> None:
        """Count the message that is `data[start:end]`."""
        for number, wire, begin, stop in fields(data, start, end):
            if wire != LENGTH:
                self._count_fields(1)
            elif number in schema.strings:
                self._count_string()
            elif number in schema.parts:
                self._count_fields(1)
                self.add(data, begin, stop, schema.parts[number])
            else:
                self._count_fields(1 + (stop - begin) * (number in schema.numbers))
                if number not in schema.data and stop - begin > self._limits.text_bytes:
                    raise TextTooLong(stop - begin, self._limits.text_bytes)

    def _count_fields(self, count: int) -> None:
        self._fields += count
        if self._fields > self._limits.fields:
            raise TooManyFields(self._limits.fields)

    def _count_string(self) -> None:
        self._strings += 1
        check_strings(self._strings, self._limits.strings)
