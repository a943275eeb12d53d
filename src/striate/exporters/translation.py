"""Open a translator for an engine: torch, or CTranslate2 through an export in the cache."""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, cast

from striate import bundle
from striate.data.text.tokens import EOS
from striate.device import cpu_count, standard_settings
from striate.errors import StriateError, StriateWarning, UsageError
from striate.exporters import write_compared
from striate.exporters.ctranslate2 import CTranslate2Engine
from striate.exporters.engines import AUTO, TORCH, require
from striate.inference import export_cache
from striate.inference.generation import Hypothesis
from striate.inference.translator import Translator, load_translator
from striate.metrics.text import error_rate
from striate.progress import SILENT, Progress
from striate.transforms.decode import Uint8Array

CTRANSLATE2, INT8 = "ctranslate2", "ctranslate2-int8"
ENGINES = (AUTO, TORCH, CTRANSLATE2, INT8)
# Sources from which on `auto` tries CTranslate2, without its export in the cache and with it: then it saves
# as much time as opening it and the trial take, on an AMD EPYC (`benchmarks/bench_translate.py`). They pay
# earlier on processors where torch is slower.
_FEWEST, _FEWEST_CACHED = 6000, 2000
_SAMPLE = 128  # sources that are translated with both engines
_FASTER = 0.9  # share of torch's time that is worth a change
_CHUNK = 8192  # sources at once
_SUFFIX = ".ctranslate2"

_Row = list[int] | Uint8Array


def load(path: str | os.PathLike[str], device: str = "auto", *, engine: str = "") -> Translator:
    """Open a sequence-to-sequence bundle.

    Args:
        path: as for `striate.inference.translator.load_translator`.
        device: as for `striate.inference.translator.load_translator`.
        engine: torch by default. `ctranslate2` runs greedy search of texts on the CPU in CTranslate2, with an
            export that is compared with the bundle and kept in the cache; `ctranslate2-int8` does so with
            int8 weights. `auto` translates a sample of a large input with both, and the rest in CTranslate2
            if it writes the same texts there in less time.

    Raises:
        BundleError, UsageError: as `load_translator`; or the engine cannot run the model.
    """
    require(engine, ("", *ENGINES))
    translator = load_translator(path, device)
    if engine in ("", TORCH):
        return translator
    if refused := _refused(translator):
        if engine != AUTO:
            raise UsageError(f"--engine {engine} with {os.fspath(path)!r}", *refused)
        return translator
    values = {f.name: getattr(translator, f.name) for f in fields(translator)}
    return TwoEngineTranslator(**values, engine=engine)


def _refused(translator: Translator) -> tuple[str, str] | None:
    """Why a translator cannot run in CTranslate2, and what to do; None if it can."""
    if translator.reads_images:
        return "CTranslate2 translates text only", "Use --engine torch"
    if translator.device.type != "cpu":
        return f"it runs on the CPU, not on {translator.device}", "Use --engine torch, or --device cpu"
    if importlib.util.find_spec("ctranslate2") is None:
        return "CTranslate2 is not installed", "pip install 'striate[ctranslate2]'"
    return None


@dataclass(frozen=True)
class TwoEngineTranslator(Translator):
    """A translator that can run greedy search in CTranslate2.

    Attributes:
        engine: one of `ENGINES` but torch.
    """

    engine: str = AUTO
    _choice: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)  # once it is made

    def generate(
        self,
        rows: Sequence[_Row],
        beams: int = 1,
        best: int = 1,
        alpha: float = 0.6,
        attention: bool = False,
        progress: Progress = SILENT,
    ) -> Iterator[tuple[int, Sequence[Hypothesis]]]:
        """As `Translator.generate`.

        Warns:
            StriateWarning: the texts of a sample differ from torch's; with int8, how many do.

        Raises:
            UsageError: beam search or attention with another engine than torch or `auto`.
        """
        if beams > 1 or attention:
            if self.engine != AUTO:
                with_what = f"{beams} beams" if beams > 1 else "attention"
                why = "its beam search has another length penalty, and it returns no attention"
                raise UsageError(f"--engine {self.engine} with {with_what}", why, "Use --engine torch")
            yield from super().generate(rows, beams, best, alpha, attention, progress)
        elif self._is_used(rows):
            for at in range(0, len(rows), _CHUNK):
                part = rows[at : at + _CHUNK]
                yield from ((at + i, (found,)) for i, found in self._with_ctranslate2(part))
                progress.advance(len(part))
        else:
            yield from super().generate(rows, progress=progress)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what runs in CTranslate2, too."""
        return {name: value for name, value in super().__getstate__().items() if name != "_ctranslate2"}

    @cached_property
    def _key(self) -> str:
        """The key of the export in the cache."""
        _, digest = bundle.identity(self.path)
        return export_cache.key(digest, CTRANSLATE2)

    @cached_property
    def _ctranslate2(self) -> CTranslate2Engine:
        """The export in the cache, which is made if there is none, with one worker for each core."""
        found = export_cache.find(self._key, _SUFFIX)
        if found is None:
            with standard_settings():
                what = f"--engine {self.engine} with {self.path!r}"
                found = export_cache.add(
                    self._key, _SUFFIX, lambda new: write_compared(self, new, CTRANSLATE2), what
                )
        kind = "int8" if self.engine == INT8 else "float32"
        engine = CTranslate2Engine(found, 0, workers=cpu_count(), compute_type=kind)
        export_cache.prune()
        return engine

    def _pays(self, count: int) -> bool:
        """Whether CTranslate2 may save more time with so many sources than its trial takes."""
        if count < _FEWEST_CACHED:  # a key needs the digest of the bundle
            return False
        return count >= _FEWEST or export_cache.find(self._key, _SUFFIX) is not None

    def _is_used(self, rows: Sequence[_Row]) -> bool:
        """Whether CTranslate2 translates these sources; the first time a sample of them is compared."""
        if self.engine == AUTO and not self._choice and not self._pays(len(rows)):
            return False
        if not self._choice and len(rows):
            self._choice[self.engine] = self._tried(rows[:: -(-len(rows) // _SAMPLE)])
        return self._choice.get(self.engine, True)

    def _tried(self, sample: Sequence[_Row]) -> bool:
        """Translate a sample with both engines; whether CTranslate2 is to be used."""
        try:
            engine = self._ctranslate2
        except StriateError:
            if self.engine != AUTO:
                raise
            return False
        list(super().generate(sample[:8], progress=SILENT))
        list(engine.greedy(cast(Any, sample[:8]), 8))
        times = [time.perf_counter()]
        texts = {i: found[0].tokens for i, found in super().generate(sample, progress=SILENT)}
        times.append(time.perf_counter())
        others = {i: found.tokens for i, found in self._with_ctranslate2(sample)}
        times.append(time.perf_counter())
        torch, other = ([found[i] for i in range(len(sample))] for found in (texts, others))
        equal = sum(one == two for one, two in zip(torch, other, strict=True))
        if self.engine == AUTO:
            return equal == len(sample) and times[2] - times[1] < _FASTER * (times[1] - times[0])
        if self.engine == INT8 or equal < len(sample):
            rate = error_rate(other, [[tokens] for tokens in torch])
            note = f"{self.engine}: {equal} of {len(sample)} texts of a sample are those of torch in float32"
            warnings.warn(f"{note}, {100 * rate:.1f} % of the tokens differ", StriateWarning, stacklevel=5)
        return True

    def _with_ctranslate2(self, rows: Sequence[_Row]) -> Iterator[tuple[int, Hypothesis]]:
        """Greedy search in CTranslate2; texts that reach their own limit before the common one, in torch."""
        limits = [self.limit(row) for row in rows]
        again = []
        for i, (text, log_p) in enumerate(self._ctranslate2.greedy(cast(Any, rows), max(limits))):
            ended = bool(text) and text[-1] == EOS
            if len(text) > limits[i]:
                again.append(i)
                continue
            yield i, Hypothesis(tuple(text[:-1] if ended else text), log_p, log_p, ended)
        for place, found in super().generate([rows[i] for i in again], progress=SILENT):
            yield again[place], found[0]
