"""`inbetween catalog add` on real footage: a film with cuts, a part without a person, one that is there twice."""

import subprocess

import pytest

from tasks.catalog import read_catalog
from tasks.shots import Footage, watch
from tasks.video import ffmpeg_path
from tests.sandbox import FOOTAGE, Sandbox, copy_project, needs_footage

# Of the film, at 30 fps: kick_front 0-59; a wall and leaves without the man 60-99; kick_front 6-53 once more, brighter,
# with noise and compressed again, 100-147; kick_back at 24 fps, so that every fifth frame is repeated, 148-207.
PART = "scale=-2:360,pad=360:360:-1:-1,setsar=1"
FILTER = f"""
[0:v]split[k1][k2];
[k1]trim=end_frame=60,setpts=N/30/TB,{PART},fps=30[a];
[1:v]trim=end_frame=40,setpts=N/30/TB,crop=160:160:'10+n':0,scale=360:360,setsar=1,fps=30[b];
[k2]trim=start_frame=6:end_frame=54,setpts=N/30/TB,{PART},eq=brightness=0.04:contrast=1.05,noise=alls=4,fps=30[c];
[2:v]trim=end_frame=48,setpts=N/24/TB,{PART},fps=30[d];
[a][b][c][d]concat=n=4:v=1,format=yuv420p
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Sandbox:
    sandbox = copy_project(tmp_path_factory.mktemp("add") / "project")
    sources = [word for clip in ("kick_front", "walk_outdoor", "kick_back") for word in ("-i", f"{FOOTAGE / clip}.mp4")]
    output = ["-r", "30", "-c:v", "libx264", "-crf", "20", str(sandbox.root / "film.mp4")]
    subprocess.run(
        [ffmpeg_path("pinned"), "-v", "error", *sources, "-filter_complex", FILTER.replace("\n", ""), *output],
        check=True,
    )
    return sandbox


@needs_footage
def test_a_light_that_flickers_makes_neither_cuts_nor_repeated_frames():
    """Someone leaps through the low sun: the brightness of whole frames changes up and down."""
    watched = watch(Footage(FOOTAGE / "walk_outdoor.mp4", None), ffmpeg_path("pinned"))
    assert watched.change_T[165:190].max() > 10
    assert watched.shots == [(0, 229)]
    assert not watched.is_repeated_T.any()


@needs_footage
def test_clips_are_proposed_where_a_person_moves_and_each_once(sandbox):
    (sandbox.root / "cut.mp4").write_bytes((sandbox.root / "film.mp4").read_bytes()[:2000])
    said = sandbox.run("inbetween", "catalog", "add", "new", "cut.mp4", "film.mp4").stderr
    catalog = read_catalog(sandbox.root, "new")
    assert catalog.videos["film"].source == "file:film.mp4"
    assert catalog.videos["film"].num_frames == 208
    assert catalog.videos["film"].sha256
    first, second = catalog.clips.values()
    assert (first.clip, first.frames, first.split) == ("film_001", tuple(range(60)), "train")
    assert (second.clip, second.split) == ("film_002", "test")
    # The cut is found to the frame, and one in five frames goes: the rest are those of the source, each once.
    assert second.frames[0] == 148
    assert second.frames[-1] in (206, 207)
    assert 46 <= len(second.frames) <= 50
    assert (first.width, first.height) == (360, 360)

    assert "left out cut: " in said
    assert list(catalog.videos) == ["film"]
    assert "left out film 60-99: no person in" in said
    assert "left out film 100-147: shows the same as film 0-59" in said
    assert "inbetween ingest new" in said
    assert "batches:     new: {key_steps: [4]" in said

    checked = sandbox.run("inbetween", "catalog", "check", "new").stderr
    assert "catalog/new: 1 video, 1 train clip of 60 frames, 1 test clip of" in checked
    assert "video film: its licence is not stated" in checked
    again = sandbox.run("inbetween", "catalog", "add", "new", "film.mp4", check=False)
    assert again.returncode == 2
    assert "is there already" in again.stderr
