"""The border between foreign models and the libraries that take them apart, which were written for well-formed ones.

onnx's checker and shape inference are C++: a few wrong bytes make them abort, run for ever or take all memory, which no `except`
catches. Everything that is done to a file before it is split is done first in a process of its own, under limits; what ends that
process gets a sentence here. (Found by fuzzing: a Split with more outputs than it says, a Range of 2**61 numbers.) What Python can catch
is guarded against in this process, too, where graphs also come from torch.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path

import onnx_ir as ir

from exporter.errors import BadModel, ExportError, RefusedModel, UnsupportedModel
from exporter.graph.chain import Chain
from exporter.graph.free.sizes import free_sizes
from exporter.graph.network import make_chain
from exporter.graph.passes.batch.free import free_batch, has_fixed_batch
from exporter.graph.passes.canonical import canonicalise
from exporter.graph.passes.known_forms import KnownForms
from exporter.graph.passes.opsets import is_early
from exporter.graph.shapes import infer_shapes
from exporter.sources.assumed import assume, assumed
from exporter.sources.free_sizes import settle_free_sizes
from exporter.sources.likeness import graph_digest
from exporter.sources.onnx_file import first_line, load_onnx
from exporter.sources.trial import compare_with_file

MAX_NODES = 1_000_000  # after functions are inlined
_MAX_TENSOR_VALUES = 2**31  # 8 GiB of float32: no tensor of one row of a network is as large
_CPU_SECONDS = 120  # per file; a network of 1,000 nodes takes about one
_SPARE_BYTES, _COPIES = 2**30, 3  # memory to analyse a file: this, and so many times its weights
# Not `-m`: that would look for this package in the working directory first.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from exporter.sources.sandbox import main; main()"
_STATUS = Path("/proc/self/statm")


def try_in_sandbox(files: Sequence[Path]) -> tuple[str, ...]:
    """Return what had to be assumed of `files`, in sentences that name them.

    Of several that differ in nothing but the values of weights one is tried, and the others, too, if there is anything to say of it.
    Raises ExportError for the first that cannot be read and split, whatever goes wrong there.
    """
    alike = [graph_digest(file) if len(files) > 1 else None for file in files]
    firsts = {digest: file for digest, file in reversed(list(zip(alike, files, strict=True))) if digest is not None}
    first = [file for digest, file in zip(alike, files, strict=True) if digest is None or firsts[digest] == file]
    answers = dict(zip(first, map(_accepted, examine(first)), strict=True))
    others = [
        file for digest, file in zip(alike, files, strict=True) if file not in answers and digest and answers[firsts[digest]]
    ]
    answers.update(zip(others, map(_accepted, examine(others)), strict=True))
    return tuple(dict.fromkeys(f"{file} {sentence}" for file in files for sentence in answers.get(file, ())))


def _accepted(answer: ExportError | Sequence[str]) -> Sequence[str]:
    if isinstance(answer, ExportError):
        raise answer
    return answer


def examine(files: Sequence[Path]) -> Iterator[ExportError | Sequence[str]]:
    """Yield, for each of `files` in turn, why it cannot be read and split, or what had to be assumed of it. None crashes this process."""
    done = 0
    while done < len(files):
        run = _run(files[done:])
        answers = run.stdout.splitlines()
        for answer in answers:
            said = json.loads(answer)
            yield RefusedModel(said) if isinstance(said, str) else said or ()
        done += len(answers)
        if done < len(files):
            yield BadModel(files[done], _describe_end(run))
            done += 1


def main() -> None:
    """Answer for each file named on stdin (JSON, one a line) with a line: why it is refused, or a list of what was assumed, or null."""
    for line in sys.stdin.read().splitlines():
        _limit_time()
        print(json.dumps(_try_out(Path(json.loads(line)))), flush=True)


def _run(files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _START, json.dumps(sys.path)]
    lines = "".join(f"{json.dumps(str(path))}\n" for path in files)
    return subprocess.run(command, input=lines, capture_output=True, text=True, check=False)


def _describe_end(run: subprocess.CompletedProcess[str]) -> str:
    if -run.returncode == signal.SIGXCPU:
        return f"takes more than {_CPU_SECONDS} s to analyse; its graph is damaged or far too large."
    if run.returncode < 0:
        return f"crashes the ONNX library that reads it ({signal.Signals(-run.returncode).name}); its graph is damaged, export it anew."
    return f"cannot be read ({(run.stderr.strip().splitlines() or ['no reason given'])[-1]})."


def _try_out(path: Path) -> str | tuple[str, ...] | None:
    try:
        model = load_onnx(path)
        early = is_early(model)
        with guarded(str(path)):
            settle_free_sizes(str(path), model, path)
        weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
        with limited_memory(_SPARE_BYTES + _COPIES * weights):
            analysed, chain = analyse(str(path), model)
        kinds = {suspect.kind for block in chain.blocks for suspect in block.suspects}
        if (early or assumed(model)) and "random" not in kinds:
            assume(model, compare_with_file(path, analysed, together="batch_wide" not in kinds))
    except ExportError as error:
        return str(error)
    return assumed(model) or None


def _limit_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + _CPU_SECONDS, hard))


@contextmanager
def limited_memory(extra_bytes: int) -> Iterator[None]:
    """Let this process take at most `extra_bytes` of address space more than it has; beyond that, MemoryError is raised.

    The kernel would otherwise end the process, or another one. Only where /proc tells how much the process has (Linux); a lower
    limit that is set already stays.
    """
    if not _STATUS.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(_STATUS.read_text().split()[0]) * resource.getpagesize() + extra_bytes
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def analyse(name: str, model: ir.Model) -> tuple[ir.Model, Chain]:
    """Return the canonical form of `model`, which is changed in place, and its chain. Raises UnsupportedModel, as below."""
    canonical = canonical_form(name, model)
    with guarded(name):
        return canonical, make_chain(name, canonical)


def canonical_form(name: str, model: ir.Model, file: Path | None = None, known: KnownForms | None = None) -> ir.Model:
    """Return the canonical form of `model`, which is changed in place. file: where it lies as it was given, if it does.

    known: of models before it.
    Raises UnsupportedModel, as below.
    """
    with guarded(name):
        settle_free_sizes(name, model, file)
        _check_inlined_size(name, model)
        if has_fixed_batch(model):
            _check_tensor_sizes(name, model)
            _refuse_free_sizes(name, model)
            changed = free_batch(name, model)
            through = f" ({', '.join(changed)})" if changed else ""
            assume(model, [f"has a batch size of 1, which was made free{through}."])
        return canonicalise(model, known=known, check=partial(_check_tensor_sizes, name))


def _refuse_free_sizes(name: str, model: ir.Model) -> None:
    """Raise UnsupportedModel for a network whose batch size has to be made free while other sizes are free already."""
    if sizes := free_sizes(model):
        named = " and ".join(map(repr, sizes))
        raise UnsupportedModel(
            name, f"leaves {named} free and fixes the batch size to 1; export it with a dynamic first dimension."
        )


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Raise UnsupportedModel, naming the model, for whatever goes wrong in the block; what a library raised is kept as its cause."""
    try:
        yield
    except ExportError:
        raise
    except MemoryError as error:
        raise UnsupportedModel(name, "a constant in its graph is too large to compute.") from error
    except Exception as error:
        raise UnsupportedModel(name, f"its graph cannot be analysed ({_reason(error)}).") from error


def _reason(error: BaseException) -> str:
    """Return what the innermost of chained exceptions says: libraries wrap the reason in "an error occurred when running pass"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _check_inlined_size(name: str, model: ir.Model) -> None:
    """Functions that call functions can double their size at every level, or call themselves."""
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(nodes: Counter[ir.OperatorIdentifier], above: tuple[ir.OperatorIdentifier, ...]) -> int:
        return sum(count * (function_size(key, above) if key in model.functions else 1) for key, count in nodes.items())

    def function_size(key: ir.OperatorIdentifier, above: tuple[ir.OperatorIdentifier, ...]) -> int:
        if key in above:
            raise UnsupportedModel(name, f"its function {key[1]!r} calls itself.")
        if key not in sizes:
            sizes[key] = size(_operators(model.functions[key]), (*above, key))
        return sizes[key]

    if size(_operators(model.graph), ()) > MAX_NODES:
        raise UnsupportedModel(name, f"its functions come to more than {MAX_NODES:,} nodes.")


def _operators(nodes: ir.Graph | ir.Function) -> Counter[ir.OperatorIdentifier]:
    return Counter(node.op_identifier() for node in nodes.all_nodes())


def _check_tensor_sizes(name: str, model: ir.Model) -> None:
    """Folding constants computes them, however large they claim to be."""
    for value, shape in infer_shapes(model, batch=1).items():
        if prod(shape) > _MAX_TENSOR_VALUES:
            raise UnsupportedModel(
                name, f"the tensor {value!r} is larger than any in a network that can be served ({list(shape)})."
            )


if __name__ == "__main__":
    main()
