from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from tests.nets import TINY_VIT_OPTIONS, tiny_data, tiny_resnet, tiny_vit
from tuning.data.labelled import Split, TaskData
from tuning.network.backbone import Backbone
from tuning.network.low_rank import adaptable_layers
from tuning.network.paths import find_paths
from tuning.training.dry_run import dry_run
from tuning.training.features import FeatureStore
from tuning.training.loop import FitOptions
from tuning.training.methods import Method, gradual_unfreezing, linear_probe, lora, lp_ft, norm_only, subtuning
from tuning.training.trainer import Trainer, own_tensors

SHORT = FitOptions(epochs=2, batch_size=8, lr=3e-3, device="cpu")

RESNET, VIT = tiny_resnet(), tiny_vit()


def _dropping_vit() -> Backbone:
    """The tiny ViT with dropout after its attentions and in its MLPs."""
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5, proj_drop_rate=0.3, **TINY_VIT_OPTIONS)
    network.load_state_dict(VIT.network.state_dict())
    return Backbone(VIT.spec, network.eval().requires_grad_(False))


DROPPING = _dropping_vit()


def _parts(backbone: Backbone, *names: str, **how: bool) -> Method:
    return subtuning(find_paths(backbone.network, names), 2, **how)


METHODS: Mapping[str, tuple[Backbone, Method]] = {
    "resnet, probe": (RESNET, linear_probe(2)),
    "resnet, blocks": (RESNET, _parts(RESNET, "layer2.1", "layer3.0")),
    "resnet, norms": (RESNET, norm_only(RESNET.network, 2)),
    "resnet, norms of two blocks": (RESNET, _parts(RESNET, "layer3.*:norm")),
    "resnet, shortcut": (RESNET, _parts(RESNET, "layer2.0.downsample")),
    "resnet, layers": (RESNET, _parts(RESNET, "layer2.1.conv2", "layer4.0.bn2", "layer4.1.conv1.weight")),
    "resnet, siamese": (RESNET, _parts(RESNET, "layer3.1", siamese=True)),
    "resnet, warm head": (RESNET, _parts(RESNET, "layer3.1", warm_head=True)),
    "resnet, siamese with a warm head": (RESNET, _parts(RESNET, "layer4.0.conv1", siamese=True, warm_head=True)),
    "resnet, gradual": (RESNET, gradual_unfreezing(RESNET.blocks, 3)),
    "resnet, lora": (RESNET, lora(adaptable_layers(RESNET.network)[3:], 2, 2)),
    "vit, block": (VIT, _parts(VIT, "blocks.1")),
    "vit, norms": (VIT, _parts(VIT, "*:norm")),
    "vit, attention": (VIT, _parts(VIT, "attention")),
    "vit, layers": (VIT, _parts(VIT, "blocks.1.attn.qkv", "blocks.2.mlp.fc1.bias")),
    "vit, tokens": (VIT, _parts(VIT, "cls_token")),
    "vit, siamese": (VIT, _parts(VIT, "blocks.1", siamese=True)),
    "vit, gradual": (VIT, gradual_unfreezing(VIT.blocks, 4)),
    "vit, lora": (VIT, lora(adaptable_layers(VIT.network), 2, 2)),
    "vit, dropout": (DROPPING, _parts(DROPPING, "blocks.1.mlp", "blocks.2")),
}


Tuned = tuple[bool, dict[str, Tensor], Tensor, float]


def _tune(
    backbone: Backbone, method: Method, options: FitOptions, data: TaskData | None = None, rows: list[int] | None = None
) -> Tuned:
    """Return whether all features were kept, what the task owns, its logits on the test images, and its last loss."""
    store = FeatureStore(options.cache_bytes, options.cache_folder)
    trainer = Trainer(backbone, data or tiny_data(), options, store)
    prepared = trainer.prepare(method)
    trained = trainer.run(prepared, None if rows is None else np.array(rows))
    scores, own = trainer.logits(trained, "test"), own_tensors(prepared, trained)
    store.close()
    return prepared.replayed, own, scores, trained.loss


@cache
def _tuned(name: str, options: FitOptions = SHORT) -> Tuned:
    """Return what `_tune` returns for the method of that name, computed once: several tests compare with it."""
    return _tune(*METHODS[name], options)


def _assert_same(found: Tuned, expected: Tuned) -> None:
    (_, tensors, scores, loss), (_, other, expected_scores, expected_loss) = found, expected
    assert tensors.keys() == other.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, other[name], rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(scores, expected_scores, rtol=2e-3, atol=2e-3)
    assert loss == pytest.approx(expected_loss, rel=2e-3, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_kept_features_give_the_result_of_whole_runs(name: str) -> None:
    kept = _tuned(name)
    whole = _tuned(name, replace(SHORT, cache_bytes=0))
    assert (kept[0], whole[0]) == (True, False)
    _assert_same(kept, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet, layers", "resnet, siamese", "vit, siamese", "vit, gradual"])
def test_so_do_features_of_augmented_views(name: str) -> None:
    backbone, method = METHODS[name]
    options = replace(SHORT, views=2)
    kept = _tune(backbone, method, options)
    whole = _tune(backbone, method, replace(options, cache_bytes=0))
    assert kept[0]
    _assert_same(kept, whole)
    assert not torch.allclose(_tuned(name)[2], kept[2], atol=1e-3), "the views make no difference"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet, shortcut", "resnet, siamese", "vit, layers", "vit, gradual"])
@pytest.mark.parametrize("cache_bytes", [0, 20_000])
def test_so_do_features_in_files(name: str, cache_bytes: int, tmp_path: Path) -> None:
    backbone, method = METHODS[name]
    in_files = _tune(backbone, method, replace(SHORT, cache_bytes=cache_bytes, cache_folder=tmp_path))
    assert in_files[0]
    _assert_same(in_files, _tuned(name))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet, blocks", "resnet, siamese", "vit, layers"])
@pytest.mark.parametrize("cache_bytes", [0, SHORT.cache_bytes])
def test_a_fold_gives_the_result_of_data_cut_down_to_it(name: str, cache_bytes: int) -> None:
    backbone, method = METHODS[name]
    data, rows = tiny_data(), [1, 2, 3, 5, 8, 9, 13, 14, 15, 21, 23]
    cut = replace(data, train=Split(data.train.images[rows], data.train.targets[rows]))
    options = replace(SHORT, cache_bytes=cache_bytes)
    fold = _tune(backbone, method, options, rows=rows)
    _assert_same(fold, _tune(backbone, method, options, cut))
    assert not torch.allclose(fold[2], _tuned(name, options)[2], atol=1e-3), "the rows make no difference"


def _bits(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}


def _unchanged(network: nn.Module, before: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("net", ["resnet", "vit"])
@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_methods_do_not_disturb_one_another(net: str, cache_bytes: int) -> None:
    """Each runs, then all others, then each again: the same bits; and neither the backbone nor the trainer's own copy has changed."""
    backbone = RESNET if net == "resnet" else VIT
    before = _bits(backbone)
    trainer = Trainer(backbone, tiny_data(), replace(SHORT, cache_bytes=cache_bytes))
    methods = [method for name, (_, method) in METHODS.items() if name.startswith(net) and "norms" not in name] + [lp_ft(2)]
    prepared = [trainer.prepare(method) for method in methods]

    def run_all() -> list[tuple[dict[str, Tensor], Tensor]]:
        trained = [trainer.run(one) for one in prepared]
        scores = [trainer.logits(one, "test") for one in trained]
        return [(own_tensors(*pair), score) for *pair, score in zip(prepared, trained, scores, strict=True)]

    for (first, scores), (second, again), method in zip(run_all(), run_all(), methods, strict=True):
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items()), method.name
        assert torch.equal(scores, again), method.name
    assert _unchanged(backbone.network, before)
    assert _unchanged(trainer._base, before)
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert not any(module.training for network in (backbone.network, trainer._base) for module in network.modules())


@pytest.fixture
def one_thread() -> Iterator[ThreadPoolExecutor]:
    """Workers in which torch computes with one thread each."""
    before = torch.get_num_threads()
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["resnet", "vit"])
def test_threads_give_the_result_of_one_after_the_other(net: str, one_thread: ThreadPoolExecutor) -> None:
    backbone = RESNET if net == "resnet" else VIT
    trainer = Trainer(backbone, tiny_data(), SHORT)
    names = ("block", "siamese", "lora", "gradual")
    prepared = [
        trainer.prepare(method) for name, (_, method) in METHODS.items() if name.startswith(net) and any(n in name for n in names)
    ]
    assert not any(dry_run(trainer, one).random for one in prepared)

    def run(index: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        trained = trainer.run(prepared[index], seed=seed)
        return own_tensors(prepared[index], trained), trainer.logits(trained, "test")

    jobs = [(index, seed) for seed in (0, 1) for index in range(len(prepared))]
    one_by_one = [one_thread.submit(run, *job).result() for job in jobs]
    together = [future.result() for future in [one_thread.submit(run, *job) for job in jobs]]
    for (first, scores), (second, others) in zip(one_by_one, together, strict=True):
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
        assert torch.equal(scores, others)


@pytest.mark.parametrize(
    ("backbone", "names", "expected"),
    [
        (DROPPING, ["blocks.2"], True),
        (DROPPING, ["blocks.0.mlp"], True),
        (DROPPING, [], False),  # the frozen blocks drop nothing
        (DROPPING, ["blocks.1.attn.qkv", "blocks.2:norm"], False),
        (VIT, ["blocks.2"], False),
        (RESNET, ["layer4"], False),
    ],
)
@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_random_numbers_are_noticed_where_dropout_is_tuned(
    backbone: Backbone, names: list[str], expected: bool, cache_bytes: int
) -> None:
    trainer = Trainer(backbone, tiny_data(), replace(SHORT, cache_bytes=cache_bytes))
    before = torch.get_rng_state()
    prepared = trainer.prepare(_parts(backbone, *names))
    state = torch.get_rng_state()
    assert dry_run(trainer, prepared).random == expected
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


def test_random_numbers_are_noticed_in_a_later_phase() -> None:
    trainer = Trainer(DROPPING, tiny_data(), SHORT)
    assert dry_run(trainer, trainer.prepare(lp_ft(2))).random


@pytest.mark.slow
def test_dropout_is_the_seeds_and_leaves_torchs_numbers_alone() -> None:
    trainer = Trainer(DROPPING, tiny_data(), SHORT)
    prepared = trainer.prepare(_parts(DROPPING, "blocks.2"))
    found = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        found.append(own_tensors(prepared, trainer.run(prepared, seed=5)))
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@pytest.mark.slow
def test_trainers_may_share_a_store() -> None:
    """One limit for all of their features, but not the features: here the images differ."""
    store = FeatureStore(10**9)
    data = [tiny_data(seed=0), tiny_data(seed=1)]

    def scores(trainer: Trainer) -> Tensor:
        return trainer.logits(trainer.run(trainer.prepare(METHODS["vit, block"][1])), "test")

    shared = [scores(Trainer(VIT, one, SHORT, store)) for one in data]
    assert all(torch.equal(found, scores(Trainer(VIT, one, SHORT))) for found, one in zip(shared, data, strict=True))


@pytest.mark.slow
def test_measuring_does_not_write_to_kept_features() -> None:
    """Where only a shortcut is tuned, the network adds it in place to a feature that was kept."""
    trainer = Trainer(RESNET, tiny_data(), SHORT)
    trained = trainer.run(trainer.prepare(METHODS["resnet, shortcut"][1]))
    first = trainer.logits(trained, "test")
    assert torch.equal(trainer.logits(trained, "test"), first)
    rows = np.array([7, 0, 3])
    torch.testing.assert_close(trainer.logits(trained, "test", rows), first[torch.from_numpy(rows)])


def _right(trainer: Trainer, scores: Tensor, rows: Callable[[Tensor], Tensor]) -> float:
    targets = torch.from_numpy(trainer.data.test.targets)
    return float((rows(scores).argmax(1) == rows(targets)).float().mean())


@pytest.mark.slow
def test_accuracy_counts_the_rows_asked_for() -> None:
    trainer = Trainer(VIT, tiny_data(), SHORT)
    trained = trainer.run(trainer.prepare(linear_probe(2)))
    scores = trainer.logits(trained, "test")
    assert trainer.score(trained) == pytest.approx(_right(trainer, scores, lambda t: t))
    assert trainer.score(trained, rows=np.array([11, 2, 4])) == pytest.approx(_right(trainer, scores, lambda t: t[[11, 2, 4]]))


@pytest.mark.slow
def test_seeds_differ_in_head_and_order() -> None:
    trainer = Trainer(VIT, tiny_data(), SHORT)
    first, second = (trainer.prepare(METHODS["vit, block"][1], seed) for seed in (0, 1))
    assert not torch.equal(first.network.state_dict()["head.weight"], second.network.state_dict()["head.weight"])
    runs = [own_tensors(first, trainer.run(first, seed=seed)) for seed in (0, 1)]
    assert not torch.equal(runs[0]["head.weight"], runs[1]["head.weight"])
