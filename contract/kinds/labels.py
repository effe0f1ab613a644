"""Any number of labels at once."""

from __future__ import annotations

from collections.abc import Sequence

from contract.kinds.kind import Kind, Scores, Shapes, Taken, check_count, check_fractions, only_output


class Labels(Kind, frozen=True, tag="labels"):
    """The network gives a vector, shape (n, L): a logit for each label, or its sigmoid (`Task.scores` "independent").

    thresholds: from which score on a label holds, from 0 to 1: one for all, or one for each.
    """

    thresholds: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        check_fractions(self.thresholds, "a threshold")
        if not self.thresholds:
            raise ValueError("there is no threshold; give one for all labels, or one for each")

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless there is one vector, with a label and a threshold an entry."""
        (count,) = only_output(outputs, "L", "labels are")
        check_count(len(labels) or count, count, "label", "labels", "outputs")
        check_count(count if len(self.thresholds) == 1 else len(self.thresholds), count, "threshold", "thresholds", "labels")

    def remarks(self, scores: Scores, labels: int) -> Sequence[str]:
        """Say it of probabilities that sum to one."""
        if scores not in ("probabilities", "log_probabilities"):
            return ()
        return (
            "Labels: probabilities that sum to one, so that two labels hardly reach 0.5 together: {}. If one of several is meant, the kind "
            "is classes.",
        )

    def threshold(self, index: int) -> float:
        """Return from which score on label number `index` holds."""
        return self.thresholds[index if len(self.thresholds) > 1 else 0]
