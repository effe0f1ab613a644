"""What every runtime asks of a segment: with what it is tried, what it must give, how many threads it is worth, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from contract.dtypes import NUMPY_DTYPES, Array
from contract.errors import RepositoryError
from contract.repository.model import Segment, TensorSpec
from contract.repository.reference import at_reference

# A linear probe of 2,048 features and 100 classes on 8 rows: 0.22 ms on one thread, 0.26 ms on two, which also cost a thread.
_ONE_THREAD_MACS = 1_000_000


def is_small(segment: Segment) -> bool:
    """Return whether `segment` is known to compute so little that a second thread gains nothing."""
    return 0 < segment.macs < _ONE_THREAD_MACS


def zeros_for(segment: Segment, rows: int) -> list[Array]:
    """Return inputs for `segment`: rows of zeros, at the reference sizes where sizes are free."""
    specs = at_reference(segment.inputs, segment.sizes)
    return [np.zeros((rows, *spec.shape), NUMPY_DTYPES[spec.dtype]) for spec in specs]


def cannot_be_read(segment: Segment, error: OSError) -> RepositoryError:
    """Return the error of files that are not where they were, and of which no copy can be made."""
    return RepositoryError(
        f"Segment {segment.name!r} cannot be opened: its files are not where they were, and cannot be copied from what the server has "
        f"kept of them ({error.strerror or type(error).__name__}); export the repository again, and load the task."
    )


def check_outputs(segment: Segment, results: Sequence[Array]) -> None:
    """Raise RepositoryError unless `results`, of any number of rows at the reference sizes, are what `segment` says that it gives."""
    if len(results) != len(segment.outputs):
        raise RepositoryError(
            f"Segment {segment.name!r} gives {len(results)} outputs, "
            f"but its config.pbtxt says {len(segment.outputs)}; export the repository again."
        )
    for result, said in zip(results, segment.outputs, strict=True):
        expected = _expected(segment, said)
        fits = [given for given, size in zip(result.shape[1:], expected.shape, strict=False) if size in (-1, given)]
        if not len(fits) == len(expected.shape) == len(result.shape) - 1 or result.dtype != NUMPY_DTYPES.get(expected.dtype):
            raise RepositoryError(
                f"Segment {segment.name!r} gives {result.dtype} rows of shape {list(result.shape[1:])}, "
                f"but its config.pbtxt says {expected.dtype} {list(expected.shape)}; export the repository again."
            )


def _expected(segment: Segment, output: TensorSpec) -> TensorSpec:
    """Return `output` at the reference sizes, as far as they are those of inputs; others may be any that follow from them."""
    named = {name for spec in segment.inputs for name in spec.axes if name}
    shape = (
        segment.sizes[name].reference if size < 0 and name in named and name in segment.sizes else size
        for size, name in zip(output.shape, output.axes or ("",) * len(output.shape), strict=True)
    )
    return replace(output, shape=tuple(shape))
