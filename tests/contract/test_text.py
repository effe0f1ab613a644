"""Texts become ids as the library makes them; what differs is who cuts and pads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import EmptyText, LoneSurrogate, TextTooManyTokens, TokenizerFails
from contract.text import TextInput, Tokenizer, as_inputs
from tests.words import WORDS, tokenizer

TEXTS = ["The cat sat", "not far", "the dog ran far not far"]
MASKED = TextInput("", "input_ids", "attention_mask", "token_type_ids", most=16)


def opened(**changes: object) -> Tokenizer:
    made = tokenizer()
    for name, value in changes.items():
        getattr(made, name)(**value)
    return Tokenizer(made.to_str().encode())


def test_texts_are_padded_to_the_longest_of_them_with_a_mask() -> None:
    (rows,) = opened().encode(TEXTS, MASKED).rows
    assert rows.places == (0, 1, 2)
    assert {name: values.shape for name, values in rows.inputs.items()} == dict.fromkeys(MASKED.names, (3, 8))
    assert rows.inputs["input_ids"][1].tolist() == [2, 10, 9, 3, 0, 0, 0, 0]
    assert rows.inputs["attention_mask"].sum(axis=1).tolist() == [5, 4, 8]


def test_rows_of_one_length_are_filled_up() -> None:
    (rows,) = opened().encode(TEXTS, TextInput("", "ids", pad=7, least=9, most=9)).rows
    assert rows.inputs["ids"][0].tolist() == [2, 4, 5, 7, 3, 7, 7, 7, 7]  # "sat" is 7, too


def test_without_a_mask_texts_of_different_lengths_are_not_padded() -> None:
    encoded = opened().encode([*TEXTS, "a b c"], TextInput("", "ids"))
    assert [(rows.places, rows.inputs["ids"].shape) for rows in encoded.rows] == [
        ((0, 3), (2, 5)),
        ((1,), (1, 4)),
        ((2,), (1, 8)),
    ]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), st.integers(3, 8), st.sampled_from(["left", "right"]))
def test_a_long_text_is_cut_as_the_library_cuts_it(words: list[str], most: int, side: str) -> None:
    library, ours = tokenizer(), opened(enable_truncation={"max_length": 3, "direction": side})
    library.enable_truncation(most, direction=side)
    encoded = ours.encode([" ".join(words)], TextInput("", "ids", most=most), cut=True)
    assert encoded.rows[0].inputs["ids"][0].tolist() == library.encode(" ".join(words)).ids
    assert encoded.cut == ({0} if len(words) + 2 > most else set())


def test_a_long_text_is_refused_unless_it_may_be_cut() -> None:
    with pytest.raises(TextTooManyTokens, match=r"Text 3 has 8 tokens, and the network takes 7; send a shorter one, or truncate"):
        opened().encode(TEXTS, TextInput("", "ids", most=7))


def test_it_is_padded_on_the_side_that_the_file_says() -> None:
    left = opened(enable_padding={"direction": "left", "pad_id": 1, "pad_token": "[UNK]"})
    assert left.pad == 1
    assert left.encode(TEXTS, MASKED).rows[0].inputs["attention_mask"][1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_the_file_says_which_token_fills_up_and_how_many_ids_there_are() -> None:
    assert (opened().pad, opened().words, opened().added, opened().limit) == (0, 11, 2, None)
    assert opened(enable_truncation={"max_length": 6}).limit == 6
    assert Tokenizer(tokenizer(special=("a", "b", "c", "d")).to_str().encode()).pad is None


@pytest.mark.parametrize("text", ["", "  "])
def test_a_text_without_a_word_is_refused(text: str) -> None:
    with pytest.raises(EmptyText, match=r"Text 2 is empty"):
        opened().encode(["cat", text], MASKED)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(LoneSurrogate):
        opened().encode(["\ud800"], MASKED)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"[]"])
def test_what_is_no_tokenizer_is_said(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        Tokenizer(content)
    assert "instantiate" not in str(error.value)


class PanicException(BaseException):
    """Called as what code in Rust raises."""


def test_a_tokenizer_that_gives_up_is_an_error_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever catches errors would let it through, up to the end of the server's event loop."""

    class Failing:
        def encode_batch_fast(self, texts: list[str]) -> None:
            raise PanicException

    tokenizer = opened()
    monkeypatch.setattr(tokenizer, "_tokenizer", Failing())
    with pytest.raises(TokenizerFails, match="fails on text 1"):
        tokenizer.encode(TEXTS, MASKED)


def test_inputs_have_the_types_of_the_network() -> None:
    (rows,) = opened().encode(TEXTS, MASKED).rows
    typed = as_inputs(rows, {"input_ids": "INT32", "attention_mask": "INT64"})
    assert [values.dtype for values in typed.values()] == [np.int32, np.int64]


def test_what_it_says_is_written_and_read() -> None:
    assert TextInput.from_json(MASKED.to_json()) == MASKED
    for broken in ("{}", "[]", '{"sha256": "", "ids": "a", "more": 1}', '{"sha256": "", "ids": "a", "least": 3, "most": 2}'):
        with pytest.raises(ValueError, match=r"."):
            TextInput.from_json(broken)
