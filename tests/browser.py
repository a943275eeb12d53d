"""Open HTML pages in headless Chromium, where it is installed."""

import html
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=3000"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def open_page(folder, text, anchor, *flags):
    """Opens a page at an anchor; returns the standard output, such as the document for `--dump-dom`."""
    page = folder / "page.html"
    page.write_text(text, "utf-8")
    address = f"{page.as_uri()}#{anchor}"
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *FLAGS.split(), profile, *flags, address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def horizontal_overflow(folder, text, width):
    """By how many pixels a page is wider than a window of `width` pixels, so that it scrolls sideways.

    In a frame, because Chromium's own windows are at least 500 pixels wide.
    """
    frame = f"""<!doctype html><iframe id="frame" style="width: {width}px; border: 0"
        srcdoc="{html.escape(text)}"></iframe><script>
        document.getElementById("frame").onload = event => {{
          const page = event.target.contentWindow, root = page.document.documentElement;
          document.title = `${{page.innerWidth}} ${{root.scrollWidth - root.clientWidth}}`;
        }}</script>"""
    document = open_page(folder, frame, "", "--dump-dom")
    window, overflow = re.search(r"<title>(\d+) (\d+)</title>", document).groups()
    assert int(window) == width
    return int(overflow)
