"""The lineage page of a thousand clips and three hundred stages: how long it takes to make, and to use in a browser.

    python benchmarks/lineage_page.py

Makes the repository of benchmarks/lineage.py, every clip with a picture, builds the page with the command, and uses it
in a real Chromium without a GPU. Each time is the median of some tries, up to the second frame after it, so painted.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import benchmarks.lineage as repository
from tasks.tables import CLIP_SCHEMA, encode_png, picture_column, write_table
from tests.conftest import find_chromium
from tests.lineage_project import Clip, Pipeline

ROOT = Path(__file__).resolve().parent.parent
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
READY = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Pictured(Pipeline):
    """Clips' tables hold a picture of 180x320 each."""

    def table(self, kind: str, clip: Clip, **facts: str) -> str:
        key = f"{kind} {clip} {facts}"
        if kind != "clip" or key in self._tables:
            return super().table(kind, clip, **facts)
        rng = np.random.default_rng(clip.first)
        image = cv2.resize(rng.integers(0, 255, (10, 6, 3), dtype=np.uint8), (180, 320), interpolation=cv2.INTER_CUBIC)
        rows = [pa.array([0], pa.int32()), pa.array([0.0]), picture_column([encode_png(image)], ["0.png"])]
        path = self.project.root / "picture.parquet"
        write_table("clip", path, [pa.table(rows, schema=CLIP_SCHEMA)], {"clip": clip.clip, **facts})
        self._tables[key] = self.project.store(path.read_bytes())
        path.unlink()
        return self._tables[key]


def median_ms(page: Page, act: Callable[[], object], undo: Callable[[], object], tries: int) -> float:
    times = []
    for _ in range(tries):
        page.evaluate(READY)
        start = time.perf_counter()
        act()
        page.evaluate(READY)
        times.append(1000 * (time.perf_counter() - start))
        undo()
    return statistics.median(times)


def measure(url: str, tries: int) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=QUIET)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        starts = []
        for _ in range(tries):
            page.goto("about:blank")
            page.goto(url)
            page.wait_for_selector("html[data-ready]")
            page.evaluate(READY)
            starts.append(page.evaluate("performance.now()"))
        print(f"{'opened, drawn and ready':<46}{statistics.median(starts):>8.0f} ms")
        print(f"{'things / drawn at first':<46}{page.evaluate('lineagePage.things.length'):>8} "
              f"/ {page.evaluate('lineagePage.drawn().length')}")  # fmt: skip

        def escape() -> None:
            page.keyboard.press("Escape")

        def place(key: str) -> None:
            at = page.evaluate("(key) => lineagePage.placeOf(lineagePage.find(key))", key)
            page.mouse.click(at["x"], at["y"])

        def go(key: str) -> None:
            page.evaluate("(key) => { location.hash = encodeURIComponent(key); }", key)

        search = page.get_by_label("Search")

        def open_clips() -> None:
            """A render's path, and the 40 clips in it that its renderer was trained on."""
            go("render-batch03-painted")
            page.locator("#folders").click()

        steps: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "a click in the picture: the renders folded": (lambda: place("render-batch03-plain"), escape),
            "a clip's path": (lambda: go("clip:batch03/batch03_004"), escape),
            "the motion checkpoint's path": (lambda: go("train_motion"), escape),
            "the report's path: nearly everything": (lambda: go("report"), escape),
            "a render's path with every folder open": (open_clips, escape),
            "search: a letter": (lambda: search.fill("b"), lambda: search.fill("")),
            "search: a clip": (lambda: search.fill("batch07_013"), lambda: search.fill("")),
            "filter: clips": (
                page.locator("#kinds button", has_text="clip").click,
                page.locator("#kinds button", has_text="clip").click,
            ),
            "all folds open": (page.locator("#folders").click, page.locator("#folders").click),
        }
        for name, (act, undo) in steps.items():
            print(f"{name:<46}{median_ms(page, act, undo, tries):>8.0f} ms", flush=True)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--motions", type=int, default=100_000)
    parser.add_argument("--revisions", type=int, default=20)
    parser.add_argument("--tries", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "repository", Path(folder) / "page.html"
        repository.Pipeline = Pictured
        pipeline = repository.make_repository(root, args.clips, args.motions, args.revisions)
        print(f"{len(pipeline.project.ran)} stages, {args.clips} clips, {args.motions} recordings")
        command = [sys.executable, "-P", "-c", repository.ASK, "lineage", "page", str(out)]
        for name in ("made, the index too", "made again"):
            start = time.perf_counter()
            env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=env)
            print(f"{name:<46}{time.perf_counter() - start:>8.1f} s  {done.stderr.strip().splitlines()[-1]}")
        print(f"{'the page':<46}{out.stat().st_size / 1e6:>8.1f} MB")
        measure(out.as_uri(), args.tries)


if __name__ == "__main__":
    main()
