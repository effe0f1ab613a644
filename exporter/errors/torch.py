"""A torch network, a checkpoint, or the code that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporter.errors.base import ExportError


class BadCode(ExportError):
    """A Python callable that was to return a network does not."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name}: {reason.rstrip('.')}; name a callable that returns a torch.nn.Module as package.module:callable."
        )


class FailingForward(ExportError):
    """A torch network whose own code raises. shape: of the batch that it was given; said: what it raised."""

    def __init__(self, name: str, shape: Sequence[int], kind: str, said: str) -> None:
        last = said.strip().splitlines()[-1].strip().rstrip(".") if said.strip() else "without a word"
        super().__init__(f"{name} raises {kind} for a batch of shape {tuple(shape)}: {last}.")


class UnsupportedOutput(ExportError):
    """A torch network that returns something that is no answer to a row, or one twice. instead: what would be right."""

    def __init__(
        self,
        name: str,
        what: str,
        instead: str = "let it return a tensor, or a dict or a tuple of tensors, with a row for each image",
    ) -> None:
        super().__init__(f"{name} returns {what}; {instead}.")


class UnknownInput(ExportError):
    """A network whose images are described nowhere. options: the fields of InputOptions that are missing."""

    def __init__(self, name: str, options: Sequence[str]) -> None:
        super().__init__(f"{name} does not say what images it takes; give {' and '.join(options)}.")
        self.options = tuple(options)


class StaysInTraining(ExportError):
    """A torch network of which a normalisation goes on normalising by the batch when the network is put into evaluation mode."""

    def __init__(self, module: str, kind: str) -> None:
        super().__init__(
            f"The network's {module!r} ({kind}) stays in training mode after eval(), so the answer to a row depends on the other rows "
            "of its batch; let eval() reach it; nothing was written."
        )


class NeedsBackbone(ExportError):
    """A task of weights alone, without the network that they belong to."""

    def __init__(self, task: str, file: Path, tuned_on: str = "") -> None:
        wanted = (
            f"give the backbone that it was tuned on, {tuned_on}."
            if tuned_on
            else (
                "give the backbone that it was tuned on, by its name or as a backbone file, or for a whole state dict its own network, as "
                f"NETWORK@{file}."
            )
        )
        super().__init__(f"Task {task!r} is a checkpoint, {file.name}, and needs its network: {wanted}")
        self.task, self.file = task, file


class NeedsNamedBackbone(ExportError):
    """A task checkpoint of ours beside a backbone that is no network with blocks of a known library."""

    def __init__(self, task: str) -> None:
        super().__init__(f"Task {task!r} was tuned on a timm or torchvision network; give that as the backbone, by its name.")


class AnotherArchitecture(ExportError):
    """A task model that is no descendant of the backbone."""

    def __init__(self, name: str, blocks: int, backbone_blocks: int) -> None:
        super().__init__(
            f"Task {name!r} is another architecture than the backbone ({blocks} blocks, none of them equal to one of the backbone's "
            f"{backbone_blocks}); export it into a repository of its own, or give the backbone that it was tuned from."
        )
