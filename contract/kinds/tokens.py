"""Labels of parts of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contract.kinds.kind import Kind, KindDoesNotFit, Numbers, Shapes, Taken, check_count, only_output


class Tokens(Kind, frozen=True, tag="tokens"):
    """The network gives a class for each token, shape (n, T, C). Labels: one a class; "B-", "I-", "E-", "S-" in front of them make spans.

    outside: the label of tokens that belong to no span.
    """

    outside: str = "O"

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless there is one vector a token of a text, with a label a class."""
        _, count = only_output(outputs, "T, C", "tokens have")
        if takes != "text":
            raise KindDoesNotFit("has no tokenizer, and tokens are of a text")
        if not labels:
            raise KindDoesNotFit("has no labels, and tokens are told apart by them; give NAME.labels.txt")
        check_count(len(labels), count, "label", "labels", "classes")

    def scores_in(self, outputs: Mapping[str, Numbers], labels: int) -> tuple[str, Numbers] | None:
        """Return those of all tokens."""
        ((name, values),) = outputs.items()
        return name, values.reshape(-1, values.shape[-1])
