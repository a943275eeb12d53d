"""Generation and training of a small Transformer, compared with CTranslate2, Marian and nn.Transformer.

    python benchmarks/bench_seq2seq.py
    python benchmarks/bench_seq2seq.py --rounds 1 --seconds 1 --out benchmarks/results

The peers are `pip install ctranslate2 transformers`; missing ones are skipped. The engines run in separate
processes, in turns, `--rounds` times; the figure is the median of all calls.

Generation: 3 + 3 layers, width 256, 4 heads, feed-forward layers of 1,024, 8,000 tokens, float32, random
weights; 32 sources of 8 to 24 tokens. Each writes exactly `--steps` tokens, because the last layer's bias
makes END impossible; encoding the sources counts. CTranslate2 has Striate's weights, and
`same_as_ctranslate2` is the share of equal texts; Marian is post-norm and has other weights.
`ctranslate2_by_two` is CTranslate2 with one thread for each of two half batches at once.

Training: the same network with tied target embeddings, label smoothing 0.1 and AdamW; batches of 32 pairs
with lengths as in multi30k (normal, mean 14, deviation 4), in random order (`random`) or sorted by length
first (`bucketed`), dropout 0.1 or 0. Both get the same batches; throughput counts target tokens, without
padding. `before_after.py` compares two versions of Striate.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import write_results
from torch import Tensor, nn

from striate.inference.generation import beam, greedy
from striate.kernels import prepare
from striate.kernels.prepacking import prepack
from striate.models.seq2seq import TextToText
from striate.models.text_decoder import sinusoids

VOCAB, WIDTH, DEPTH, HEADS, HIDDEN = 8000, 256, 3, 4, 1024
PAD, BEGIN, END = 0, 1, 2
PEERS = {"ctranslate2": "ctranslate2", "ctranslate2_by_two": "ctranslate2", "marian": "transformers"}
BATCH, BATCHES = 32, 10
KINDS = [(order, dropout) for order in ("random", "bucketed") for dropout in (0.1, 0.0)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="for each measurement in a round")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="engines, with commas between them")
    parser.add_argument("--out", type=Path, help="folder for a results file")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    return parser.parse_args()


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each of as many calls as fit, after one to warm up."""
    call()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def network() -> TextToText:
    torch.manual_seed(0)
    net = TextToText(VOCAB, VOCAB, WIDTH, DEPTH, HEADS, HIDDEN, max_length=256)
    with torch.no_grad():
        net.decoder.output.bias[END] = -1e9
    return net.eval()


def sources() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 25, (BATCH,), generator=generator).tolist()
    return [torch.randint(4, VOCAB, (length,), generator=generator).tolist() for length in lengths]


def padded(rows: list[list[int]]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def striate(args: argparse.Namespace) -> dict[str, Any]:
    net = prepack(prepare(network(), torch.device("cpu"), training=False))
    source = padded(sources())

    @torch.inference_mode()
    def write(beams: int) -> list[list[int]]:
        memory, mask = net.encode(source)
        if beams == 1:
            found = greedy(net.decoder, memory, mask, args.steps)
        else:
            found = beam(net.decoder, memory, mask, args.steps, beams=beams)
        return [list(best[0].tokens) for best in found]

    return generation(write, args)


def generation(write: Callable[[int], list[list[int]]], args: argparse.Namespace) -> dict[str, Any]:
    texts = {beams: write(beams) for beams in (1, 5)}
    assert all(len(text) == args.steps for found in texts.values() for text in found), "not the same work"
    return {
        "greedy": timed(lambda: write(1), args.seconds),
        "beam5": timed(lambda: write(5), args.seconds),
        "texts": texts[1],
        "beam_texts": texts[5],
    }


def ctranslate2(args: argparse.Namespace, by_two: bool = False) -> dict[str, Any]:
    import ctranslate2 as library

    from striate.exporters.ctranslate2 import export

    strings = [str(token) for token in range(VOCAB)]
    words = [[str(token) for token in row] for row in sources()]
    with tempfile.TemporaryDirectory() as folder:
        export(network(), Path(folder) / "model", strings, strings)
        threads = {"inter_threads": 2, "intra_threads": 1} if by_two else {"intra_threads": args.threads}
        engine = library.Translator(str(Path(folder) / "model"), compute_type="float32", **threads)

    def write(beams: int) -> list[list[int]]:
        options = {"beam_size": beams, "max_decoding_length": args.steps, "return_scores": True}
        options["max_batch_size"] = BATCH // 2 if by_two else BATCH
        return [
            [int(word) for word in found.hypotheses[0]] for found in engine.translate_batch(words, **options)
        ]

    return generation(write, args)


def marian(args: argparse.Namespace) -> dict[str, Any]:
    from transformers import MarianConfig, MarianMTModel

    config = MarianConfig(
        vocab_size=VOCAB, d_model=WIDTH, encoder_layers=DEPTH, decoder_layers=DEPTH,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=HIDDEN,
        decoder_ffn_dim=HIDDEN, activation_function="relu", max_position_embeddings=256,
        pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=BEGIN, forced_eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    net = MarianMTModel(config).eval()
    net.final_logits_bias[0, END] = -1e9
    source = padded(sources())

    @torch.inference_mode()
    def write(beams: int) -> list[list[int]]:
        answer = net.generate(
            source, attention_mask=(source != PAD).long(), num_beams=beams, max_new_tokens=args.steps,
            do_sample=False,
        )  # fmt: skip
        return [row[1:] for row in answer.tolist()]

    return generation(write, args)


class TorchTransformer(nn.Module):
    """nn.Transformer as its documentation has it used for translation."""

    positions: Tensor

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(VOCAB, WIDTH), nn.Embedding(VOCAB, WIDTH)
        for embedding in (self.source, self.target):
            nn.init.normal_(embedding.weight, std=WIDTH**-0.5)
        self.register_buffer("positions", sinusoids(256, WIDTH), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.transformer = nn.Transformer(
            WIDTH, HEADS, DEPTH, DEPTH, HIDDEN, dropout, batch_first=True, norm_first=True
        )
        self.output = nn.Linear(WIDTH, VOCAB)
        self.output.weight = self.target.weight

    def embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        """`[batch, tokens, width]`."""
        x: Tensor = self.dropout(embedding(tokens) * math.sqrt(WIDTH) + self.positions[: tokens.shape[1]])
        return x

    def loss(self, source: Tensor, target: Tensor, expected: Tensor, smoothing: float) -> Tensor:
        """The mean cross-entropy, as `TextToText.loss`."""
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=torch.bool)
        x = self.transformer(
            self.embed(self.source, source), self.embed(self.target, target), tgt_mask=causal,
            src_key_padding_mask=source == PAD, memory_key_padding_mask=source == PAD,
            tgt_key_padding_mask=target == PAD, tgt_is_causal=True,
        )  # fmt: skip
        logits = self.output(x).flatten(0, 1)
        return F.cross_entropy(logits, expected.flatten(), ignore_index=PAD, label_smoothing=smoothing)


def pairs(order: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Batches of source, target with BEGIN, and target with END."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(BATCH * BATCHES, generator=generator)
    lengths = (14 + 4 * drawn).round().clamp(3, 40).long()
    others = lengths + torch.randint(-2, 3, lengths.shape, generator=generator)
    rows = (
        sorted(zip(lengths.tolist(), others.tolist(), strict=True))
        if order == "bucketed"
        else list(zip(lengths.tolist(), others.tolist(), strict=True))
    )
    batches = []
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        source = [[*torch.randint(4, VOCAB, (a,), generator=generator).tolist(), END] for a, _ in batch]
        target = [torch.randint(4, VOCAB, (b,), generator=generator).tolist() for _, b in batch]
        batches.append(
            (padded(source), padded([[BEGIN, *t] for t in target]), padded([[*t, END] for t in target]))
        )
    return batches


def training(build: Callable[[float], Any], args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of passes over all batches for each kind."""
    results: dict[str, Any] = {}
    for order, dropout in KINDS:
        torch.manual_seed(0)
        net = build(dropout)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
        batches = pairs(order)

        def epoch(net: Any = net, optimizer: Any = optimizer, batches: Any = batches) -> None:
            for source, target, expected in batches:
                optimizer.zero_grad()
                net.loss(source, target, expected, 0.1).backward()
                optimizer.step()

        results[f"{order}_dropout{dropout}"] = timed(epoch, args.seconds)
    return results


def striate_training(args: argparse.Namespace) -> dict[str, Any]:
    def build(dropout: float) -> TextToText:
        net = TextToText(VOCAB, VOCAB, WIDTH, DEPTH, HEADS, HIDDEN, dropout, max_length=256)
        return prepare(net, torch.device("cpu"), training=True)

    return training(build, args)


ENGINES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "striate": striate,
    "ctranslate2": ctranslate2,
    "ctranslate2_by_two": lambda args: ctranslate2(args, by_two=True),
    "marian": marian,
    "striate_training": striate_training,
    "nn.Transformer_training": lambda args: training(TorchTransformer, args),
}


def child(name: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--engine", name, "--seconds", str(args.seconds)]
    command += ["--steps", str(args.steps), "--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def quartiles(work: int, times: list[float]) -> list[float]:
    return [round(work / q, 1) for q in reversed(statistics.quantiles(times, n=4))]


def summary(found: dict[str, dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second, quartiles, and how many times a peer's median Striate's is."""
    target_tokens = {order: sum(int((e != PAD).sum()) for _, _, e in pairs(order)) for order, _ in KINDS}
    rows: dict[str, Any] = {}
    for name, result in found.items():
        for what, times in result.items():
            if "texts" not in what:
                order = what.partition("_")[0]
                work = target_tokens[order] if order in target_tokens else BATCH * args.steps
                rows.setdefault(what, {})[name] = quartiles(work, times)
    ratios = {
        what: {name: round(row[ours][1] / q[1], 3) for name, q in row.items() if name != ours}
        for what, row in rows.items()
        if (ours := "striate_training" if "dropout" in what else "striate") in row
    }
    same = {}
    for kind in ("texts", "beam_texts"):
        texts = [found[name][kind] for name in ("striate", "ctranslate2") if name in found]
        if len(texts) == 2:
            same[kind] = sum(a == b for a, b in zip(*texts, strict=True)) / BATCH
    return {"tokens_per_second": rows, "times_the_peer": ratios, "same_as_ctranslate2": same}


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.engine:
        print(json.dumps(ENGINES[args.engine](args)))
        return
    names = [
        name
        for name in ENGINES
        if (not args.only or name in args.only.split(","))
        and (name not in PEERS or importlib.util.find_spec(PEERS[name]))
    ]
    found: dict[str, dict[str, Any]] = {}
    for _ in range(args.rounds):
        for name in names:
            result = child(name, args)
            for what, value in result.items():
                if "texts" in what:
                    found.setdefault(name, {})[what] = value
                else:
                    found.setdefault(name, {}).setdefault(what, []).extend(value)
    packages = [name for name in ("torch", *dict.fromkeys(PEERS.values())) if importlib.util.find_spec(name)]
    record = {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "threads": args.threads,
        "steps": args.steps,
        "rounds": args.rounds,
        **summary(found, args),
    }
    print(json.dumps(record, indent=2))
    if args.out:
        write_results(record, args.out, "seq2seq", cpus=args.threads)


if __name__ == "__main__":
    main()
