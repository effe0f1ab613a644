"""Which numbers an input may have: the places of the smallest table that it indexes."""

import onnx.parser
import onnx_ir as ir
import pytest

from exporter.graph.free.values import value_ranges
from tests.exporter.bert import WORDS, Bert


def ranges(body: str) -> dict[str, tuple[int, int]]:
    text = f"""<ir_version: 9, opset_import: ["": 18]> net (int64[batch, length] ids) => (float[batch, length, 2] out)
    <float[3, 2] small = {{1, 2, 3, 4, 5, 6}}, float[5, 2] large = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}, float[2, 4] turned =
    {{1, 2, 3, 4, 5, 6, 7, 8}}, int64[1] one = {{1}}, float[1] factor = {{1}}> {{ {body} }}"""
    return value_ranges(ir.from_proto(onnx.parser.parse_model(text)).graph)


@pytest.mark.parametrize(
    ("body", "last"),
    [
        ("out = Gather(large, ids)", 4),
        ("a = Gather(large, ids) b = Gather(small, ids) out = Add(a, b)", 2),
        ("c = Cast <to = 6> (ids) u = Unsqueeze(c, one) a = Gather(large, u) out = Squeeze(a, one)", 4),
        ("out = Gather <axis = 1> (turned, ids)", 3),
        ("m = Add(ids, one) out = Gather(large, m)", None),  # positions that are computed say nothing of ids
        ("f = Cast <to = 1> (ids) u = Unsqueeze(f, one) out = Concat <axis = 1> (u, u)", None),
    ],
)
def test_an_input_has_the_places_of_its_smallest_table(body: str, last: int | None) -> None:
    assert ranges(body) == ({} if last is None else {"ids": (0, last)})


def test_of_a_bert_words_and_types_are_known_and_the_mask_is_not() -> None:
    found = value_ranges(Bert(masked=True).model().graph)
    assert found == {"input_ids": (0, WORDS - 1), "token_type_ids": (0, 1)}
