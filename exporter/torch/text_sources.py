"""How task models are loaded from folders of transformers. Those of one architecture share one trace."""

from __future__ import annotations

from pathlib import Path

import transformers

from contract.kinds.tokens import Tokens
from exporter.sources.task_model import LoadTaskModel, TaskModel
from exporter.torch.text_export import TextExporter
from exporter.torch.transformers_folder import TextFolder, load_network, read_folder


class TextSources:
    """Opens folders one by one. What can be refused without their weights is refused on opening. remarks: what was assumed."""

    def __init__(self) -> None:
        self.remarks: dict[str, None] = {}
        self._exporters: dict[str, TextExporter] = {}

    def open_backbone(self, path: Path) -> LoadTaskModel:
        """Return how to load the encoder of the network in the folder at `path`. Raises ExportError."""
        return self._open(path, is_backbone=True)

    def open_task(self, path: Path) -> LoadTaskModel:
        """Return how to load the network in the folder at `path`, with its labels and its tokenizer. Raises ExportError."""
        return self._open(path, is_backbone=False)

    def _open(self, path: Path, *, is_backbone: bool) -> LoadTaskModel:
        folder = read_folder(path, is_backbone=is_backbone)
        exporter = self._exporter(folder)
        said = f"{path} is a {folder.kind}, read by transformers {transformers.__version__}; no code of the folder is run."
        self.remarks[" It ".join((said, *folder.remarks))] = None

        def load() -> TaskModel:
            model = exporter.export(load_network(folder), str(path))
            provenance = {"network": folder.kind, "file": path.resolve().name}
            tokenizer = None if is_backbone else folder.tokenizer
            kind = Tokens() if folder.tells_tokens else None
            return TaskModel(model, folder.labels, provenance=provenance, remark=exporter.remark, tokenizer=tokenizer, kind=kind)

        return load

    def _exporter(self, folder: TextFolder) -> TextExporter:
        if folder.key not in self._exporters:
            config = folder.config
            self._exporters[folder.key] = TextExporter(config.vocab_size, folder.most, getattr(config, "pad_token_id", None) or 0)
        return self._exporters[folder.key]
