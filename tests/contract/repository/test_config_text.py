"""What the quick reader of configurations reads is what protobuf's parser reads; it leaves to that whatever it does not know."""

from __future__ import annotations

import random

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.repository.config import ModelConfig, parse_text
from contract.repository.config_text import read_laid_out

_WORDS = st.text(max_size=12)
_SMALL = st.integers(-(2**31), 2**31 - 1)


@st.composite
def _configs(draw: st.DrawFn) -> object:
    config = ModelConfig(name=draw(_WORDS), platform=draw(_WORDS), max_batch_size=draw(_SMALL))
    for _ in range(draw(st.integers(0, 2))):
        config.input.add(
            name=draw(_WORDS),
            data_type=draw(st.integers(0, 13)),
            dims=draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)),
        )
        config.output.add(name=draw(_WORDS), dims=[draw(_SMALL)], is_shape_tensor=draw(st.booleans()))
    config.parameters[draw(_WORDS)].string_value = draw(_WORDS)
    step = config.ensemble_scheduling.step.add(model_name=draw(_WORDS), model_version=draw(_SMALL))
    step.input_map.update(draw(st.dictionaries(_WORDS, _WORDS, max_size=3)))
    config.instance_group.add(count=draw(_SMALL), kind=draw(st.integers(0, 3)), gpus=[1, 2])
    warmup = config.model_warmup.add(name=draw(_WORDS))
    warmup.inputs["x"].zero_data = draw(st.booleans())
    return config


@settings(max_examples=60, deadline=None)
@given(_configs())
def test_what_protobuf_writes_is_read_as_it_was(config: object) -> None:
    text = text_format.MessageToString(config)
    found = ModelConfig()
    if read_laid_out(text, found):
        assert found == config
    assert parse_text(text, "it") == config


@settings(max_examples=150, deadline=None)
@given(_configs(), st.randoms(use_true_random=False))
def test_whatever_stands_in_a_file_is_read_as_protobuf_reads_it_or_left_to_it(config: object, chance: random.Random) -> None:
    lines = text_format.MessageToString(config).split("\n")
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(lines))
        change = chance.choice(
            (
                [],
                [lines[at], lines[at]],
                [lines[at] + chance.choice(" ,;x#}{\"'\\")],
                ["  " + lines[at].strip() + "\r"],
                [chance.choice(_ODD)],
                [lines[at][: chance.randrange(len(lines[at]) + 1)]],
            )
        )
        lines[at : at + 1] = change
        lines = lines or [""]
    text, found = "\n".join(lines), ModelConfig()
    if read_laid_out(text, found):
        assert found == text_format.Parse(text, ModelConfig())
    else:
        assert found == ModelConfig()


_ODD = (
    "",
    "}",
    "max_batch_size: 010",
    "max_batch_size: 99999999999",
    "max_batch_size: -0",
    'name: "a" "b"',
    "name: 3",
    "unheard_of: 3",
    "input {",
    "input: {",
    "input <",
    "ensemble_scheduling {",
    "sequence_batching {",
    "dynamic_batching {",
    "version_policy {",
    "data_type: TYPE_NONE_SUCH",
    "data_type: 3",
    'key: "\\303"',
    'name: "\\303\\244"',
    "# nothing",
    "zero_data: 1",
    "is_shape_tensor: t",
)


@pytest.mark.parametrize(
    "text",
    [
        'name: "a"\nname: "b"\n',
        "dynamic_batching {\n}\nensemble_scheduling {\n}\n",
        "input {\n",
        "}\n",
        "max_batch_size: 010\n",
        "input {\n  reshape {\n  }\n  reshape {\n  }\n}\n",
        'name: "\\303"\n',
        'parameters {\n  key: "a"\n  key: "b"\n}\n',
    ],
)
def test_what_protobuf_refuses_or_reads_its_own_way_is_left_to_it(text: str) -> None:
    assert not read_laid_out(text, ModelConfig())


def test_all_that_is_written_here_is_laid_out_so() -> None:
    config = ModelConfig(name="a", max_batch_size=64, backend="onnxruntime")
    config.input.add(name="input", data_type=11, dims=[3, 224, -1])
    config.parameters["labels"].string_value = '["Grüße", "\\n"]'
    found = ModelConfig()
    assert read_laid_out(text_format.MessageToString(config), found)
    assert found == config


def test_the_value_of_a_key_that_comes_twice_is_the_last() -> None:
    text = "".join(f'parameters {{\n  key: "a"\n  value {{\n    string_value: "{word}"\n  }}\n}}\n' for word in "bc")
    found = ModelConfig()
    assert read_laid_out(text, found)
    assert found == text_format.Parse(text, ModelConfig())
