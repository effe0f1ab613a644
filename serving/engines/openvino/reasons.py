"""Why OpenVINO does not run a segment, in words for a line of the log."""

from __future__ import annotations

import re

from contract.errors import EspalierError
from contract.units import printable

_OPERATORS = re.compile(r"(?:No conversion rule found for operations|Conversion is failed for): ([^\n]+)")
_LONGEST = 200


def reason(error: Exception) -> str:
    """Return why `error` came, without a full stop; OpenVINO names the operators that it lacks in the last lines of many."""
    if isinstance(error, EspalierError):
        return str(error).rstrip(".")
    found = _OPERATORS.search(str(error))
    if found is not None:
        return f"OpenVINO has no {', '.join(_name(word) for word in found[1].split(','))}"
    lines = [
        line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith(("Exception from", "Check "))
    ]
    return f"OpenVINO does not run it ({printable(lines[0] if lines else type(error).__name__)[:_LONGEST]})"


def _name(word: str) -> str:
    """Return an operator's name without the version of the operators: Det-18."""
    return re.sub(r"-\d+$", "", word.strip())
