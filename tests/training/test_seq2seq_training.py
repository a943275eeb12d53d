import csv
import dataclasses
import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

import striate
from striate import bundle
from striate.bundle import Description
from striate.cli import run as command
from striate.data.text.batches import pad_sequences
from striate.data.text.dataset import Seq2SeqDataset
from striate.errors import BundleError, DataError, TrainingError, UsageError
from striate.inference.translator import TextEvaluation, load_translator, measure_on
from striate.metrics.text import measure
from striate.progress import Progress
from striate.report.seq2seq_page import write_seq2seq_report
from striate.training.keeper import Keeper
from striate.training.schedule import learning_rate
from striate.training.seq2seq import check
from striate.training.seq2seq import job as jobs
from striate.training.seq2seq.config import PRESETS, SeqConfig, filled, rates
from striate.training.seq2seq.prepare import prepare
from striate.training.seq2seq.session import resume_pairs, train_pairs
from striate.transforms.preprocess import Preprocess

CPU = torch.device("cpu")
SMALL = {
    "width": 32, "depth": 1, "heads": 2, "hidden": 64, "batch": 400, "epochs": 3, "save_every": 3,
    "average": 2, "dropout": 0.1, "lr": 3e-3, "name": "run",
}  # fmt: skip


class Words(Progress):
    def __init__(self):
        self.said, self.warned = [], []

    def info(self, message):
        self.said.append(message)

    def warn(self, message):
        self.warned.append(message)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Words to be turned round."""
    rng = np.random.default_rng(0)
    words = sorted({"".join(rng.choice(list("abcd"), rng.integers(2, 7))) for _ in range(160)})
    path = tmp_path_factory.mktemp("pairs") / "turned.tsv"
    path.write_text("".join(f"{word}\t{word[::-1]}\n" for word in words), "utf-8")
    return path


def start(data, out, progress=None, **options):
    return train_pairs(
        SeqConfig(data=(str(data),), out=str(out), **{**SMALL, **options}), progress or Words()
    )


def outcome(folder):
    """What must be equal: weights, all of results.csv that is not a time, and the samples."""
    with (folder / "results.csv").open() as file:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    digests = [bundle.inspect(folder / f"{name}.safetensors").weights_sha256 for name in ("last", "best")]
    return digests, rows, (folder / "samples.csv").read_bytes()


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    """A run that is never stopped."""
    progress = Words()
    run = start(table, tmp_path_factory.mktemp("whole"), progress)
    return run, progress


def test_a_run_says_what_it_chose(whole):
    run, progress = whole
    said = "\n".join(progress.said)
    assert "tokens: characters (8 ids) to characters (8 ids)" in said
    assert "effective peak learning rate 0.003" in said
    assert "pairs: " in said
    assert run.best.exists()
    assert not (run.folder / jobs.CHECKPOINTS).exists()
    assert len(jobs.read_samples(run.folder)) == 3 * SMALL["epochs"]


class GoneError(Exception):
    """The process is no more."""


@pytest.mark.parametrize("step", [2, 10])
def test_resumed_after_a_step(table, whole, tmp_path, monkeypatch, step):
    """Before the first save, and in a later epoch."""
    after = Keeper.after_step

    def after_step(keeper):
        after(keeper)
        if keeper._state.step == step:
            raise GoneError

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "after_step", after_step)
        with pytest.raises(GoneError):
            start(table, tmp_path)
    torch.manual_seed(step + 99)  # whatever was drawn before
    resume_pairs(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole[0].folder)


def test_resumed_while_averaging(table, whole, tmp_path, monkeypatch):
    def gone(*_):
        raise GoneError

    with monkeypatch.context() as patch:
        patch.setattr("striate.training.seq2seq.session.averaged", gone)
        with pytest.raises(GoneError):
            start(table, tmp_path)
    resume_pairs(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole[0].folder)


def test_changed_pairs_and_settings_are_refused(table, tmp_path):
    data = tmp_path / "turned.tsv"
    data.write_text(table.read_text("utf-8"), "utf-8")
    start(data, tmp_path, epochs=1, average=0)
    data.write_text(table.read_text("utf-8") + "abcdabcd\tx\n", "utf-8")
    with pytest.raises(DataError, match="its data have changed"):
        resume_pairs(tmp_path / "run")
    with pytest.raises(UsageError, match=r"lr was 0\.003 and is 0\.1"):
        resume_pairs(tmp_path / "run", lr=0.1)


def test_averaged_weights_are_the_mean(table, tmp_path, monkeypatch):
    kept, found = {}, {}

    def look(paths):
        kept.update({path.stem: load_file(path) for path in paths})
        found["mean"] = jobs.averaged(paths)
        return found["mean"]

    monkeypatch.setattr("striate.training.seq2seq.session.averaged", look)
    run = start(table, tmp_path, average=2)
    assert sorted(kept) == ["000002", "000003"]
    last = bundle.read(run.last)[1]
    for name, value in last.items():
        assert torch.equal(value, kept["000003"][name])
        assert torch.allclose(found["mean"][name], (kept["000002"][name] + value) / 2, atol=1e-6)


def test_the_gradients_of_parts_sum_to_that_of_the_batch(whole, tmp_path):
    """Parts are weighted by their tokens, not by their pairs."""
    run, _ = whole
    translator = load_translator(run.best, "cpu")  # in evaluation mode: no dropout
    train = Seq2SeqDataset(run.data.splits["train"], translator.source, translator.target)
    job = jobs.SeqJob(train, train, run.data.splits["train"], translator, run.config, CPU, None, tmp_path)
    state = SimpleNamespace(network=translator.network)
    batch = train.batch(np.arange(9), CPU)

    def gradient(parts):
        translator.network.zero_grad()
        for part in job.losses(state, batch, parts):
            torch.autograd.backward(part.loss * (part.weight / batch.weight))
        return torch.cat([p.grad.flatten() for p in translator.network.parameters()])

    uncut = gradient([slice(0, 9)])
    assert torch.allclose(gradient([slice(0, 2), slice(2, 3), slice(3, 9)]), uncut, atol=1e-6)
    assert uncut.abs().max() > 1e-3


def test_validation_loss_is_the_likelihood_of_the_references(whole):
    """Recomputed one pair at a time, with nothing of the batching."""
    run, _ = whole
    translator = load_translator(run.last, "cpu")
    pairs = run.data.splits["val"]
    total = tokens = hits = 0
    for source, references in zip(pairs.sources, pairs.references, strict=True):
        ids = translator.target.target(references[0])
        scores = translator.network(
            pad_sequences([translator.source.source(source)]), torch.tensor([ids[:-1]])
        )[0]
        wanted = torch.tensor(ids[1:])
        total -= float(scores.double().log_softmax(dim=1)[torch.arange(len(wanted)), wanted].sum().detach())
        hits += int((scores.argmax(dim=1) == wanted).sum())
        tokens += len(wanted)
    assert run.epochs[-1].val_loss == pytest.approx(total / tokens, rel=1e-5)
    assert run.epochs[-1].val_accuracy == pytest.approx(hits / tokens)


def test_a_network_that_cannot_learn_is_found_before_the_run(tmp_path, monkeypatch):
    """Targets that do not follow from their sources: nothing can tell equal sources apart."""
    table = tmp_path / "coin.tsv"
    table.write_text("".join(f"{'abcdefgh'[i % 8]}\t{i:03}\n" for i in range(200)), "utf-8")
    monkeypatch.setattr(check, "STEPS", 40)
    with pytest.raises(TrainingError, match="self-check failed"):
        start(table, tmp_path, check=True)
    assert not (tmp_path / "run").exists()


def test_the_self_check_passes_and_leaves_no_trace(table, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "EXAMPLES", 6)
    progress = Words()
    run = start(table, tmp_path, progress, check=True)
    assert any("learnt by heart" in line for line in progress.said)
    assert outcome(run.folder) == outcome(whole[0].folder)


def test_schedules_are_those_of_the_paper():
    # Vaswani et al. 2017, equation 3: d^-0.5 min(s^-0.5, s w^-1.5), s from 1.
    config = filled(SeqConfig(data=("x",), sched="noam", warmup=400, width=512), 10)
    numbers = rates(config, 10_000)
    assert numbers.warning is None
    for step in (1, 17, 400, 401, 9_999):
        wanted = 512**-0.5 * min(step**-0.5, step * 400**-1.5)
        own = learning_rate(
            step - 1, total=10_000, peak=numbers.peak_rate, kind=numbers.sched, warmup=numbers.warmup
        )
        assert own == pytest.approx(wanted)


def test_a_warm_up_of_more_than_half_the_steps_is_warned_of():
    config = filled(SeqConfig(data=("x",), warmup=800, lr=0.5), 10)
    assert "rises for 800 of 1,000 steps" in rates(config, 1000).warning
    assert rates(config, 1600).warning is None
    assert rates(config, 400).peak_rate == pytest.approx(0.5 * 400 / 800)  # what is reached of it


def test_presets_go_by_the_size_of_the_data():
    chosen = {pairs: filled(SeqConfig(data=("x",)), pairs) for pairs in (500, 20_000, 500_000, 5_000_000)}
    assert [config.model for config in chosen.values()] == ["tiny", "small", "base", "large"]
    for config in chosen.values():
        assert config.width == PRESETS[config.model].width
    own = filled(SeqConfig(data=("x",), width=64, model="large"), 500)
    assert (own.width, own.depth) == (64, PRESETS["large"].depth)
    assert filled(own, 500) == own


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="did you mean"):
        SeqConfig(data=("x",), tokens="charakters")
    with pytest.raises(UsageError, match="not known before"):
        SeqConfig(data=("x",), budget="5m", warmup=4000)
    with pytest.raises(UsageError, match="it must be from 0 to 1"):
        SeqConfig(data=("x",), label_smoothing=1.0)


def test_a_bundle_of_text_is_whole(whole, table, tmp_path):
    run, _ = whole
    translator = load_translator(run.best, "cpu")
    val = run.data.splits["val"]
    batch = translator.translate(val.sources).results
    for source, result in zip(val.sources[:5], batch, strict=False):
        assert translator.translate([source]).results[0].text == result.text  # batch = one by one
    evaluation = measure_on(translator, run.data, "val")
    assert evaluation.scores.exact == pytest.approx(
        sum(r.text in these for r, these in zip(batch, val.references, strict=True)) / len(val)
    )
    with pytest.raises(BundleError, match="trained for seq2seq"):
        striate.load(run.best)
    # Weights with another vocabulary are refused.
    description, state = bundle.read(run.best)
    swapped = {**description.text, "source": {**description.text["source"], "vocabulary": list("dcba")}}
    path = tmp_path / "swapped.safetensors"
    bundle.write(path, state, dataclasses.replace(description, text=swapped))
    with pytest.raises(BundleError, match="not the one that its weights learnt"):
        load_translator(path)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """Images of one of four marks, in different places and widths; one file is no image."""
    root = tmp_path_factory.mktemp("lines")
    rng = np.random.default_rng(1)
    rows = ["path,text,split"]
    for i in range(90):
        mark, x = i % 4, int(rng.integers(2, 12))
        image = Image.new("L", (x + int(rng.integers(16, 30)), 16), 255)
        draw = ImageDraw.Draw(image)
        if mark != 1:
            draw.rectangle((x + 5, 1, x + 8, 14), fill=0)
        if mark != 0:
            draw.rectangle((x, 6, x + 13, 9), fill=0)
        if mark == 3:
            draw.rectangle((x, 1, x + 13, 14), fill=0)
        image.save(root / f"{i}.png")
        split = "train" if i < 70 else "val" if i < 80 else "test"
        rows.append(f"{i}.png,{'|-+#'[mark]},{split}")
    (root / "broken.png").write_bytes(b"no image")
    rows.append("broken.png,x,train")
    (root / "lines.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return root / "lines.csv"


@pytest.mark.parametrize(("text", "shown"), [("a man sleeps here", True), ("a man sleeps", False)])
def test_the_report_has_bleu_where_texts_have_four_words(whole, text, shown):
    pytest.importorskip("sacrebleu")
    run = whole[0]
    scores = measure([text], [[text]])
    evaluation = TextEvaluation(scores, "pairs", "test", ("abcd",), ((text,),), (text,), 1.0)
    page = write_seq2seq_report(evaluation, run, load_translator(run.best)).read_text("utf-8")
    assert ("<b>100.0</b><span>BLEU</span>" in page, "bleu: nrefs" in page) == (shown, shown)
    assert "<b>100.0</b><span>chrF</span>" in page


def test_images_of_lines_are_read(lines, tmp_path, capsys):
    options = [
        "--width", "32", "--depth", "1", "--heads", "2", "--hidden", "64", "--epochs", "25", "--batch", "60",
        "--lr", "0.003", "--average", "0", "--imgsz", "16", "--dropout", "0", "--encoder-channels", "16",
    ]  # fmt: skip
    code = command(
        ["seq2seq", "train", str(lines), "--out", str(tmp_path), "--name", "bars", "--json", *options]
    )
    out, err = capsys.readouterr()
    assert code == 0, err
    told = json.loads(out)
    assert "1 images cannot be read and are left out" in err
    assert told["n"] == 10
    assert told["exact"] >= 0.9  # four marks are not hard to tell apart
    for key in ("run", "best", "last", "bleu", "chrf", "cer", "wer"):
        assert key in told
    page = (tmp_path / "bars" / "report.html").read_text("utf-8")
    assert "Where it looked" in page
    assert "BLEU</span>" not in page  # of single marks it would be 0
    assert "http://" not in page
    assert (tmp_path / "bars" / "attention1.png").exists()
    one = str(lines.parent / "85.png")
    assert command(["predict", told["best"], one, str(lines.parent / "broken.png"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["text"] == load_translator(told["best"]).translate([one]).results[0].text
    assert results[1]["error"]
    shuffled = ["seq2seq", "evaluate", told["best"], str(lines), "--shuffled", "--json"]
    assert command(shuffled) == 0
    by_chance = json.loads(capsys.readouterr().out)["exact"]
    # It is compared with another mark, which only a wrong answer can hit.
    assert by_chance <= 1 - told["exact"] + 1e-9


def test_padding_changes_no_reading(lines, tmp_path):
    """Images of other widths beside it in the batch leave an image's answer as it is."""
    run = train_pairs(
        SeqConfig(data=(str(lines),), out=str(tmp_path), **{**SMALL, "epochs": 2, "height": 16}), Words()
    )
    translator = load_translator(run.best, "cpu")
    paths = [str(lines.parent / f"{i}.png") for i in range(80, 90)]
    together = translator.translate(paths, beams=2).results
    for path, result in zip(paths, together, strict=True):
        alone = translator.translate([path], beams=2).results[0]
        assert alone.text == result.text
        assert alone.answers[0].score == pytest.approx(result.answers[0].score, abs=1e-4)


def test_translate_from_arguments_file_and_standard_input(whole, tmp_path, capsys, monkeypatch):
    best = str(whole[0].best)
    wanted = [r.text for r in load_translator(best).translate(["abc", "dd"]).results]
    assert command(["seq2seq", "translate", best, "abc", "dd"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == wanted
    assert "tok/s" in err
    file = tmp_path / "lines.txt"
    file.write_text("abc\ndd\n", "utf-8")
    assert command(["seq2seq", "translate", best, "--file", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == wanted
    with file.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert command(["seq2seq", "translate", best, "--n-best", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [len(result["answers"]) for result in told["results"]] == [2, 2]
    scores = [answer["score"] for answer in told["results"][0]["answers"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_killed_processes_end_with_the_same_weights(table, tmp_path):
    """SIGKILL to real processes at any moment, resumed until they are done."""
    base = [sys.executable, "-m", "striate"]
    options = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items() if k != "name"]
    train = [*base, "seq2seq", "train", str(table), "--out", str(tmp_path), *options]
    subprocess.run([*train, "--name", "whole"], check=True, capture_output=True)
    rng = np.random.default_rng(0)
    process = subprocess.Popen([*train, "--name", "killed"], stderr=subprocess.DEVNULL)
    for _ in range(6):
        time.sleep(rng.uniform(2.5, 5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = subprocess.Popen([*base, "resume", str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    assert process.wait() == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_an_encoder_starts_from_a_classifier(lines, tmp_path):
    """The weights of a network of the zoo, and its way of reading images."""
    torch.manual_seed(7)
    network = striate.models.build("resnet20", num_classes=5, in_channels=1)
    contract = Preprocess.for_size(32, 1, resize="letterbox")
    says = Description(
        "classification", "resnet20", {"num_classes": 5, "in_channels": 1}, tuple("abcde"), contract
    )
    bundle.write(tmp_path / "classifier.safetensors", network, says)
    options = {**SMALL, "encoder_from": str(tmp_path / "classifier.safetensors")}
    ready = prepare(SeqConfig(data=(str(lines),), **options), Words())
    assert ready.translator.description.preprocess == contract
    own = ready.translator.network.state_dict()
    loaded = [name for name in own if name.startswith("front.network.")]
    assert len(loaded) > 50
    for name in loaded:
        assert torch.equal(own[name], network.state_dict()[name.removeprefix("front.network.")]), name
    run = train_pairs(SeqConfig(data=(str(lines),), out=str(tmp_path), **{**options, "epochs": 1}), Words())
    assert load_translator(run.best, "cpu").translate(str(lines.parent / "85.png")).results[0].error is None


def test_sentences_share_one_vocabulary(tmp_path):
    pytest.importorskip("sentencepiece")
    words = ["the", "a", "dog", "cat", "man", "woman", "runs", "sits", "reads", "in", "on", "park", "bench"]
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("val", 20)):
        text = "".join(" ".join(rng.choice(words, 8)) + "\n" for _ in range(count))
        (tmp_path / f"{split}.en").write_text(text, "utf-8")
        (tmp_path / f"{split}.xx").write_text(text.upper(), "utf-8")
    paths = (str(tmp_path / "train.en"), str(tmp_path / "train.xx"))
    ready = prepare(SeqConfig(data=paths, vocab=90, **SMALL), Words())
    translator = ready.translator
    assert translator.source == translator.target
    assert translator.source.kind == "sentencepiece"
    network = translator.network
    assert network.embed.embedding.weight is network.decoder.embed.embedding.weight
    assert "one vocabulary" in ready.chosen[0]
    assert {name: len(pairs) for name, pairs in ready.data.splits.items()} == {"train": 300, "val": 20}


def test_a_finished_run_resumes_to_itself(whole, table, tmp_path, capsys):
    start(table, tmp_path)
    before = outcome(tmp_path / "run")
    assert command(["resume", str(tmp_path / "run"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "nothing is left to train" in err
    assert json.loads(out)["epochs"] == SMALL["epochs"]
    assert outcome(tmp_path / "run") == before
