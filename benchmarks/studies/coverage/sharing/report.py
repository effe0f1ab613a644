"""The tables of dense and text families in docs/measurements/coverage.md, from the records of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_Line = dict[str, Any]
_GOAL_MACS, _GOAL_BYTES = 0.99, 1.0
_TORCH_TOLERANCE = 0.01  # of all MACs: the two ways of finding out what is possible may differ by that
_BEGIN, _END = "<!-- dense and text: written by benchmarks.studies.coverage.sharing -->", "<!-- dense and text: end -->"

_TITLES = {"dense": "## Dense networks", "text": "## Text encoders"}
_INTRODUCTION = """# Dense networks and text encoders
How much of what several networks have in common is shared. Each family is five whole networks on one backbone, with random weights and
small inputs; every one has a head of its own. Dense: three decoders or detectors' raw heads (on the frozen backbone, with a late and with
a middle block tuned) and two classifiers (frozen, a late block tuned). Text: three heads on the first token and two on every token; frozen,
with the last layer, the last two, and a middle layer tuned; with mask and, where the encoder has them, token types. Made by
`python -m benchmarks.studies.coverage.sharing --out sharing.jsonl --report docs/measurements/coverage.md` (the packages of the extra
`coverage`); a run goes on where an interrupted one stopped.

- **Possible**: the share of the networks' MACs that another one of them has computed already. It is found without addresses, digests or
  plans: each whole network is run in ONNX Runtime with every tensor as an output, and computations are one where the operator, its
  attributes and all values that it takes, weights among them, are equal bit by bit. *torch*: the same from torch's operators as the
  networks run there, without what follows from weights alone, which no request computes.
- **Found**: how much of that is computed once when all tasks are asked for; with every cut (`--cuts exact`), and with the cuts that pay
  at these sizes (the default, which leaves out a cut that costs more than it saves).
- **Bytes**: how much of the weights that are used on equal inputs is stored once.
- **Stored**: bytes of the repository over those of all weights that differ: what is above 1 are equal weights on other inputs that are
  stored again, and constants that several segments use. A segment's bytes are the sum of its blocks', so that ALBERT's one layer counts in
  each of the blocks that use it.
- **Error**: composed against whole, in units of the answers' spread.

Texts have a fixed length here; that encoders of any length share the same is held by tests (`tests/exporter/encoders.py`).
"""


def why_less(line: _Line) -> str:
    """Return in one line why a family is not as it should be; "" where everything is shared that can be."""
    if line.get("reason"):
        return str(line["reason"])
    if _found_share(line, "macs") < _GOAL_MACS:
        return f"{_found_share(line, 'macs'):.2%} of the MACs that could be shared are"
    if _found_share(line, "bytes") < _GOAL_BYTES:
        return f"{_found_share(line, 'bytes'):.3%} of the bytes whose inputs are equal are stored once"
    if abs(line["possible_macs"] / line["macs"] - line["torch_possible"]) > _TORCH_TOLERANCE:
        return f"in torch {line['torch_possible']:.1%} of the MACs could be shared, in ONNX {line['possible_macs'] / line['macs']:.1%}"
    return ""


def _found_share(line: _Line, what: str) -> float:
    """Return the share that was found of the possible `what` ("macs", "bytes"); 1 where nothing is possible."""
    possible = line[f"possible_{what}"]
    return float(line[f"found_{what}"] / possible) if possible else 1.0


def make_sections(lines: Sequence[_Line], kinds: Mapping[str, Sequence[str]], versions: str) -> str:
    """Return the tables of `lines`. kinds: the names of the families of each kind. versions: of the libraries, for the reader."""
    sections = [_INTRODUCTION, f"{versions}.\n"]
    for kind, names in kinds.items():
        own = [line for line in lines if line["family"] in names]
        if own:
            missing = sorted({*names} - {line["family"] for line in own})
            unmeasured = [f"Not measured yet: {', '.join(missing)}.", ""] if missing else []
            sections += [_TITLES[kind], "", _sum(own), "", *unmeasured, *_listed(own), _table(own), ""]
    return "\n".join(sections).rstrip() + "\n"


def with_sections(document: str, sections: str) -> str:
    """Return `document` with `sections` between the lines that mark their place; at its end where it has none yet."""
    before, begin, rest = document.partition(_BEGIN)
    after = rest.partition(_END)[2] if begin else "\n"
    return f"{before.rstrip()}\n\n{_BEGIN}\n{sections}{_END}{after}"


def _sum(lines: Sequence[_Line]) -> str:
    whole = [line for line in lines if not line.get("reason")]
    right = sum(not why_less(line) for line in lines)
    macs = sum(line["found_macs"] for line in whole) / max(sum(line["possible_macs"] for line in whole), 1)
    stored = sum(line["found_bytes"] for line in whole) / max(sum(line["possible_bytes"] for line in whole), 1)
    return (
        f"**{len(lines)} families; {right} share at least {_GOAL_MACS:.0%} of the MACs and {_GOAL_BYTES:.0%} of the bytes whose inputs are "
        f"equal. Of all of them together: {macs:.2%} of the MACs, {stored:.2%} of the bytes.**"
    )


def _listed(lines: Sequence[_Line]) -> list[str]:
    rows = [f"- {line['family']}: {why_less(line)}" for line in lines if why_less(line)]
    return ["Less than possible:", *rows, ""] if rows else []


def _table(lines: Sequence[_Line]) -> str:
    head = "| family | networks | MMACs, all | possible | torch | found | found, cuts that pay | bytes found | stored | segments | error |"
    return "\n".join([head, "|---|---|" + "---:|" * 9, *(_row(line) for line in lines if not line.get("reason"))])


def _row(line: _Line) -> str:
    cells = [
        line["family"],
        line["what"],
        f"{line['macs'] / 1e6:.1f}",
        f"{line['possible_macs'] / line['macs']:.1%}",
        f"{line['torch_possible']:.1%}",
        f"{_found_share(line, 'macs'):.2%}",
        f"{line['cheap_macs'] / max(line['possible_macs'], 1):.1%}",
        f"{_found_share(line, 'bytes'):.2%}",
        f"{line['stored_bytes'] / line['distinct_bytes']:.2f}",
        f"{line['segments']}, {line['cheap_segments']}",
        f"{line['parity']:.0e}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"
