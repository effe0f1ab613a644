"""Networks of text from folders that transformers has written. No code of a folder is run, and nothing is fetched."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contract.errors import ExtraNeeded
from exporter.errors import BadModel, GeneratesText
from exporter.sources.onnx_file import first_line
from exporter.sources.tokenizer import TokenizerSource, read_tokenizer

try:
    import transformers
except ImportError as error:
    raise ExtraNeeded("Models of transformers", "transformers", "transformers") from error

_CONFIG, _TOKENIZER, _TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
_SAFE = ("model.safetensors", "model.safetensors.index.json")
_SEQUENCE, _TOKENS = "ForSequenceClassification", "ForTokenClassification"
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSeq2SeqLM", "ForImageTextToText")
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_UNLIMITED = 1 << 20  # more tokens than any text has: "very large integers" in tokenizer_config.json
# What says nothing of how the network computes.
_NAMES = (
    "id2label",
    "label2id",
    "_name_or_path",
    "architectures",
    "transformers_version",
    "problem_type",
    "dtype",
    "torch_dtype",
)


@dataclass(frozen=True)
class TextFolder:
    """What a folder says before its weights are read.

    kind: the class that made it. is_task: whether it gives classes; otherwise the states of its last layer. most: tokens that
    have a position, None: any number. tokenizer: None where there is none. remarks: what was assumed, in sentences that go on after "It".
    """

    path: Path
    kind: str
    config: Any = field(repr=False)
    is_task: bool
    most: int | None
    tokenizer: TokenizerSource | None
    remarks: tuple[str, ...]

    @property
    def key(self) -> str:
        """Return what is equal for folders whose networks differ in their weights alone, and in the size of the head."""
        facts = {name: value for name, value in self.config.to_dict().items() if name not in _NAMES}
        return f"{self.kind} {json.dumps(facts, sort_keys=True, default=str)}"

    @property
    def is_multi_label(self) -> bool:
        """Whether each of its classes is true or not by itself."""
        return self.is_task and self.config.problem_type == "multi_label_classification"

    @property
    def tells_tokens(self) -> bool:
        """Whether it answers each token of a text that its own tokenizer takes apart."""
        return self.is_task and self.kind.endswith(_TOKENS) and self.config.num_labels > 1 and self.tokenizer is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of its classes; none for a single number, and of tokens that nobody tells apart for want of a tokenizer."""
        if not (self.kind.endswith(_SEQUENCE) or self.tells_tokens) or self.config.num_labels < 2:
            return ()
        return tuple(" ".join(str(self.config.id2label[index]).split()) for index in range(self.config.num_labels))


class TextNetwork(nn.Module):
    """A network with tensors alone at its ends: `inputs` by position, and a tensor for each of `outputs`."""

    def __init__(self, network: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...], sigmoid: bool) -> None:
        super().__init__()
        self.network = network
        self.inputs, self.outputs, self.sigmoid = inputs, outputs, sigmoid

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs for what is `given`, in the order of the inputs."""
        found = self.network(**dict(zip(self.inputs, given, strict=True)), return_dict=True)
        outputs = tuple(found[name] for name in self.outputs)
        return tuple(torch.sigmoid(output) for output in outputs) if self.sigmoid else outputs


def read_folder(path: Path, *, is_backbone: bool = False) -> TextFolder:
    """Return what the folder at `path` says. is_backbone: only its encoder counts, whatever its head.

    Raises BadModel, GeneratesText, BadTokenizer.
    """
    given = _json(path / _CONFIG, path)
    kind, remarks = _kind(path, given), list[str]()
    config = _read_config(path, given)
    if "auto_map" in given:
        remarks.append("names code of its own, which is not run: transformers has this type of network itself.")
    is_task = kind.endswith((_SEQUENCE, _TOKENS)) and not is_backbone
    if not is_task and not kind.endswith("Model"):
        if not is_backbone:
            raise BadModel(path, f"is a {kind}, which gives no classes; give a network for sequence or token classification.")
        remarks.append(f"is a {kind}, of which the encoder is taken.")
    _check_weights(path)
    tokenizer = _tokenizer(path, config)
    folder = TextFolder(path, kind, config, is_task, _positions(path, config), tokenizer, ())
    remarks.extend(_said(folder, is_backbone))
    return replace(folder, remarks=tuple(remarks))


def load_network(folder: TextFolder) -> TextNetwork:
    """Return the network in `folder`. Raises BadModel where weights are missing, or do not fit."""
    kind = transformers.AutoModel
    if folder.is_task:
        kind = {
            True: transformers.AutoModelForSequenceClassification,
            False: transformers.AutoModelForTokenClassification,
        }[folder.kind.endswith(_SEQUENCE)]
    with _quiet():
        try:
            network, found = kind.from_pretrained(
                folder.path,
                config=folder.config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
            )
        except Exception as error:  # of transformers, torch and safetensors
            raise BadModel(folder.path, f"cannot be read by transformers ({first_line(error)}).") from error
    missing = sorted(name for name in found["missing_keys"] if not (_is_pooler(name) and not folder.is_task))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadModel(folder.path, f"has no weights for {missing[0]!r}{more}; give a folder with all of a fine-tuned network.")
    has_pooler = (
        not folder.is_task and getattr(network, "pooler", None) is not None and not any(map(_is_pooler, found["missing_keys"]))
    )
    outputs = ("logits",) if folder.is_task else ("last_hidden_state", *(("pooler_output",) if has_pooler else ()))
    return TextNetwork(network.eval().requires_grad_(False), _inputs(folder, network), outputs, folder.is_multi_label)


def _is_pooler(name: str) -> bool:
    return name.startswith("pooler.") or ".pooler." in name


def _json(file: Path, folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadModel(folder, f"is no folder that transformers has written: it has no {file.name}.") from error
    except (OSError, ValueError) as error:
        raise BadModel(file, f"cannot be read as JSON ({first_line(error)}).") from error
    if not isinstance(found, dict):
        raise BadModel(file, "is JSON, but no object.")
    return found


def _kind(path: Path, given: Mapping[str, Any]) -> str:
    names = given.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise BadModel(
            path / _CONFIG, "names no architecture, so nothing says what the weights are; save the model by save_pretrained."
        )
    if names[0].endswith(_GENERATES) or given.get("is_encoder_decoder"):
        raise GeneratesText(path, names[0])
    return names[0]


def _read_config(path: Path, given: Mapping[str, Any]) -> Any:
    kind = given.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        known = f"transformers {transformers.__version__} does not know"
        raise BadModel(path, f"is of the type {kind!r}, which {known}; code that comes with a folder is not run.")
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever checks of transformers raise
            raise BadModel(path / _CONFIG, f"cannot be read by transformers ({first_line(error)}).") from error
    if hasattr(config, "use_cache"):
        config.use_cache = False
    return config


def _check_weights(path: Path) -> None:
    if any((path / name).is_file() for name in _SAFE):
        return
    pickled = sorted(file.name for file in path.glob("*.bin"))
    if pickled:
        raise BadModel(path, f"holds its weights as {pickled[0]}, which may run code when it is read; save them as safetensors.")
    raise BadModel(path, f"holds no weights ({_SAFE[0]}).")


def _tokenizer(path: Path, config: Any) -> TokenizerSource | None:
    if not (path / _TOKENIZER).is_file():
        return None
    tokenizer = read_tokenizer(path / _TOKENIZER)
    said = _json(path / _TOKENIZER_CONFIG, path) if (path / _TOKENIZER_CONFIG).is_file() else {}
    most = said.get("model_max_length")
    return replace(
        tokenizer,
        pad=getattr(config, "pad_token_id", None),
        most=int(most) if isinstance(most, (int, float)) and 1 <= most < _UNLIMITED else None,
    )


def _positions(path: Path, config: Any) -> int | None:
    """Return how many tokens have a position. In RoBERTa and its kind the first ones of the table are no token's."""
    with _quiet(), torch.device("meta"):  # no weights, and no memory
        try:
            network = transformers.AutoModel.from_config(config, trust_remote_code=False)
        except Exception as error:  # whatever constructors raise
            raise BadModel(path / _CONFIG, f"describes no network ({first_line(error)}).") from error
    tables = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in network.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    said = getattr(config, "max_position_embeddings", None)
    return min(tables, default=said if isinstance(said, int) and said > 0 else None)


def _said(folder: TextFolder, is_backbone: bool) -> Iterator[str]:
    if folder.is_multi_label:
        yield "has classes of which several may be true, so that its answers are put through a sigmoid."
    if folder.tokenizer is None and not is_backbone:
        yield f"has no {_TOKENIZER}, so that it takes ids; give a tokenizer to have it take text."
    elif not is_backbone:
        yield f"takes text by its {_TOKENIZER}."


def _inputs(folder: TextFolder, network: nn.Module) -> tuple[str, ...]:
    """Return what is to be sent: token types only where there is more than one. Raises BadModel for a network that takes no text."""
    known = inspect.signature(network.forward).parameters
    if "input_ids" not in known:
        raise BadModel(folder.path, f"takes {next(iter(known), 'nothing')!r} and no text; give a network that takes input_ids.")
    has_types = (getattr(folder.config, "type_vocab_size", 0) or 0) > 1
    return tuple(name for name in _INPUTS if name in known and (name != "token_type_ids" or has_types))


@contextmanager
def _quiet() -> Iterator[None]:
    """Have transformers print nothing: what is missing is found and said here."""
    said = transformers.utils.logging
    level, has_bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if has_bars:
            said.enable_progress_bar()
