"""What is opened: segments of a repository on this machine."""

from __future__ import annotations

from collections.abc import Iterable

from contract.errors import EspalierError, RepositoryError
from contract.units import listed, size_text


class PrecisionUnavailable(EspalierError):
    """A precision that this processor has no instructions for."""

    def __init__(self, precision: str) -> None:
        super().__init__(
            f"This processor does not compute in {precision} (it has neither AVX512_BF16 nor AMX); choose fp32 or auto."
        )


class ProviderUnavailable(EspalierError):
    """An execution provider that does not work on this machine."""

    def __init__(self, name: str, usable: Iterable[str]) -> None:
        super().__init__(f"Execution provider {name!r} does not work here; choose one of: {', '.join(usable)}.")


class LessPrecise(RepositoryError):
    """A segment that can be loaded only if others, which are served, were computed more precisely. fault: as "differs by ..."."""

    def __init__(self, segment: str, fault: str, served: Iterable[str]) -> None:
        super().__init__(
            f"The answer of segment {segment!r} to the sample {fault}, because of how {listed(sorted(served))} is computed; start the "
            "server again, which will then compute that more precisely."
        )


class WrongAnswer(RepositoryError):
    """A task answers the sample otherwise than its whole network did when it was exported."""

    def __init__(self, task: str, version: str, output: str, difference: float, allowed: float) -> None:
        super().__init__(
            f"Version {version} of task {task!r} answers its recorded sample with an error of {difference:.3g} in {output!r}, where "
            f"{allowed:.3g} is allowed; its segments are not the exported ones, or are computed wrongly here: export it again."
        )


class SegmentTooLarge(RepositoryError):
    """A segment alone needs more memory than all may take."""

    def __init__(self, name: str, needed_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"Segment {name!r} needs about {size_text(needed_bytes)} of memory, more than the limit of {size_text(limit_bytes)}; "
            "raise the limit."
        )
