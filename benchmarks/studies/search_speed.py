"""How much faster the search is than the straightforward procedure: `python -m benchmarks.studies.search_speed`.

Straightforward: for every candidate and fold, a copy of the network; every epoch runs the whole network; one training after the other, each
with all cores; gradients only where they are needed, and images in memory, as an expert would have it. The same loop, order of images and
folds. Ours: features before the first tuned block computed once and shared, convolutions in channels-last layout, trainings side by side,
candidates that cannot win given up. Both do a finetuning profile, and a forward greedy search that takes the profile as its first step.
They take turns step by step, and the scores of every training that both did are compared.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.harness.machine import describe_machine
from contract.preprocessing import Preprocessing
from tuning.data.digits import digit_task
from tuning.data.folds import Fold, make_folds
from tuning.data.labelled import TaskData
from tuning.network.backbone import Backbone
from tuning.network.blocks import is_under, replace_head
from tuning.network.normalise import Normalise
from tuning.search.greedy import Selection, StopRule, select
from tuning.search.score import Objective, Score, Subset
from tuning.search.search import Search, SearchOptions, open_search
from tuning.training.compute import Compute
from tuning.training.fit import FitOptions, pretrain
from tuning.training.loop import Course, Examples, accuracy, train
from tuning.training.methods import PROBE_FACTOR, TUNING_LR

_PLAIN = Compute("cpu", channels_last=False)


@dataclass(frozen=True)
class _Stretch:
    """A step of the search. trainings: that the straightforward procedure does; ours may do fewer."""

    name: str
    trainings: int
    ours_trainings: int
    straightforward_s: float
    ours_s: float


@dataclass(frozen=True)
class _SearchSpeed:
    """stretches: in order. chosen: the subset that both find. largest_difference: of a fold's accuracy between the two.

    explained: seconds of the profile as the measures are taken one after the other.
    """

    network: str
    data: str
    images: int
    folds: int
    epochs: int
    stretches: tuple[_Stretch, ...]
    chosen: tuple[Subset, Subset]
    largest_difference: float
    mean_difference: float
    explained: dict[str, float]

    @property
    def speedup(self) -> float:
        """Seconds of the straightforward procedure over ours, all in all."""
        return sum(s.straightforward_s for s in self.stretches) / sum(s.ours_s for s in self.stretches)


class Straightforward:
    """The procedure that is compared with: scores subsets one training after the other."""

    def __init__(self, backbone: Backbone, data: TaskData, folds: Sequence[Fold], options: FitOptions) -> None:
        self._backbone = backbone
        self.folds = folds
        self._options = options
        self._images, self._targets = torch.from_numpy(data.train.images), torch.from_numpy(data.train.targets)
        self._classes = len(data.labels)
        self.scores: dict[Subset, Score] = {}

    def __call__(self, subsets: Sequence[Subset]) -> dict[Subset, Score]:
        """Return the scores of `subsets`; each is trained once."""
        for subset in subsets:
            if subset not in self.scores:
                self.scores[subset] = Score(tuple(self.train(subset, fold) for fold in self.folds), len(self.folds))
        return {subset: self.scores[subset] for subset in subsets}

    def train(self, subset: Subset, fold: Fold) -> float:
        """Return the accuracy on the fold of a network whose `subset` was tuned on it."""
        network = copy.deepcopy(self._backbone.network)
        tuned = (*subset, *replace_head(network, self._classes, self._options.seed))
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(is_under(name, tuned))
        network.eval()
        for path in tuned:
            network.get_submodule(path).train()
        module = nn.Sequential(Normalise(self._backbone.spec.preprocessing), network)
        course = Course((self._options.lr or TUNING_LR) * (1.0 if subset else PROBE_FACTOR), self._options.epochs)
        train(module, Examples((self._images,), self._targets, torch.from_numpy(fold.train)), self._options, course, _PLAIN)
        rows = torch.from_numpy(fold.validation)
        return accuracy(module.eval(), (self._images,), self._targets, rows, 2 * self._options.batch_size, _PLAIN)


def measure(
    backbone: Backbone, data: TaskData, options: FitOptions, folds: int = 3, max_blocks: int = 2, explain: bool = False
) -> _SearchSpeed:
    """Return the seconds of both procedures for a profile and a forward greedy search to `max_blocks` blocks, in turns."""
    split = make_folds(data.train.targets, folds, options.seed)
    plain = Straightforward(backbone, data, split, options)
    stretches: list[_Stretch] = []
    singles: list[Subset] = [(), *((block,) for block in backbone.blocks)]
    with _searching(backbone, data, options, SearchOptions(folds)) as search:
        profile_s = _seconds(lambda: plain(singles))
        ours_s = _seconds(search.profile)
        stretches.append(_stretch("profile", plain, search, profile_s, ours_s, []))
        chosen: tuple[Subset, Subset] = ((), ())
        for blocks in range(2, max_blocks + 1):
            rule = StopRule(-1.0, max_blocks=blocks)
            found: list[Selection] = []
            plain_s = _seconds(lambda: found.append(select("forward", backbone.blocks, plain, rule)))  # noqa: B023 (called at once)
            ours_s = _seconds(lambda: found.append(search.select("forward", rule, Objective())))  # noqa: B023
            stretches.append(_stretch(f"greedy, block {blocks}", plain, search, plain_s, ours_s, stretches))
            chosen = (found[0].chosen.subset, found[1].chosen.subset)
        differences = _differences(plain.scores, search)
    explained = {"straightforward": profile_s, **(_explain(backbone, data, options, folds) if explain else {})}
    return _SearchSpeed(
        backbone.spec.name,
        data.name,
        len(data.train),
        folds,
        options.epochs,
        tuple(stretches),
        chosen,
        float(differences.max()),
        float(differences.mean()),
        explained,
    )


def _explain(backbone: Backbone, data: TaskData, options: FitOptions, folds: int) -> dict[str, float]:
    """Return the seconds of a profile with one measure after the other."""
    cases = {
        "and channels-last": (replace(options, cache_bytes=0), SearchOptions(folds, workers=1)),
        "and features kept": (options, SearchOptions(folds, workers=1)),
        "and trainings side by side": (options, SearchOptions(folds)),
    }
    seconds = {}
    for name, (fit_options, search_options) in cases.items():
        with _searching(backbone, data, fit_options, search_options) as search:
            seconds[name] = _seconds(search.profile)
    return seconds


@contextmanager
def _searching(backbone: Backbone, data: TaskData, options: FitOptions, search: SearchOptions) -> Iterator[Search]:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_search(backbone, data, options, search, Path(folder) / "ledger.jsonl") as opened,
    ):
        yield opened


def _stretch(
    name: str, plain: Straightforward, search: Search, plain_s: float, ours_s: float, before: Sequence[_Stretch]
) -> _Stretch:
    trainings = sum(len(score.folds) for score in plain.scores.values()) - sum(s.trainings for s in before)
    ours = len(search.contents.trials) - sum(s.ours_trainings for s in before)
    return _Stretch(name, trainings, ours, plain_s, ours_s)


def _differences(plain: dict[Subset, Score], search: Search) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    pairs = [(plain[t.subset].folds[t.fold], t.score) for t in search.contents.trials if t.fold is not None and t.subset in plain]
    return np.array([abs(a - b) for a, b in pairs])


def _seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _digits_backbone(image_size: int, epochs: int = 8, network: str = "resnet18", **network_options: object) -> Backbone:
    """Return a network pretrained on upright digits."""
    how = Preprocessing(image_size, image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")
    options = FitOptions(epochs=epochs, lr=2e-3, batch_size=32)
    return pretrain(network, digit_task("digits", how), how, options, network_options=network_options)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18", help="a timm name; it is pretrained on digits first")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--data", default="inverted", help="a task on the digits")
    parser.add_argument("--images", type=int, default=200, help="training images")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-blocks", type=int, default=2)
    parser.add_argument("--pretraining-epochs", type=int, default=4)
    parser.add_argument("--explain", action="store_true", help="also: what each measure contributes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    backbone = _digits_backbone(given.image_size, given.pretraining_epochs, given.network)
    data = digit_task(given.data, backbone.spec.preprocessing)
    train_split = replace(data.train, images=data.train.images[: given.images], targets=data.train.targets[: given.images])
    options = FitOptions(epochs=given.epochs, batch_size=32)
    result = measure(backbone, replace(data, train=train_split), options, given.folds, given.max_blocks, given.explain)
    _print(result)
    if given.json:
        given.json.write_text(json.dumps({**asdict(result), "speedup": result.speedup, "machine": describe_machine()}, indent=1))


def _print(result: _SearchSpeed) -> None:
    print(
        f"{result.network} on {result.data}, {result.images} images, {result.folds} folds, {result.epochs} epochs; {describe_machine()}"
    )
    print(f"{'step':<20}{'trainings':>12}{'ours':>8}{'straightforward':>18}{'ours':>10}{'ratio':>8}")
    for s in result.stretches:
        ratio = s.straightforward_s / s.ours_s
        print(f"{s.name:<20}{s.trainings:>12}{s.ours_trainings:>8}{s.straightforward_s:>16.1f} s{s.ours_s:>8.1f} s{ratio:>8.2f}")
    print(
        f"in all: {result.speedup:.2f} times as fast; chosen: {' + '.join(result.chosen[0])} and {' + '.join(result.chosen[1])}"
    )
    print(f"accuracy of a fold differs by {result.mean_difference:.4f} on average, {result.largest_difference:.4f} at most")
    for name, seconds in result.explained.items():
        print(f"  profile, {name}: {seconds:.1f} s ({result.explained['straightforward'] / seconds:.2f})")


if __name__ == "__main__":
    main()
