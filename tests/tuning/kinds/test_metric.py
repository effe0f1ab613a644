"""Which way is better is said in one place, and what is shown has the unit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuning.kinds.metric import ACCURACY, AVERAGE_PRECISION, Metric, absolute_error, metric_from_json, metric_to_json
from tuning.search.score import Score

ERROR = absolute_error("mm", 0.02)
NUMBERS = st.floats(0, 1)


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.lists(NUMBERS, max_size=3), st.sampled_from([ACCURACY, ERROR]))
def test_no_run_of_the_folds_that_are_left_beats_the_bound(done: list[float], left: list[float], metric: Metric) -> None:
    bound = Score(tuple(done), len(done) + len(left), metric).bound
    assert Score((*done, *left), len(done) + len(left), metric).worth <= bound + 1e-12


def test_a_smaller_error_is_worth_more_and_a_greater_accuracy() -> None:
    assert Score((0.1, 0.3), 2, ERROR).worth > Score((0.3, 0.3), 2, ERROR).worth
    assert Score((0.1, 0.3), 2).worth < Score((0.3, 0.3), 2).worth
    assert ERROR.worth(ERROR.worth(0.7)) == 0.7


def test_numbers_have_their_units() -> None:
    assert Score((0.5, 0.75), 2).words == "62.5 \N{PLUS-MINUS SIGN} 17.7 %"
    assert Score((1.5, 2.5), 2, ERROR).words == "2 \N{PLUS-MINUS SIGN} 0.7071 mm"
    assert (AVERAGE_PRECISION.heading, AVERAGE_PRECISION.axis) == ("mean average precision, %", "mean average precision (%)")
    assert (ERROR.heading, ERROR.axis) == ("mean absolute error, mm", "mean absolute error (mm; less is better)")
    assert absolute_error("", 0.1).axis == "mean absolute error (less is better)"
    assert (ACCURACY.gain_words(0.0052), ERROR.gain_words(-0.25)) == ("+0.52 %", "-0.25 mm")
    assert metric_from_json(metric_to_json(ERROR)) == ERROR
