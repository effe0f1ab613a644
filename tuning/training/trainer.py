"""Trains methods on one backbone and one data set. What they have in common, the frozen features, is computed once."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.preprocessing import Preprocessing
from tuning.data.augment import draw_views
from tuning.data.folds import Rows
from tuning.data.labelled import TaskData
from tuning.errors import BadData
from tuning.kinds.registry import objective_of
from tuning.network.backbone import Backbone
from tuning.network.blocks import is_under, replace_head
from tuning.network.copying import copy_sharing, shared_memo
from tuning.network.frozen_prefix import split_network
from tuning.network.low_rank import merge_layers, wrap_layers
from tuning.network.normalise import Normalise
from tuning.network.siamese import make_siamese
from tuning.training.compute import Compute, find_compute, seeded
from tuning.training.features import FeatureStore
from tuning.training.loop import Course, Examples, FitOptions, OnEpoch, logits, train
from tuning.training.methods import PROBE_LR, TUNING_LR, Method, TrainingPhase

_PROBE_ROWS = 3  # images to try a split of the network on


@dataclass(frozen=True)
class Stage:
    """A phase made ready.

    module: takes what `prefix` makes of images, or images where there is none. key: names the prefix, "" for none.
    trained: paths in the network. everything: all of it is trained.
    """

    module: nn.Module
    key: str
    prefix: nn.Module | None
    trained: tuple[str, ...]
    everything: bool


@dataclass(frozen=True)
class Prepared:
    """A method made ready to run, again and again, on other rows.

    network: untrained. stages: of the method's phases; their modules are the network's. owned: paths of what the task owns in the network.
    head: those of its last layer.
    """

    method: Method
    network: nn.Module
    stages: tuple[Stage, ...]
    owned: tuple[str, ...]
    head: tuple[str, ...]

    @property
    def replayed(self) -> bool:
        """Whether every phase trains on features that were computed once."""
        return all(stage.key for stage in self.stages)


@dataclass(frozen=True)
class Trained:
    """A network after training, in eval mode on the trainer's device, and how it came to be.

    stage: the last. loss: mean over the last epoch. lr: the last phase's peak. seconds: of training. processor_s: seconds of a processor
    that it took, where one thread did it all; else None.
    """

    network: nn.Module
    stage: Stage
    loss: float
    lr: float
    seconds: float
    processor_s: float | None = None


class Trainer:
    """Trains methods on a backbone's copy. `store`: where frozen features are kept; the trainer's own if None.

    Preparing is not safe in several threads (torch.fx replaces what modules do while it traces); running what was prepared is, unless
    it draws random numbers (`tuning.training.dry_run`).
    """

    def __init__(self, backbone: Backbone, data: TaskData, options: FitOptions, store: FeatureStore | None = None) -> None:
        check_data(data, backbone.spec.preprocessing, "backbone")
        self.backbone = backbone
        self.data = data
        self.options = options
        self.compute: Compute = find_compute(options.device, options.precision)
        self.objective = objective_of(data)
        self.targets = self.objective.targets()
        self._store = store or FeatureStore(options.cache_bytes, options.cache_folder)
        self._normalise = Normalise(backbone.spec.preprocessing).to(self.compute.device)
        self._base = self.compute.place(copy.deepcopy(backbone.network))
        self._images = {"training": torch.from_numpy(data.train.images), "test": torch.from_numpy(data.test.images)}
        if options.views:
            views = draw_views(data.train.images, options.views, options.seed, flip=options.flip)
            self._images["augmented"] = torch.from_numpy(views.reshape(-1, *views.shape[2:]))

    def prepare(self, method: Method, seed: int | None = None, network: nn.Module | None = None) -> Prepared:
        """Return `method` ready to run. seed: of the new head; the options' if None.

        network: where to go on from instead of the backbone's weights and a new head (a task's network, from `build_network`); it is
        copied. Outside of what the method trains it must hold the backbone's weights, and LoRA cannot go on.
        """
        seed = self.options.seed if seed is None else seed
        if network is None:
            network, head = self._build(method, seed)
        else:
            network = self.compute.place(copy.deepcopy(network)).eval()
            head = ("head",) if method.siamese else self.backbone.head
        for path in head:
            self.objective.check_head(network.get_submodule(path))
        stages = tuple(self._stage(network, _trained(method, phase) + head, phase.everything) for phase in method.phases)
        return Prepared(method, network, stages, _owned_paths(method.paths, head, method.siamese), head)

    def run(
        self, prepared: Prepared, rows: Rows | None = None, seed: int | None = None, on_epoch: OnEpoch | None = None
    ) -> Trained:
        """Train on the training images `rows`, all if None. Raises NonFiniteLoss."""
        start, processor_start = time.perf_counter(), time.thread_time()
        network, stages = _fresh(prepared)
        method, options = prepared.method, self.options if seed is None else replace(self.options, seed=seed)
        chosen = torch.arange(len(self.targets)) if rows is None else torch.from_numpy(rows)
        loss, done, lr = 0.0, 0, 0.0
        with seeded(options.seed, self.compute):
            for phase, stage in zip(method.phases, stages, strict=True):
                self._set_modes(network, stage)
                lr = _lr(method, phase, options)
                course = Course(
                    peak=lr,
                    epochs=phase.epochs,
                    first_epoch=done if method.one_cosine else 0,
                    epochs_in_all=method.epochs if method.one_cosine else phase.epochs,
                    relative_gradients=method.relative_gradients,
                )
                told = _counted_from(done, method.epochs, on_epoch)
                loss = train(stage.module, self._examples(stage, chosen), options, course, self.compute, told)
                done += phase.epochs
        network.eval()
        alone = torch.get_num_threads() == 1 and self.compute.device == "cpu"
        processor_s = round(time.thread_time() - processor_start, 4) if alone else None
        return Trained(network, stages[-1], loss, lr, time.perf_counter() - start, processor_s)

    def lr(self, method: Method) -> float:
        """Return the peak learning rate of the method's last phase."""
        return _lr(method, method.phases[-1], self.options)

    def sample(self, stage: Stage, rows: int) -> tuple[Tensor, ...]:
        """Return what the stage's module takes for the first `rows` training images, on the device."""
        images = self.compute.put(self._images["training"][:rows])
        with torch.no_grad():
            return tuple(self.compute.put(t) for t in stage.prefix(images)) if stage.prefix else (images,)

    def whole(self, network: nn.Module, rows: Rows) -> tuple[nn.Module, Examples]:
        """Return a network that runs whole, on images (uint8), and the training images `rows` for it, without augmentation."""
        examples = Examples((self._images["training"],), self.targets, torch.from_numpy(rows), loss=self.objective.loss)
        return nn.Sequential(self._normalise, network), examples

    def fresh(self, prepared: Prepared, phase: int) -> Stage:
        """Return the stage of `phase` with an untrained copy of the network, in training mode."""
        network, stages = _fresh(prepared)
        self._set_modes(network, stages[phase])
        return stages[phase]

    def score(self, trained: Trained, what: str = "test", rows: Rows | None = None) -> float:
        """Return the number of the kind's metric, such as the accuracy, on "test" or "training" images (or on `rows` among them)."""
        return self.objective.score(self.logits(trained, what, rows), self._wanted(what, rows))

    def measure(self, trained: Trained, what: str = "test", rows: Rows | None = None) -> Mapping[str, float]:
        """Return what was reached on "test" or "training" images (or `rows`), by the names that the task's kind has for it."""
        return self.objective.measure(self.logits(trained, what, rows), self._wanted(what, rows))

    def _wanted(self, what: str, rows: Rows | None) -> NDArray[Any]:
        targets = (self.data.test if what == "test" else self.data.train).targets
        return targets if rows is None else targets[rows]

    def validation_loss(self, trained: Trained, rows: Rows) -> float:
        """Return the mean loss over the training images `rows`, in eval mode."""
        scores = self.logits(trained, "training", rows)
        return float(self.objective.loss(scores, self.targets[torch.from_numpy(rows)]))

    def logits(self, trained: Trained, what: str, rows: Rows | None = None) -> Tensor:
        """Return the class scores of "test" or "training" images, float32 (n, classes) on the CPU."""
        inputs = self._inputs(trained.stage, what)
        chosen = torch.arange(len(inputs[0])) if rows is None else torch.from_numpy(rows)
        return logits(trained.stage.module.eval(), inputs, chosen, 2 * self.options.batch_size, self.compute)

    def _build(self, method: Method, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
        """Return the network to train, and the paths of its head."""
        classes, head = len(self.data.labels), self.backbone.head
        network = copy.deepcopy(self._base) if method.all_weights else copy_sharing(self._base, method.paths + head)
        if method.siamese:
            image = self._normalise(self._images["training"][:1].to(self.compute.device))
            network, head = make_siamese(network, self._base, classes, seed, image), ("head",)
        else:
            replace_head(network, classes, seed)
        if method.rank:
            wrap_layers(network, method.paths, method.rank, seed)
        return self.compute.place(network).eval(), head

    def _stage(self, network: nn.Module, trained: tuple[str, ...], everything: bool) -> Stage:
        """Return the shortest module that gives the same result: the part from the first trained module on, or the whole network."""
        whole = Stage(nn.Sequential(self._normalise, network), "", None, trained, everything)
        if everything or not self._store.enabled:
            return whole
        images = self._images["training"]
        probe = self.compute.put(images[torch.arange(_PROBE_ROWS) % len(images)])
        split = split_network(network, trained, self._normalise(probe))
        if split is None:
            return whole
        prefix = nn.Sequential(self._normalise, split.prefix)
        rows = max(len(images) for images in self._images.values())
        if not self._store.has_room(prefix, images, rows, self.compute):
            return whole
        return Stage(split.suffix, split.key, prefix, trained, everything)

    def _examples(self, stage: Stage, rows: Tensor) -> Examples:
        what = "augmented" if self.options.views else "training"
        return Examples(self._inputs(stage, what), self.targets, rows, self.options.views or 1, self.objective.loss)

    def _inputs(self, stage: Stage, what: str) -> tuple[Tensor, ...]:
        if stage.prefix is None:
            return (self._images[what],)
        return self._store.get(stage.key, what, stage.prefix, self._images[what], self.compute)

    def _set_modes(self, network: nn.Module, stage: Stage) -> None:
        """Put what is trained into training mode, gradients on. The rest stays in eval mode: its statistics do not move."""
        network.train(stage.everything)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(stage.everything or is_under(name, stage.trained))
        for name, module in network.named_modules():
            if name and is_under(name, stage.trained):
                module.train()


def _owned_paths(paths: tuple[str, ...], head: tuple[str, ...], siamese: bool) -> tuple[str, ...]:
    """Return where what a task owns is in its network: the tuned `paths` of the backbone, and the head."""
    return (*(f"tuned.{path}" for path in paths), *head) if siamese else paths + head


def own_tensors(prepared: Prepared, trained: Trained) -> dict[str, Tensor]:
    """Return copies of what the task owns, by state-dict name, on the CPU: what is under its paths, or everything."""
    if prepared.method.rank:
        merge_layers(trained.network)
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in trained.network.state_dict().items()
        if prepared.method.all_weights or is_under(name, prepared.owned)
    }


def _trained(method: Method, phase: TrainingPhase) -> tuple[str, ...]:
    """Return what the phase trains, beside the head, in the method's network."""
    if method.rank:
        return tuple(f"{path}.{part}" for path in phase.paths for part in ("down", "up"))
    return _owned_paths(phase.paths, (), method.siamese)


def _lr(method: Method, phase: TrainingPhase, options: FitOptions) -> float:
    return phase.lr or options.lr or (TUNING_LR if phase.everything or phase.paths or method.siamese else PROBE_LR)


def _fresh(prepared: Prepared) -> tuple[nn.Module, tuple[Stage, ...]]:
    """Return copies that share nothing that will be trained with what was prepared."""
    memo = {} if prepared.method.all_weights else shared_memo(prepared.network, prepared.owned)
    network, modules = copy.deepcopy((prepared.network, tuple(stage.module for stage in prepared.stages)), memo)
    return network, tuple(replace(stage, module=module) for stage, module in zip(prepared.stages, modules, strict=True))


def _counted_from(done: int, total: int, on_epoch: OnEpoch | None) -> OnEpoch | None:
    return None if on_epoch is None else lambda epoch, epochs: on_epoch(done + epoch, total)


def check_data(data: TaskData, preprocessing: Preprocessing, network: str, least: int = 2) -> None:
    """Raise BadData unless there are `least` images to train on, one to test on, all of the size that `network` (a word) takes."""
    if len(data.train) < least or not len(data.test):
        raise BadData(f"Data {data.name!r} needs at least {least} training images and 1 test image.")
    size = (preprocessing.height, preprocessing.width)
    for split in (data.train, data.test):
        if split.images.shape[1:3] != size:
            raise BadData(
                f"Data {data.name!r} has images of {split.images.shape[1:3]} pixels, but the {network} takes {size}; "
                f"make the data with the {network}'s preprocessing."
            )
