"""What happens to a text before the first segment, in one place for exporting and serving: a tokenizer makes ids of it.

The tokenizer is a file of the `tokenizers` library, of the extra `text`, which is imported when the first one is opened. What the file says
of padding and of cutting long texts is not followed, but for the side on which it is done: rows are as long as the network wants them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from contract.dtypes import NUMPY_DTYPES, Array
from contract.errors import EmptyText, ExtraNeeded, LoneSurrogate, TextTooManyTokens, TokenizerFails

if TYPE_CHECKING:
    import tokenizers

_PADS = ("[PAD]", "<pad>", "<|padding|>", "<|pad|>")  # what a token is called that fills up, where nothing says it


@dataclass(frozen=True)
class TextInput:
    """How a text becomes a row of each of a task's inputs. Raises ValueError unless 1 <= least <= most.

    sha256: of the tokenizer's file (hex), which lies beside the task's configuration: equal files, equal ids.
    ids, mask, types: what the inputs are called that take ids, 1 for each token that is one, and types; "": there is none such.
    pad: the id that fills rows up. least: tokens of the shortest row. most: of the longest, those counted that the tokenizer adds; None:
    nobody knows of a limit. Where both are equal, every row has so many. padded: whether a text is answered the same when its row is filled
    up, as it is where the network heeds its mask everywhere.
    """

    sha256: str
    ids: str
    mask: str = ""
    types: str = ""
    pad: int = 0
    least: int = 1
    most: int | None = None
    padded: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.least <= (self.least if self.most is None else self.most):
            raise ValueError(f"a text has {self.least} to {self.most} tokens")

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the inputs are called."""
        return tuple(filter(None, (self.ids, self.mask, self.types)))

    def to_json(self) -> str:
        """Return it as `from_json` reads it."""
        return json.dumps(
            {name: value for name, value in asdict(self).items() if (name, value) != ("padded", True)}, sort_keys=True
        )

    @classmethod
    def from_json(cls, text: str) -> TextInput:
        """Return what `to_json` wrote. Raises ValueError."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"the text input is {text!r}") from error


@dataclass(frozen=True)
class EncodedText:
    """A text, and where in it the tokens of its row are. encode: gives it with places, filled up; those cost as much again, and few ask."""

    text: str
    encode: Callable[[], tokenizers.Encoding] = field(repr=False, compare=False)

    @property
    def spans(self) -> list[tuple[int, int] | None]:
        """Return of each token where in the text it begins and ends, in characters; None of those that are none of its parts."""
        encoding = self.encode()
        return [None if added else place for place, added in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)]


@dataclass(frozen=True)
class TextRows:
    """Texts as rows that go through a network together.

    places: of the texts among those that were given. inputs: by name, each int64 of shape (texts, tokens). texts: with their tokens.
    """

    places: tuple[int, ...]
    inputs: Mapping[str, Array]
    texts: tuple[EncodedText, ...] = ()


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as rows, all together where padding cannot change an answer. cut: the places of texts of which only the beginning is there."""

    rows: tuple[TextRows, ...]
    cut: frozenset[int] = frozenset()


class Tokenizer:
    """A tokenizer's file, opened. Threads may use it at the same time; while it works, others can run Python.

    sha256: of the file. pad: the id of the token that fills up, None where the file names none. words: one more than the largest id that
    it gives. added: tokens that it adds to each text. limit: the most tokens that its file says a text has, None where it says nothing.
    """

    def __init__(self, content: bytes) -> None:
        """Raise ValueError, with the reason, for a file that holds no tokenizer, and ExtraNeeded without the library."""
        os.environ.setdefault(
            "TOKENIZERS_PARALLELISM", "false"
        )  # threads of its own for one request would take the others' cores
        try:
            from tokenizers import Tokenizer as Library
        except ImportError as error:
            raise ExtraNeeded("Texts", "tokenizers", "text") from error
        try:
            self._tokenizer = Library.from_buffer(content)
        except BaseException as error:  # the library has no class of its own for it, and one of its own for failing
            if _is_panic(error):
                raise ValueError("it makes the library fail") from error
            if not isinstance(error, Exception):
                raise
            raise ValueError(str(error).rpartition("from buffer: ")[2].strip().rstrip(".")) from error
        self.sha256 = sha256(content).hexdigest()
        padding, cutting = self._tokenizer.padding or {}, self._tokenizer.truncation or {}
        self.limit: int | None = cutting.get("max_length")
        self._cut_side, self._pad_side = cutting.get("direction", "right"), padding.get("direction", "right")
        self._pad_type = padding.get("pad_type_id", 0)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.added = self._tokenizer.num_special_tokens_to_add(False)
        vocabulary = self._tokenizer.get_vocab()
        self.words = max(vocabulary.values(), default=-1) + 1
        self.pad: int | None = padding.get("pad_id", next((vocabulary[name] for name in _PADS if name in vocabulary), None))

    def encode(
        self, texts: Sequence[str], how: TextInput, *, cut: bool = False, check: Callable[[], None] = lambda: None
    ) -> EncodedTexts:
        """Return `texts` as rows for a network that takes them like `how`.

        cut: whether of a text with too many tokens only the beginning is taken; otherwise it is refused. Where the network heeds a
        mask, or has rows of one length, all texts are in one array; otherwise those of each length. check: called before each text; what
        it raises ends the work. Raises EmptyText, TextTooManyTokens, LoneSurrogate.
        """
        encodings: list[tokenizers.Encoding] = []
        shortened: set[int] = set()
        for place, text in enumerate(texts):
            check()
            encodings.append(self._encode(place, text))
            tokens = len(encodings[place])
            if tokens <= self.added:
                raise EmptyText(place + 1)
            if how.most is not None and tokens > how.most:
                if not cut:
                    raise TextTooManyTokens(place + 1, tokens, how.most)
                encodings[place] = self._cut(text, how.most)
                shortened.add(place)
        groups = self._groups([len(encoding) for encoding in encodings], how)
        rows = (self._rows(texts, encodings, places, how, length) for length, places in groups.items())
        return EncodedTexts(tuple(rows), frozenset(shortened))

    def _encode(self, place: int, text: str) -> tokenizers.Encoding:
        try:
            return self._tokenizer.encode_batch_fast([text])[0]
        except TypeError as error:
            raise LoneSurrogate from error
        except BaseException as error:
            if isinstance(error, Exception) or _is_panic(error):
                raise TokenizerFails(place + 1) from error
            raise

    def _cut(self, text: str, most: int) -> tokenizers.Encoding:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(max(0, most - self.added), direction=self._cut_side)
        return self._tokenizer.post_process(encoding, add_special_tokens=True)

    def _groups(self, lengths: Sequence[int], how: TextInput) -> dict[int, list[int]]:
        """Return the places of texts by the length of their rows."""
        if how.mask and how.padded:
            return {max(*lengths, how.least): [*range(len(lengths))]}
        groups: dict[int, list[int]] = {}
        for place, length in enumerate(lengths):
            groups.setdefault(max(length, how.least), []).append(place)
        return groups

    def _rows(
        self,
        texts: Sequence[str],
        all_encodings: Sequence[tokenizers.Encoding],
        places: Sequence[int],
        how: TextInput,
        length: int,
    ) -> TextRows:
        encodings = [all_encodings[place] for place in places]
        for encoding in encodings:
            encoding.pad(length, direction=self._pad_side, pad_id=how.pad, pad_type_id=self._pad_type)
        encoded = (EncodedText(texts[place], partial(self._with_places, texts[place], how, length)) for place in places)
        said = {how.ids: "ids", how.mask: "attention_mask", how.types: "type_ids"}
        inputs = {name: np.array([getattr(one, said[name]) for one in encodings], np.int64) for name in how.names}
        return TextRows(tuple(places), inputs, tuple(encoded))

    def _with_places(self, text: str, how: TextInput, length: int) -> tokenizers.Encoding:
        """Return `text` as its row has it, with the places of its tokens."""
        encoding = self._tokenizer.encode(text)
        if how.most is not None and len(encoding) > how.most:
            encoding = self._cut(text, how.most)
        encoding.pad(length, direction=self._pad_side, pad_id=how.pad, pad_type_id=self._pad_type)
        return encoding


def _is_panic(error: BaseException) -> bool:
    """Return whether code in Rust has given up: no Exception, which whoever catches errors would let through."""
    return type(error).__name__ == "PanicException"


def as_inputs(rows: TextRows, dtypes: Mapping[str, str]) -> dict[str, Array]:
    """Return the arrays of `rows` as inputs of `dtypes`, by name, in the v2 protocol's words."""
    return {name: rows.inputs[name].astype(NUMPY_DTYPES[dtype], copy=False) for name, dtype in dtypes.items()}
