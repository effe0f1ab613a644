"""What merging is worth: a frozen suffix on one stacked batch, tuned blocks as one grouped convolution.

The setting of SubTuning (arXiv 2302.06354): tasks share a frozen prefix, run their tuned blocks, and come together again in a frozen
suffix, which can take all of them on one batch. "two tasks" follows the protocol of the official code: batch 1, 224 pixels, float32, the
16 single blocks and the 12 neighbouring pairs within stages of a ResNet-50, the median of 300 runs after 300; here the variants take turns.
Before anything is timed, every variant must answer as two independent networks do.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.framework.options import Options, Runs
from benchmarks.framework.result import Cell, Column, Plot, Result, Series, Style, Table, Unit
from benchmarks.harness.noise import RULE
from benchmarks.merge.cases import choose_cases
from benchmarks.merge.device import TorchDevice, find_device
from benchmarks.merge.measure import ONNX, TORCH, Group, MergeBench
from benchmarks.merge.onnx_variants import SIDE_BY_SIDE
from benchmarks.merge.streams import Subset
from benchmarks.merge.torch_variants import FORKED, GROUPED, SEPARATE, STACKED
from benchmarks.models.families import RANDOM_WEIGHTS, network_cache, networks

_OFFICIAL = Runs(rounds=300, warmup=300)
_FEW, _TINY = Runs(5, 1), Runs(2, 1)
_SHARED = (FORKED, STACKED, GROUPED)
_WAYS = (SEPARATE, SIDE_BY_SIDE, *_SHARED)


def run(options: Options) -> Result:
    """Measure the ResNet of the scale, or what `options.only` names of it. Raises NoSuchMeasurement."""
    network, device = networks(options)[0], find_device(options.cores)
    bench = MergeBench(network, network_cache(options), device, options.watch(), options.scratch)
    cases = choose_cases(bench.parts, options)
    pairs = _two_tasks(bench, cases.subsets, options)
    suffixes = _suffixes(bench, cases.suffixes, options)
    blocks = _blocks(bench, cases.blocks, options)
    return Result(
        _headline(pairs, suffixes, blocks),
        (
            *((_network_table(pairs, options),) if pairs else ()),
            *((_gain_table("A frozen suffix", "stacked", suffixes),) if suffixes else ()),
            *((_gain_table("Tuned blocks", "grouped", blocks),) if blocks else ()),
        ),
        (
            *((_network_plot(pairs),) if pairs else ()),
            *((_gain_plot("merge-suffix", "A frozen suffix on one stacked batch", "stacked", suffixes),) if suffixes else ()),
        ),
        _notes(device, options),
        tuple(group.wrong for group in (*pairs, *suffixes, *blocks) if group.wrong),
    )


def _official(options: Options) -> Runs:
    return options.runs_of(_OFFICIAL, _FEW, _TINY)


def _two_tasks(bench: MergeBench, subsets: Sequence[Subset], options: Options) -> list[Group]:
    runs = _official(options)
    found: list[Group] = []
    for subset in subsets:
        options.say(f"Measuring two tasks that tune {' and '.join(subset)}")
        found += bench.two_tasks(subset, runs)
    return found


def _suffixes(bench: MergeBench, suffixes: Sequence[str], options: Options) -> list[Group]:
    runs = options.runs_of(Runs(30, 10), _FEW, _TINY)
    found: list[Group] = []
    for first in suffixes:
        for streams in options.pick((2, 3, 4, 6, 8), (2, 8), (2,)):
            for batch in options.pick((1, 2, 4, 8), (1,), (1,)):
                options.say(f"Measuring a frozen suffix from {first} on, {streams} streams of {batch}")
                found += bench.suffix(first, streams, batch, runs)
    return found


def _blocks(bench: MergeBench, blocks: Sequence[str], options: Options) -> list[Group]:
    runs = options.runs_of(Runs(30, 10), _FEW, _TINY)
    found: list[Group] = []
    for name in blocks:
        for streams in options.pick((2, 4, 8), (2, 8), (2,)):
            for batch in options.pick((1, 4), (1,), (1,)):
                options.say(f"Measuring {streams} tuned copies of {name}, batch {batch}")
                found += bench.block(name, streams, batch, runs)
    return found


def _headline(pairs: Sequence[Group], suffixes: Sequence[Group], blocks: Sequence[Group]) -> str:
    parts = (
        (pairs, STACKED, "two tasks with shared prefix and stacked suffix against two networks"),
        (suffixes, "stacked", "stacking a frozen suffix"),
        (blocks, "grouped", "grouping tuned blocks"),
    )
    found = [f"{words} {_gain(groups, ONNX, way)} and {_gain(groups, TORCH, way)}" for groups, way, words in parts if groups]
    noisy = sum(group.times is not None and group.times.noisy for group in (*pairs, *suffixes, *blocks))
    doubt = f" While {noisy} of them were measured, the machine was noisy." if noisy else ""
    return f"Speed-up, ONNX Runtime and torch, from the worst case to the best: {'; '.join(found)}.{doubt}"


def _gain(groups: Sequence[Group], runtime: str, variant: str) -> str:
    found = [speedup for group in groups if group.runtime == runtime and (speedup := group.speedup(variant)) is not None]
    if not found:
        return "not measured"
    low, high = f"{min(found):.2f}x", f"{max(found):.2f}x"
    return low if low == high else f"{low} to {high}"


def _notes(device: TorchDevice, options: Options) -> tuple[str, ...]:
    few = options.pick("", "One subset and few runs of each (--quick).", "Too few runs to say anything.")
    if options.runs is not None:
        few = (
            f"{few} The runs were set by --runs: for two tasks {_official(options)}, which is not the protocol's number.".strip()
        )
    words = (
        RANDOM_WEIGHTS,
        f"torch in float32 on {device.words}; ONNX Runtime on the CPU with {device.threads} threads and the engine's own options, which "
        "are those of its two independent networks, too.",
        *(" ".join(paragraph.split()) for paragraph in (__doc__ or "").strip().split("\n\n")[1:]),
        f"Each way adds to the one before: {SEPARATE}, one after another, in ONNX Runtime also side by side, with the faster of which the "
        f"others are compared; {FORKED}; {STACKED}; {GROUPED}, which the engine does not do.",
        "Grouped: the blocks of all streams as one module with grouped convolutions, but for the first, which sees one input and so is one "
        "wider convolution. Putting streams together and taking them apart counts.",
        RULE,
    )
    return (*words, few) if few else words


def _row(group: Group, ways: Sequence[str]) -> dict[str, Cell]:
    times = group.times.value if group.times else {}
    return {
        "runtime": group.runtime,
        "where": group.where,
        "streams": group.streams,
        "batch": group.batch,
        "difference": f"{group.difference:.0e}",
        **(group.times.cells if group.times else {"noise": "not timed", "drift": None, "others": None}),
        **{way: times.get(way) for way in ways},
        **{f"{way} gain": group.speedup(way) for way in ways},
    }


def _network_table(groups: Sequence[Group], options: Options) -> Table:
    columns = (
        Column("runtime", "runtime"),
        Column("where", "tuned"),
        *(Column(way, way, Unit.ms) for way in _WAYS),
        *(Column(f"{way} gain", f"{way}: speed-up", Unit.ratio) for way in _SHARED),
        Column("difference", "answers differ by"),
        Column("noise", ""),
    )
    caption = (
        f"Two tasks that differ in these blocks and the head, one image; median (quartiles) of {_official(options)}, in turn."
    )
    return Table("Two tasks", columns, tuple(_row(group, _WAYS) for group in groups), caption)


def _gain_table(title: str, variant: str, groups: Sequence[Group]) -> Table:
    columns = (
        Column("runtime", "runtime"),
        Column("where", "part"),
        Column("streams", "streams", Unit.number),
        Column("batch", "batch", Unit.number),
        Column("apart", "once for each stream", Unit.ms),
        Column(variant, f"{variant}, once for all", Unit.ms),
        Column(f"{variant} gain", "speed-up", Unit.ratio),
        Column("difference", "answers differ by"),
        Column("noise", ""),
    )
    caption = "Batch: rows of each stream. Below 1 the streams are better run apart."
    return Table(title, columns, tuple(_row(group, ("apart", variant)) for group in groups), caption)


def _network_plot(groups: Sequence[Group]) -> Plot:
    names = list(dict.fromkeys(group.where for group in groups))
    series = []
    for runtime in (TORCH, ONNX):
        for variant in _SHARED:
            points = [
                (float(names.index(group.where) + 1), gain)
                for group in groups
                if group.runtime == runtime and (gain := group.speedup(variant)) is not None
            ]
            if points:
                series.append(
                    Series(f"{variant}, {runtime}", tuple(x for x, _ in points), tuple(y for _, y in points), style=Style.marks)
                )
    detail = f"Two tasks, one image, by what they tune: {', '.join(f'{number} {name}' for number, name in enumerate(names, 1))}."
    return Plot("merge-networks", "Two tasks against two independent networks", detail, "tuned blocks", "speed-up", tuple(series))


def _gain_plot(name: str, title: str, variant: str, groups: Sequence[Group]) -> Plot:
    series = []
    for key in dict.fromkeys((group.runtime, group.where, group.batch) for group in groups):
        found = [
            (float(group.streams), gain)
            for group in groups
            if (group.runtime, group.where, group.batch) == key and (gain := group.speedup(variant)) is not None
        ]
        if found:
            label = f"{key[0]}, {key[1].partition(' ')[0]}, batch {key[2]}"
            series.append(Series(label, tuple(x for x, _ in found), tuple(y for _, y in found)))
    detail = "Against once for each stream. By the runtime, where the suffix begins, and the rows of each stream."
    return Plot(name, title, detail, "streams", "speed-up", tuple(series))
