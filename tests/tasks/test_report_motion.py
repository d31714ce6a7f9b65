import json
import re
import xml.etree.ElementTree as ET

import pytest

from tasks.errors import TableError
from tasks.report import write_report
from tasks.report_media import Series
from tasks.report_motion import MAE as MAE_MEASURE
from tasks.report_motion import MORE_MEASURES, make_motion_section, make_score_table
from tasks.video import ffmpeg_path
from tests.tasks.motion_report_samples import MAE, motion_files, provenance, write_motion

OPTIONS = {
    "worst_frames": 0,
    "skipped": {},
    "commands": ["inbetween repro"],
    "media_height": 480,
    "sample_frames": 2,
    "ffmpeg": ffmpeg_path("pinned"),
    "workers": 1,
}


@pytest.fixture
def files(tmp_path):
    return write_motion(tmp_path / "data")


def write_page(folder, files):
    write_report(folder, [], motion=files, **OPTIONS)
    return (folder / "index.html").read_text()


def table_rows(html, caption):
    table = next(t for t in re.findall(r"<table class=\"scores\">.*?</table>", html, re.DOTALL) if caption in t)
    rows = re.findall(r'<th scope="row">(?:<i.*?</i>)?(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    return {name: re.findall(r'<td class="(.*?)">(.*?)</td>', cells) for name, cells in rows}


def test_table_shows_the_errors_of_the_json_and_marks_the_best(files, tmp_path):
    rows = table_rows(write_page(tmp_path / "report", files), "Mean absolute error")
    assert list(rows) == ["tangents", "linear", "robust"]  # the network first
    shown = {name: [text for _, text in cells] for name, cells in rows.items()}
    for method in shown:
        numbers = [MAE[step][condition][method] for step in (4, 16) for condition in ("clean", "noisy")]
        assert [float(text) / 100 for text in shown[method]] == pytest.approx(numbers)
    best = {name: ["best" in kind for kind, _ in cells] for name, cells in rows.items()}
    assert best == {
        "tangents": [True, True, False, True],
        "linear": [False] * 4,
        "robust": [False, False, True, False],
    }


def test_largest_errors_and_jerk_are_there_too(files, tmp_path):
    html = write_page(tmp_path / "report", files)
    assert table_rows(html, "Largest error")["linear"][0] == ("first", "4.00")
    jerk = table_rows(html, "Jerk")
    assert [text for _, text in jerk["tangents"]] == ["0.60", "0.80", "1.20", "1.73"]
    # Clean, every 4th: 0.60, 0.90 and 0.70; linear is nearest to the truth's own jerk.
    assert jerk["linear"][0] == ("first best", "0.90")


def test_numbers_that_show_the_same_are_all_best():
    series = [Series("a", 0), Series("b", 1), Series("c", 2)]
    scores = {8: {"clean": {"a": {"mae": 0.010001}, "b": {"mae": 0.010004}, "c": {"mae": 0.02}}}}
    table = make_score_table(MAE_MEASURE, scores, series)
    assert [row.cells[0] for row in table.rows] == [("1.000", True), ("1.000", True), ("2.000", False)]


def test_jerk_above_and_below_the_truths_is_measured_from_1():
    scores = {8: {"clean": {"a": {"jerk_ratio": 0.2}, "b": {"jerk_ratio": 1.5}}}}
    table = make_score_table(MORE_MEASURES[1], scores, [Series("a", 0), Series("b", 1)])
    assert [row.cells[0].is_best for row in table.rows] == [False, True]


def test_what_it_was_trained_and_tested_on_is_said(files, tmp_path):
    html = write_page(tmp_path / "report", files)
    assert "on 3 sequences, 1,234 frames, of test/dora, test/emil, whom training has not seen" in html
    trained = re.search(r'<p id="trained">(.*?)</p>', html).group(1)
    assert trained == (
        "The network, tangents, was trained for 40 steps on 2 sequences, 1,250 frames, of standin-train (Apache-2.0),"
        " going on from data/raw/embedded/start."
        " That start was trained for 9,000 steps on 1 sequence, 7 frames, of cmu (CMU&#39;s own)."
    )


def test_a_start_that_nothing_is_known_of_is_called_so(files, tmp_path):
    files.start_provenance.write_text("{}")
    assert make_motion_section(tmp_path, files).trained[1] == "Nothing says what that start was trained on."
    files.start_provenance.unlink()
    assert make_motion_section(tmp_path, files).trained[1] == "Nothing says what that start was trained on."
    imported = {"imported_from": {"checkpoint": {"file": "model_epoch399.pth"}}, "licence": "research only"}
    files.start_provenance.write_text(json.dumps(imported))
    last = make_motion_section(tmp_path, files).trained[1]
    assert last == "That start was imported from model_epoch399.pth (research only)."


def test_training_from_nothing_is_called_so(files, tmp_path):
    files.provenance.write_text(json.dumps(provenance(40, {"walk": 100}, "standin-train", "Apache-2.0")))
    (line,) = make_motion_section(tmp_path, files).trained
    assert line.endswith("(Apache-2.0), from nothing.")


def test_charts_are_drawn_in_the_pages_own_colours(files, tmp_path):
    html = write_page(tmp_path / "report", files)
    charts = re.findall(r'<div class="chart".*?(<svg.*?</svg>)', html, re.DOTALL)
    assert len(charts) == 4  # two conditions, two losses
    for chart in charts:
        ET.fromstring(chart)  # noqa: S314 - our own
        assert "var(--m3)" in chart
        assert not re.search(r"#0[123]0[0-9]", chart)
    assert [charts[0].count(f"var(--m{colour})") > 0 for colour in (0, 3, 4)] == [True] * 3
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_charts_of_every_condition_have_one_axis_and_higher_is_worse(files, tmp_path):
    clean, noisy = make_motion_section(tmp_path, files).charts
    ticks = [re.findall(r"<text[^>]*>([0-9.]+)</text>", chart.svg) for chart in (clean, noisy)]
    assert ticks[0] == ticks[1]
    assert ticks[0][:2] == ["4", "16"]


def test_what_is_minimised_is_the_first_curve(files, tmp_path):
    curves = make_motion_section(tmp_path, files).curves
    assert [(curve.title, curve.detail) for curve in curves] == [
        ("total", "what is minimised"),
        ("frames", "a part of it"),
    ]


def test_animation_lies_beside_the_page_and_can_be_played(files, tmp_path):
    html = write_page(tmp_path / "report", files)
    (video,) = re.findall(r"<video[^>]*>", html)
    assert 'src="media/motion.mp4"' in video
    assert {"controls", "loop", "muted"} <= set(video.split())
    assert (tmp_path / "report/media/motion.mp4").read_bytes() == files.animation.read_bytes()


def test_same_input_gives_the_same_bytes(files, tmp_path):
    assert write_page(tmp_path / "a", files) == write_page(tmp_path / "b", files)


def test_everything_missing_is_said_and_the_page_is_whole(tmp_path):
    html = write_page(tmp_path / "report", motion_files(tmp_path / "nothing"))
    for name, stage in {
        "motion.json": "evaluate_motion",
        "model/provenance.json": "train_motion",
        "curves": "train_motion",
        "motion.mp4": "evaluate_motion",
    }.items():
        assert re.search(rf"There is no \S*/{name}; run `inbetween stage {stage}`\.", html)
    assert "<video" not in html
    assert "</html>" in html


def test_one_file_missing_leaves_the_rest(files, tmp_path):
    files.metrics.unlink()
    section = make_motion_section(tmp_path, files)
    assert len(section.missing) == 1
    assert section.table is None
    assert section.curves
    assert section.trained
    assert section.animation


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics", "{"),
        ("metrics", '{"network": "tangents"}'),
        ("metrics", "[1]"),
        ("provenance", '{"network": "tangents"}'),
        ("start_provenance", "no JSON"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(files, tmp_path, name, content):
    path = getattr(files, name)
    path.write_text(content)
    with pytest.raises(TableError, match=re.escape(str(path))):
        make_motion_section(tmp_path, files)


@pytest.mark.parametrize("content", ["", "step\ttotal\n", "step\ttotal\n20\tmuch\n", "step\ttotal\n20\tnan\n"])
def test_a_curve_without_numbers_is_refused_by_name(files, tmp_path, content):
    (files.curves / "total.tsv").write_text(content)
    with pytest.raises(TableError, match=r"total\.tsv: is not what stage train_motion writes"):
        make_motion_section(tmp_path, files)


def test_words_from_outside_are_text_on_the_page(files, tmp_path):
    metrics = json.loads(files.metrics.read_text())
    text = json.dumps(metrics).replace("robust", "<script>alert(1)</script>")
    files.metrics.write_text(text)
    assert "<script>alert" not in write_page(tmp_path / "report", files)
