"""From lite0, lite2 and a random network into a small one: {"test", "weights": {teacher: {mean, share, share_at_start}}}.

The student is a ResNet-18 of few channels, which learnt Twitter's categories; the random teacher is the first teacher's network without
its weights. Teachers' features are brought to one scale, so that a weight says what a teacher is worth and not how large it speaks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.studies.claims.bench import Bench
from benchmarks.studies.claims.unit import Unit
from contract.preprocessing import Preprocessing
from tuning.network.backbone import Backbone, load_backbone, save_backbone
from tuning.network.libraries import create_network
from tuning.network.weights import hash_weights
from tuning.training.fit import pretrain
from tuning.training.loop import FitOptions
from tuning.transfer.compare import run_methods
from tuning.transfer.features import compute_features
from tuning.transfer.training import TransferOptions
from tuning.transfer.transfer import Method

_PRETRAINING = Unit("transfer", "twitter", method="student")
_LR = 1e-3
_RANDOM = "random"


def measure(bench: Bench, unit: Unit) -> dict[str, Any]:
    """Train the student with or without its teachers."""
    student = _student(bench)
    data = bench.drawn_for(unit, student.spec.preprocessing)
    method = cast(Method, unit.method)
    features = {} if method == "plain" else compute_features(_teachers(bench), lambda wanted: bench.drawn_for(unit, wanted), data)
    options = TransferOptions(bench.settings.transfer_steps, _LR, unit.beta or 1.0, batch_size=64, seed=unit.seed, balanced=True)
    ((run, _),) = run_methods(student, features, data, (method,), options, 1)
    weights = {
        name: {"mean": round(found.mean, 4), "share": round(found.share, 4), "share_at_start": round(found.share_at_start, 4)}
        for name, found in run.teacher_weights.items()
    }
    return {"test": run.test_accuracy, "training": run.train_accuracy, "weights": weights}


def _student(bench: Bench) -> Backbone:
    """Return the student, which is trained once and kept in the folder for work; again where it is gone."""
    file = bench.ledgers.scratch(_PRETRAINING, ".safetensors")
    with bench.ledgers.wait_for(_PRETRAINING):
        _pretrain(bench, file)
    return load_backbone(file)


def _pretrain(bench: Bench, file: Path) -> None:
    if not file.exists():
        size = bench.settings.student_size
        preprocessing = Preprocessing(size, size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic")
        channels = list(bench.settings.student_channels)
        options = FitOptions(bench.settings.student_epochs, 2e-3, batch_size=32, device="cpu")
        data = bench.whole(_PRETRAINING.task, preprocessing)
        network_options = {"channels": channels, "stem_width": channels[0]}
        save_backbone(pretrain("resnet18", data, preprocessing, options, network_options=network_options), file)


def _teachers(bench: Bench) -> Mapping[str, Backbone]:
    """Return the teachers by name, the random one last."""
    names = bench.settings.teachers
    teachers = {name: bench.load_network(name, bench.settings.image_size) for name in names}
    return {**teachers, _RANDOM: _untrained(teachers[names[0]])}


def _untrained(backbone: Backbone) -> Backbone:
    """Return the same network as its library initialises it."""
    spec = backbone.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_network(spec.library, spec.name, copy.copy(spec.options), spec.num_classes, weights=False)
    fresh = replace(spec, weights="random, seed 0", weights_sha256=hash_weights(network))
    return Backbone(fresh, network.eval().requires_grad_(False))
