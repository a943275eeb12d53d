"""The report page of a classifier in a real browser, driven with clicks and keys."""

import dataclasses
import re

import numpy as np
import pytest
from browser import needs_chromium
from random_evaluation import random_evaluation
from sklearn.metrics import roc_curve

from striate import charts, sections
from striate.inference.evaluation import measure
from striate.inference.text_evaluation import TextEvaluation
from striate.metrics.text import TextScores
from striate.report.page import write_report
from striate.tasks.classification.report import report
from striate.tasks.seq2seq.report import report as seq2seq_report

pytestmark = needs_chromium

NAMES = (
    "</script><script>alert(1)</script>",
    "大熊猫",
    "x" * 300,
    "\x1b[31m'\"{n}",
    "<img src=x onerror=alert(2)>",
    "plain",
)


@pytest.fixture(scope="module")
def record():
    return random_evaluation(NAMES, n=120)


@pytest.fixture
def page(record, tmp_path, browser):
    browser.window(1400)
    address = write_report(report(record, model="m"), tmp_path).as_uri()
    browser.open(f"{address}#lang=en&theme=light")
    assert browser.evaluate("document.documentElement.dataset.ready") == "true"
    yield browser
    assert browser.errors == []
    assert browser.requests == [address]


def test_clicks_filters_and_keys(page, record):
    wrong = record.predicted != record.labels
    gallery = "[data-block='1'] "
    number = lambda: int(page.text(gallery + ".status").split()[0])
    assert number() == wrong.sum()
    # The most confident error is the first one.
    worst = max((i for i in range(120) if wrong[i]), key=lambda i: record.probabilities[i].max())
    assert page.text(gallery + "li .cap:last-child") == record.names[worst]
    # A cell of the matrix, with the keyboard: true class 0, predicted class 1.
    page.evaluate("document.querySelector('canvas').focus()")
    page.press("ArrowRight", "Enter")
    assert number() == record.confusion[0, 1]
    assert f"{record.confusion[0, 1]} of {record.per_class[0].support}" in page.text(
        "[data-block='0'] .status"
    )
    # The most frequent confusion, with the mouse.
    page.click(".pair")
    off = record.confusion.copy()
    off[range(6), range(6)] = 0
    assert number() == off.max()
    # A class, then a file name.
    page.enter(gallery + "select", 5, "change")
    assert number() == (wrong & ((record.labels == 5) | (record.predicted == 5))).sum()
    page.click(gallery + "[data-value=all]")
    page.enter(gallery + "input", "7.p")
    five = [i for i in range(7, 120, 10) if record.labels[i] == 5 or record.predicted[i] == 5]
    assert number() == len(five)
    # One image, and the next one.
    page.click(gallery + "li button")
    assert page.text("dialog .path") == min(record.names[i] for i in five)
    first = min(five, key=lambda i: record.names[i])
    assert page.count("dialog .guess") == 5 + (record.labels[first] == record.probabilities[first].argmin())
    page.press("ArrowRight")
    assert page.text("dialog .path") == sorted(record.names[i] for i in five)[1]
    page.press("Escape")
    assert not page.evaluate("document.querySelector('dialog').open")


def test_the_first_image_is_a_neighbour_like_any_other(page, record):
    gallery = "[data-block='1'] "
    page.click(gallery + "[data-value=all]")
    first, second = sorted(record.names)[:2]
    page.click(gallery + "li:nth-child(2) button")
    assert page.text("dialog .path") == second
    page.click("dialog .tools button")  # the previous one
    assert page.text("dialog .path") == first
    assert page.evaluate("document.querySelector('dialog .tools button').disabled")
    page.press("ArrowLeft")
    assert page.text("dialog .path") == first


def test_heat_maps_over_images(browser, record, tmp_path):
    """A button shows them in the gallery, another one in the window of an image, with mouse or keyboard."""
    page, hot = browser, np.zeros((120, 4, 4), np.float32)
    hot[:, 3, 0] = 1  # the lower left corner
    record = dataclasses.replace(record, maps=lambda which: hot[which])
    page.window(1400)
    page.open(write_report(report(record, model="m"), tmp_path).as_uri() + "#lang=en&theme=light")
    gallery = "[data-block='1'] "
    assert page.count(".veiled") == 0
    page.click(gallery + ".heat")
    assert page.count(gallery + ".veiled canvas") == 24
    assert "36 images have a map" in page.text(gallery)
    opacity = "document.querySelector('.veiled canvas').getContext('2d').getImageData({}, 1, 1).data[3]"
    assert [page.evaluate(opacity.format(at)) for at in ("9, 183", "9, 9", "183, 183")] == [190, 0, 0]
    page.click(gallery + "li button")
    assert page.count("dialog .veiled") == 1
    page.evaluate("document.querySelector('dialog .heat').focus()")
    page.press("Enter")
    assert (page.count("dialog .veiled"), page.count(".veiled")) == (0, 0)
    assert page.evaluate("document.activeElement.className") == "heat"
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    page.press("Escape")
    assert page.errors == []


def test_a_threshold_updates_the_counts(page, record):
    page.click("tr[data-class='3']")
    page.enter("[type=range]", 30)
    page.press("ArrowRight")
    called = record.probabilities[:, 3] >= 0.31
    own = record.labels == 3
    expected = [int(sum(x)) for x in (called & own, called & ~own, own & ~called, ~called & ~own)]
    found = page.evaluate(
        "[...document.querySelectorAll('.counts b')].slice(0, 4).map(b => Number(b.textContent))"
    )
    assert found == expected
    page.click(".of-classes th:nth-child(2) button")
    supports = page.evaluate(
        "[...document.querySelectorAll('.of-classes td:nth-child(2)')].map(c => Number(c.dataset.v))"
    )
    assert supports == sorted((score.support for score in record.per_class), reverse=True)


def test_curves_have_a_step_at_each_probability(browser, tmp_path):
    """Those of scikit-learn, for probabilities that are almost equal."""
    rng = np.random.default_rng(1)
    first = 0.18 + 1e-6 * rng.permutation(30)
    labels = (rng.random(30) < 0.3).astype(int)
    images, names = np.zeros((30, 4, 4, 3), np.uint8), tuple(f"{i}.png" for i in range(30))
    of = {"images": images, "data": "data", "split": "test"}
    record = measure(names, labels, np.stack([1 - first, first], 1), ("no", "yes"), **of)
    browser.window(1400)
    browser.open(write_report(report(record, model="m"), tmp_path).as_uri() + "#lang=en&theme=light")
    browser.click("tr[data-class='1']")
    draw = (
        "[...document.querySelectorAll('.panels svg')].map(s => s.querySelector('.line').getAttribute('d'))"
    )
    recall, roc = (
        np.array([[float(n) for n in point.split(",")] for point in re.findall(r"[-\d.]+,[-\d.]+", path)])
        for path in browser.evaluate(draw)
    )
    fpr, tpr, _ = roc_curve(labels, first, drop_intermediate=False)
    shares = (roc - roc[0]) / (roc[-1] - roc[0])  # of the axes, whatever their size
    assert shares == pytest.approx(np.stack([fpr, tpr], 1), abs=0.003)
    assert len(recall) == 30  # no precision above all scores
    assert browser.errors == []


def test_language_and_theme(page):
    assert "Errors" in page.text("#part1 h2")
    page.click("#language")
    assert "错误" in page.text("#part1 h2")
    assert "大熊猫" in page.text(".of-classes")
    assert NAMES[3].replace("\x1b", "") in page.text(".of-classes").replace("\x1b", "")  # a name is no phrase
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert "真实：" in page.text("[data-block='1'] li")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.click("#language")
    assert "Errors" in page.text("#part1 h2")
    page.evaluate("localStorage.clear()")
    assert page.evaluate("document.querySelector('p.soft code').textContent").startswith("striate ")


def test_a_phone_and_paper(page):
    page.window(390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.window(800, media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.tools')).display") == "none"


def test_without_scripts_the_tables_are_there(browser, record, tmp_path):
    address = write_report(report(record, model="m"), tmp_path).as_uri()
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(address)
        text = browser.call("DOMSnapshot.captureSnapshot", computedStyles=["display"])["strings"]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "大熊猫" in text
    assert any("macro F1" in piece for piece in text)


def test_answers_of_a_model_of_sequences(browser, text_run, tmp_path):
    """Errors with their differences, a search, epochs, and attention by the keyboard."""
    page = browser
    scores = TextScores(n=3, exact=1 / 3, cer=0.25, wer=0.5, bleu=None, chrf=None, signatures={})
    texts = (("ab", "abcd", "aab"), (("ba",), ("dcba",), ("baa",)), ("ba", "dbba", "<b>x"))
    evaluation = TextEvaluation(scores, "pairs", "test", *texts, 9.0)
    address = write_report(seq2seq_report(evaluation, model=str(text_run.best)), tmp_path).as_uri()
    page.window(1400)
    page.open(f"{address}#lang=en")
    assert page.text(".status") == "2 answers"
    assert page.text(".answers li:last-child mark.no") == "b"
    assert page.text(".answers li:last-child mark.yes") == "c"
    page.click("[data-value=all]")
    page.enter("input[type=search]", "<B>")
    assert (page.text(".status"), page.text(".answers .line:nth-child(2)")) == ("1 answer", "answer\n<b>x")
    page.evaluate("document.querySelector('.tokens').focus()")
    page.press("ArrowRight")
    assert page.evaluate("document.querySelector('.tokens [aria-selected=true]').previousSibling !== null")
    assert page.overflow(390) <= 0
    assert (page.errors, page.requests) == ([], [address])


def test_more_curves_than_colours(browser, tmp_path):
    """Each has a color, and no two the same look, in the chart and in its key; no epoch is marked."""
    lines = tuple(charts.Line(f"run{i}", (0.1 * i, 0.2 * i)) for i in range(12))
    curves = charts.Curves((1, 2), (charts.Panel("Loss", lines),), None, alt="")
    section = sections.Section(sections.Phrase("Training curves"), (curves,))
    browser.open(write_report(sections.Report("x", "y", (section,)), tmp_path).as_uri())
    styles = "[...document.querySelectorAll('{}')].map(node => getComputedStyle(node)).map(s => {})"
    looks = browser.evaluate(styles.format("path.line", "s.stroke + s.strokeDasharray"))
    keys = browser.evaluate(styles.format(".legend i", "s.backgroundColor + s.backgroundImage"))
    assert (len(set(looks)), len(set(keys))) == (12, 12)
    assert not any(look.startswith("none") for look in looks)
    assert browser.count("line.axis[stroke-dasharray]") == 0
    assert browser.errors == []
