"""What `make docs` counts in documents."""

from __future__ import annotations

import pytest

from docs.site.prose import LONG, long_sentences, sentences, words

PAGE = """# A heading
One sentence, with `some code`. [A link](somewhere.md) is its words; "quoted." So is this one
on two lines.

    espalier serve repo

```python
import espalier
```

- an item
- another. Of two.

| one | two words |
|---|---|
<!-- not seen -->
"""


def test_sentences_are_those_that_are_read() -> None:
    assert list(sentences(PAGE)) == [
        "A heading",
        "One sentence, with CODE.",
        'A link is its words; "quoted.',
        "So is this one on two lines.",
        "an item",
        "another.",
        "Of two.",
        "one",
        "two words",
    ]
    assert words(PAGE) == 2 + 4 + 6 + 7 + 2 + 1 + 2 + 1 + 2


@pytest.mark.parametrize(("count", "found"), [(LONG, []), (LONG + 1, [LONG + 1])])
def test_what_is_longer_than_allowed_is_found(count: int, found: list[int]) -> None:
    assert [one.words for one in long_sentences({"page": " ".join(["word"] * count)})] == found
