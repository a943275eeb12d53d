"""Export a sequence model to ONNX, as a folder of three files, and run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate import strict_json
from striate.data.text.tokens import BOS, EOS
from striate.exporters import onnx
from striate.exporters.onnx.file import encode
from striate.exporters.onnx.image_source import WIDTHS
from striate.exporters.onnx.sequence import encoder_graph, greedy_graph, step_graph
from striate.exporters.records import Exported, Request
from striate.exporters.text_verification import Sources, Text
from striate.inference.classifier import Classifier
from striate.inference.onnx_classifier import open_session
from striate.inference.translator import Translator
from striate.version import __version__

FILES = {"encoder": encoder_graph, "step": step_graph, "greedy": greedy_graph}
TOKENS = "tokens.json"  # the strings of the tokens, by number


def export(model: Classifier | Translator, path: Path, request: Request) -> Exported:
    """Write a folder, or one file of a classifier; arguments as `striate.exporters.Format.target`.

    Raises:
        UnsupportedError, WriteError: as `striate.exporters.onnx.export`.
    """
    return (
        export_translator(model, path) if isinstance(model, Translator) else onnx.export(model, path, request)
    )


def export_translator(translator: Translator, path: Path) -> Exported:
    """Write a folder with the files of a sequence model; errors as `export`."""
    description, tokenizers = translator.description, {"target": translator.target}
    if translator.source is not None:
        tokenizers = {"source": translator.source, **tokenizers}
    preprocess = description.image_preprocess if translator.source is None else None
    path.mkdir()
    metadata = description.metadata()
    for name, graph in FILES.items():
        with (path / f"{name}.onnx").open("wb") as file:
            file.writelines(encode(graph(translator.network, preprocess), ("striate", __version__), metadata))
    strings = {
        side: [tokenizer.id_to_token(i) for i in range(len(tokenizer))]
        for side, tokenizer in tokenizers.items()
    }
    (path / TOKENS).write_text(strict_json.dumps(strings), "utf-8")
    try:
        return Exported(texts=OnnxEngine(path))
    except ImportError:
        return Exported(missing="`pip install onnxruntime` makes that possible")


class OnnxEngine:
    """Runs the files of a folder in ONNX Runtime.

    Args:
        folder: that `export` has written.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.encoder, self.step, self.greedy = (open_session(folder / f"{name}.onnx") for name in FILES)

    def generate(self, sources: Sources) -> list[Text]:
        """As `TextEngine`."""
        limit = np.array(sources.limit, np.int64)
        rows = self.greedy.run(["texts"], {**_inputs(self.greedy, sources), "limit": limit})[0].tolist()
        return [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]

    def score(self, sources: Sources, texts: Sequence[Text]) -> list[Tensor]:
        """As `TextEngine`."""
        return [self._score(sources[i], text) for i, text in enumerate(texts)]

    def _score(self, source: Sources, text: Text) -> Tensor:
        keys, values, mask = self.encoder.run(None, _inputs(self.encoder, source))
        memory = {"source_keys": keys, "source_values": values, "mask": mask}
        cache: list[Any] = [part[:, :, :, :0] for part in (keys, values)]
        scores = []
        for place, (last, token) in enumerate(zip([BOS, *text], text, strict=False)):
            inputs = {"tokens": np.array([last]), "place": np.array([place]), "keys": cache[0]}
            logits, *cache = self.step.run(None, {**inputs, "values": cache[1], **memory})
            scores.append(torch.from_numpy(logits[0]).log_softmax(dim=0)[token])
        return torch.stack(scores) if scores else torch.zeros(0)


def _inputs(session: Any, sources: Sources) -> dict[str, Any]:
    """What a session reads of sources: tokens, or pixels and perhaps their widths."""
    if sources.pixels is None:
        return {"source": sources.inputs.numpy()}
    known: dict[str, Any] = {onnx.PIXELS: sources.pixels}
    if sources.widths is not None:
        known[WIDTHS] = sources.widths.numpy()
    return {one.name: known[one.name] for one in session.get_inputs() if one.name in known}
