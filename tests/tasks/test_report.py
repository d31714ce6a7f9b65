import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.report import (
    RenderEntry,
    describe_bases,
    describe_motions,
    make_tables,
    name_series,
    pick_samples,
    pick_worst,
    write_report,
)
from tasks.report_media import Series
from tasks.tables import Table, write_table
from tasks.video import ffmpeg_path
from tests.tasks.motion_report_samples import motion_files
from tests.tasks.report_samples import NUM_FRAMES, TRUTH_SHARES, make_entry, true_image, write_truth

OPTIONS = {
    "motion": motion_files(Path("nothing")),
    "skipped": {},
    "commands": ["inbetween repro"],
    "media_height": 480,
    "sample_frames": 2,
    "worst_frames": 2,
    "ffmpeg": ffmpeg_path("pinned"),
    "workers": 2,
}


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_truth(folder, "jump")
    return [make_entry(folder, step, method) for step in (4, 8) for method in TRUTH_SHARES]


@pytest.fixture(scope="module")
def report(entries, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, entries, **OPTIONS)
    return folder


def read_mp4(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def test_page_names_only_files_that_lie_beside_it(report):
    html = (report / "index.html").read_text()
    sources = set(re.findall(r'(?:data-src|src|href)="([^"#][^"]*)"', html)) - {"data:,"}
    assert {(report / source).is_file() for source in sources} == {True}
    on_disk = {p.relative_to(report).as_posix() for p in report.rglob("*") if p.is_file()} - {"index.html"}
    assert sources == on_disk
    assert not re.search(r"https?://(?!www\.w3\.org)", html)


def test_it_opens_at_the_key_step_with_most_methods_the_larger_if_equal(entries, report, tmp_path):
    assert re.findall(r'aria-pressed="true">every (\w+)<', (report / "index.html").read_text()) == ["8th"]
    write_report(tmp_path, entries[:-1], **OPTIONS)
    html = (tmp_path / "index.html").read_text()
    assert re.findall(r'aria-pressed="true">every (\w+)<', html) == ["4th"]
    assert "chooseStep(4);" in html


def test_same_input_gives_the_same_bytes(entries, report, tmp_path):
    write_report(tmp_path, entries, **OPTIONS | {"workers": 1})
    files = {p.relative_to(report): p.read_bytes() for p in report.rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_input_video_holds_each_key_and_truth_shows_every_frame(report):
    media = report / "media/sample/jump"
    held, truth = read_mp4(media / "input-8.mp4"), read_mp4(media / f"truth-0-{NUM_FRAMES - 1}.mp4")
    assert len(held) == len(truth) == NUM_FRAMES
    for frame in (7, 8, 15):
        assert np.abs(held[frame].astype(int) - true_image(frame - frame % 8)).mean() < 3
        assert np.abs(truth[frame].astype(int) - true_image(frame)).mean() < 3


def test_media_are_no_higher_than_asked(entries, tmp_path):
    write_report(tmp_path, entries[:1], **OPTIONS | {"media_height": 48})
    assert {read_mp4(p)[0].shape for p in tmp_path.rglob("*.mp4")} == {(48, 32, 3)}
    assert max(cv2.imread(str(p)).shape[0] for p in tmp_path.rglob("*.jpg")) <= 48


def test_best_of_each_column_is_marked_and_ties_are_shared():
    rows = [
        (Series("a", 0), {"halfway": {"person_psnr": 20.001, "joint_error_px": 3.0, "pck": 0.5}, "all": {}}),
        (Series("b", 1), {"halfway": {"person_psnr": 20.004, "joint_error_px": 2.0, "pck": 0.25}, "all": {}}),
        (Series("c", 2), None),
    ]
    (table,) = make_tables(rows)
    assert [column.key for column in table.columns] == ["person_psnr", "joint_error_px", "pck"]
    cells = [[(cell.text, cell.is_best) for cell in row.cells] for row in table.rows]
    assert cells[0] == [("20.00", True), ("3.00", False), ("50.0", True)]
    assert cells[1] == [("20.00", True), ("2.00", True), ("25.0", False)]
    assert cells[2] == [("not measured", False)] * 3


def test_samples_run_from_the_worst_to_the_median():
    psnr = {frame: float(frame % 9) for frame in range(10, 19)}  # frame 18 is the worst, 13 the median
    assert pick_samples(psnr, 2) == [("the worst", 18), ("the median", 13)]
    assert [frame for _, frame in pick_samples(psnr, 3)] == [18, 11, 13]
    assert pick_samples({5: 1.0}, 2) == [("the worst", 5)]


def entry(name, key_step, motion, method):
    return RenderEntry(name, "sample", key_step, motion, method, (), None)


def test_worst_frames_are_each_of_another_gap():
    psnr = {1: 20.0, 2: 11.0, 3: 10.0, 5: 30.0, 6: 12.0, 7: 40.0, 9: 12.0}
    assert pick_worst(psnr, [0, 4, 8, 12], 9) == [(3, 0, 4), (6, 4, 8), (9, 8, 12)]
    assert pick_worst(psnr, [0, 4, 8, 12], 1) == [(3, 0, 4)]


def test_worst_frames_stand_between_their_keys_beside_the_truth(report):
    """The ball lags most in the last frame of a gap. A strip is 4 pictures of one size, 4 px apart."""
    html = (report / "index.html").read_text()
    strips = re.findall(r'<img src="(media/sample/jump/worst-blend-8-(\d+)\.jpg)"', html)
    assert len(strips) == 2
    for source, frame in strips:
        assert int(frame) % 8 == 7
        strip = cv2.imread(str(report / source)).astype(int)
        width = (strip.shape[1] - 3 * 4) // 4
        before, result, truth, after = (strip[:, n * (width + 4) :][:, :width] for n in range(4))
        assert np.abs(result - truth).mean() > 2
        assert np.abs(result - before).mean() < np.abs(truth - before).mean()  # mostly the key before
        assert np.abs(truth - after).mean() < np.abs(truth - before).mean()  # a frame from the key after
    assert not list(report.rglob("*worst-blend-8-*.png"))


def test_no_worst_frames_are_shown_where_none_are_asked_for(entries, tmp_path):
    write_report(tmp_path, entries[:1], **OPTIONS | {"worst_frames": 0})
    assert not list(tmp_path.rglob("worst-*"))
    assert "worst frames of each" not in (tmp_path / "index.html").read_text()


def test_base_of_every_render_is_named():
    assert describe_bases({"warp-4": "rife", "warp-8": "flow", "neural-8": "rife"}) == [
        ("base flow", "warp-8"),
        ("base rife", "warp-4, neural-8"),
    ]


def test_page_says_which_base_lies_under_a_render(entries, tmp_path):
    table = Table("render", entries[2].clips[0].render)
    path = tmp_path / "render.parquet"
    rows = pq.read_table(table.path).replace_schema_metadata(None)
    write_table("render", path, [rows], table.metadata | {"base": "rife"})
    write_report(
        tmp_path / "report", [replace(entries[2], clips=(replace(entries[2].clips[0], render=path),))], **OPTIONS
    )
    html = (tmp_path / "report/index.html").read_text()
    assert "<dt>base rife</dt><dd>warp-4</dd>" in html
    assert "linear motion, base rife</span>" in html


def test_page_says_where_the_weights_of_lpips_were_not_there(entries, tmp_path):
    shown = [replace(e, metrics=e.metrics | {"lpips": "no weights"}) for e in entries[:2]]
    write_report(tmp_path, [*shown, entries[2]], **OPTIONS)
    assert "LPIPS was left out of blend-4, flow-4: its weights" in (tmp_path / "index.html").read_text()


def test_a_method_has_one_name_and_colour_at_every_key_step():
    series = name_series([entry("w4", 4, "linear", "warp"), entry("w8", 8, "robust", "warp")])
    assert series["w4"] == series["w8"] == Series("warp", 3)


def test_methods_that_differ_by_motion_are_named_with_it():
    series = name_series([entry("a", 4, "linear", "warp"), entry("b", 4, "robust", "warp")])
    assert [series[name].label for name in "ab"] == ["warp, linear", "warp, robust"]
    assert series["a"].colour != series["b"].colour


def test_motion_of_every_render_is_named_where_it_is_used():
    learned = replace(entry("warp-8", 8, "learned", "warp"), motion_model="data/models/motion")
    renders = [entry("blend-4", 4, "linear", "blend"), entry("warp-4", 4, "robust", "warp"), learned]
    assert describe_motions([*renders, entry("flow-4", 4, "linear", "flow")]) == [
        ("learned motion (data/models/motion)", "warp-8"),
        ("no joints used", "blend-4, flow-4"),
        ("robust motion", "warp-4"),
    ]


def test_page_says_which_motion_a_render_used(entries, report):
    html = (report / "index.html").read_text()
    assert "<dt>linear motion</dt><dd>warp-4, warp-8</dd>" in html
    assert "<dt>no joints used</dt><dd>blend-4, flow-4, blend-8, flow-8</dd>" in html


def test_what_is_missing_is_said(entries, tmp_path):
    lost = replace(entries[1].clips[0], render=tmp_path / "no.parquet")
    unmeasured = replace(entries[2].clips[0], evaluation=tmp_path / "no.parquet")
    shown = [
        entries[0],
        replace(entries[1], clips=(lost,), metrics=None),
        replace(entries[2], clips=(unmeasured,), metrics=None),
        replace(entries[5], clips=()),
    ]
    write_report(tmp_path / "report", shown, **OPTIONS | {"skipped": {"walk": "the video is private"}})
    html = (tmp_path / "report/index.html").read_text()
    for words in (
        "flow-4 has no measures; run `inbetween stage evaluate flow-4`.",
        "flow-4 has no clip jump; run `inbetween stage render flow-4`.",
        "warp-4 has no measures",
        "warp-8 has no rendered clips",
        "Clip walk was skipped: the video is private.",
        "not measured",
    ):
        assert words in html


def test_nothing_rendered_is_a_page_that_says_so(tmp_path):
    write_report(tmp_path, [], **OPTIONS)
    assert "Nothing is rendered yet" in (tmp_path / "index.html").read_text()
    assert not (tmp_path / "media").exists()


def test_clip_without_truth_has_players_and_no_error_maps(entries, tmp_path):
    files = replace(entries[0].clips[0], truth=tmp_path / "no.parquet", evaluation=tmp_path / "no.parquet")
    write_report(tmp_path, [replace(entries[0], clips=(files,), metrics=None)], **OPTIONS)
    names = sorted(p.name for p in (tmp_path / "media").rglob("*") if p.is_file())
    assert names == ["input-4.mp4", "render-blend-4.mp4"]


def test_words_from_outside_are_text_on_the_page(entries, tmp_path):
    write_report(tmp_path, [], **OPTIONS | {"skipped": {"a": "<script>alert(1)</script>"}})
    assert "<script>alert" not in (tmp_path / "index.html").read_text()


def test_plots_are_whole_svg_in_the_pages_own_colours(report):
    html = (report / "index.html").read_text()
    plots = re.findall(r"<svg xmlns:xlink.*?</svg>", html, flags=re.DOTALL)
    assert len(plots) == 4  # two key steps, wide and narrow
    for plot in plots:
        root = ET.fromstring(plot)  # noqa: S314 - our own
        lines = [g for g in root.iter("{http://www.w3.org/2000/svg}g") if g.get("data-series")]
        assert [line.get("data-series") for line in lines] == ["blend", "flow", "warp"]
        assert "var(--m3)" in plot
        assert not re.search(r"#0[123]0[0-9]", plot)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_keys_that_are_not_exact_are_reported(entries, tmp_path):
    metrics = {**entries[0].metrics, "keys": {"count": 7, "exact": 5}}
    write_report(tmp_path, [replace(entries[0], metrics=metrics)], **OPTIONS)
    assert "2 of 7 key frames are NOT exact" in (tmp_path / "index.html").read_text()
