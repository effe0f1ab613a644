"""The document docs/measurements/coverage.md, from the records of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_Line = dict[str, Any]
ERROR_LIMIT = 1e-5  # composed against whole
_TORCH_LIMIT = 1e-3  # whole against torch: float32 sums in another order, through a whole network
_MACS_LIMIT = 0.01
_COARSE_SHARE = 0.5  # of the MACs in one block: then there is hardly a choice of where to split

_INTRODUCTION = """# Coverage
What the exporter does with the model families of timm: one small variant of each, with random weights, in which one block from the middle
and the head are changed. Made by `python -m benchmarks.studies.coverage --out coverage.jsonl --report docs/measurements/coverage.md`; a
run goes on where an interrupted one stopped.

- **Fork**: blocks before the fork, as the sharing plan finds it, and as it is. For the second, both whole networks are run on the same
  rows with every tap as an output; the fork is in front of the first tap that differs in any bit.
- **Error**: composed segments against the whole model, the largest of batch sizes 1, 3 and 8, in units of the output's spread over eight
  random rows. *torch* is the same for the composed segments against torch.
- **MACs**: ours over those of torch's flop counter; *before* is the share of them before the fork, next to the share of the weights that
  are registered before the changed block. *Largest* is the largest block's share: from one half on, the network is called coarse.
"""


@dataclass(frozen=True)
class _Totals:
    """Families of a run, and how many of them torch can export, are right, and agree with torch's counter on MACs."""

    families: int
    exportable: int
    right: int
    macs_agree: int

    @property
    def share(self) -> float:
        """Return the share of the exportable families that are right."""
        return self.right / self.exportable if self.exportable else 0.0


def _is_exportable(line: _Line) -> bool:
    """Return whether the family counts: torch can export it, or it is not known that it cannot."""
    return line.get("exportable") is not False


def why_wrong(line: _Line) -> str:
    """Return what is wrong with an exportable family, in one line; "" when it has the right fork and a small error."""
    if line.get("reason"):
        return str(line["reason"])
    if line["found_fork"] != line["made_fork"]:
        return f"found the fork after {line['found_fork']} blocks, it is after {line['made_fork']}"
    if not _largest_error(line) < ERROR_LIMIT:
        own = f"; the rounding of torch's own float32 is {line['rounding']:.1e}" if line.get("rounding") else ""
        return f"composed and whole differ by {_largest_error(line):.1e} of the spread{own}"
    if not 0 <= line["torch_error"] < _TORCH_LIMIT:
        return f"differs from torch by {line['torch_error']:.1e} of the spread"
    return ""


def _largest_error(line: _Line) -> float:
    """Return the largest error of composed against whole over the batch sizes; NaN counts as infinite."""
    return max((error if error == error else float("inf") for error in line["errors"].values()), default=float("inf"))


def sum_up(lines: Sequence[_Line]) -> _Totals:
    """Return the totals of `lines`, one per family."""
    counted = [line for line in lines if _is_exportable(line)]
    agreeing = [line for line in counted if line.get("macs_ratio") and abs(line["macs_ratio"] - 1) <= _MACS_LIMIT]
    return _Totals(len(lines), len(counted), sum(not why_wrong(line) for line in counted), len(agreeing))


def make_report(lines: Sequence[_Line], versions: str) -> str:
    """Return the Markdown document for `lines`. versions: of the libraries, for the reader."""
    totals = sum_up(lines)
    counted = [line for line in lines if _is_exportable(line)]
    right = [line for line in counted if not why_wrong(line)]
    wrong = [line for line in counted if why_wrong(line)]
    refused = [line for line in lines if not _is_exportable(line)]
    sections = [
        f"{_INTRODUCTION}\n{versions}.\n",
        f"**{totals.families} families, {totals.exportable} of which torch can export with a dynamic batch size. "
        f"Right fork and error below {ERROR_LIMIT:.0e}: {totals.right} ({totals.share:.1%}). "
        f"MACs within 1 % of torch's: {totals.macs_agree}.**\n",
        *_listed("## Not right", wrong, why_wrong),
        *_listed("## MACs that differ by more than 1 %", [line for line in right if _macs_differ(line)], _explain_macs),
        *_listed(
            "## Coarse: a single block has half of the MACs or more",
            [line for line in right if _is_coarse(line)],
            _explain_coarse,
        ),
        *_listed("## What torch cannot export with a dynamic batch size", refused, lambda line: str(line["reason"])),
        "## Families that are right\n",
        _table(right),
    ]
    return "\n".join(sections) + "\n"


def _macs_differ(line: _Line) -> bool:
    return bool(abs(line["macs_ratio"] - 1) > _MACS_LIMIT)


def _explain_macs(line: _Line) -> str:
    return f"{line['macs_ratio']:.3f} of torch's; uncounted: {', '.join(line['uncounted'])}"


def _is_coarse(line: _Line) -> bool:
    return bool(line["largest_block"] >= _COARSE_SHARE)


def _explain_coarse(line: _Line) -> str:
    return (
        f"{line['blocks']} blocks, the largest with {line['largest_block']:.0%} of the MACs; {line['macs_before']:.0%} of the MACs are "
        f"before the fork, {line['weights_before']:.0%} of the weights before the changed block"
    )


def _listed(title: str, lines: Sequence[_Line], explain: Callable[[_Line], str]) -> list[str]:
    if not lines:
        return []
    rows = [f"- {line['family']} (`{line.get('variant') or 'no variant'}`): {_one_line(explain(line))}" for line in lines]
    return [f"{title}\n", *rows, ""]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:240]


def _table(lines: Sequence[_Line]) -> str:
    head = (
        "| family | variant | M weights | px | blocks | fork found, made | MACs, weights before | largest | error | torch | MACs ratio "
        "| s: trace, bind, analysis, write | peak GB |"
    )
    return "\n".join([head, "|---|---|" + "---:|" * 11, *map(_row, lines)])


def _row(line: _Line) -> str:
    seconds = line["seconds"]
    analysis = seconds["canonical"] + seconds["chains"]
    cells = [
        line["family"],
        line["variant"],
        f"{line['parameters']:.1f}",
        line["size"],
        line["blocks"],
        f"{line['found_fork']}, {line['made_fork']}",
        f"{line['macs_before']:.0%}, {line['weights_before']:.0%}",
        f"{line['largest_block']:.0%}",
        f"{_largest_error(line):.0e}" if _largest_error(line) else "0",
        f"{line['torch_error']:.0e}",
        f"{line['macs_ratio']:.3f}",
        f"{seconds['trace']:.0f}, {seconds['bind']:.0f}, {analysis:.1f}, {seconds['write']:.1f}",
        f"{line['peak_gb']:.1f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"
