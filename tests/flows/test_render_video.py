"""`inbetween render` as a user meets it; the fast methods here, warp with real people on the real footage."""

import os
import shutil
import signal
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.render_options import RenderOptions, read_pace, work_folder
from flows.render_video import render_video
from models.renderer.methods import available_base
from tasks.errors import InbetweenError, ParamsError
from tasks.video import probe_video, read_frames
from tests.sandbox import BIN, FOOTAGE, ROOT, needs_footage
from tests.tasks.video_samples import FFMPEG, add_sound, ball, decode, ffmpeg, sound_packets, write_video


def options(rate=None, fps=None, slow=None, **changes):
    chosen = {
        "method": "blend", "motion": "learned", "base": "flow", "background": "warp", "device": "cpu",
        "motion_model": None, "renderer": None, "audio": None, "frames": None, "crf": 10, "workers": 1,
        "overwrite": False,
    } | changes  # fmt: skip
    return RenderOptions(pace=read_pace(rate, fps, slow), **chosen)


def rows_of(path):
    return pq.read_table(path.with_suffix(".parquet")).to_pylist()


def other_scene(number):
    """Nothing in common with `ball`: stripes that stand."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, number % 2 :: 8] = 255
    image[::6] = (0, 0, 255)
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """12 frames at 25 fps with sound."""
    folder = tmp_path_factory.mktemp("clip")
    silent = write_video(folder / "silent.mp4", [ball(n) for n in range(12)], range(0, 12 * 512, 512))
    return add_sound(silent, folder / "clip.mp4", 0.48, "aac")


def test_rate_keeps_every_frame_to_the_bit_and_the_sound(clip, tmp_path):
    out, folder = tmp_path / "out.mp4", tmp_path / "frames"
    render_video(clip, out, options(rate=4, frames=folder))
    frames = decode(out)
    assert [time_s for time_s, _ in frames] == pytest.approx([n / 100 for n in range(48)])
    rows = rows_of(out)
    assert [row["frame"] for row in rows] == list(range(48))
    assert [row["time"] for row in rows] == pytest.approx([n / 100 for n in range(48)])
    assert [row["origin"] for row in rows] == ["original", "generated", "generated", "generated"] * 12
    assert {row["method"] for row in rows[:44]} == {"", "blend"}
    assert [row["method"] for row in rows[44:]] == ["", "hold", "hold", "hold"]
    assert [(row["source_frame"], row["key_before"], row["key_after"]) for row in rows[4:6]] == [(1, 1, 1), (1, 1, 2)]
    assert len(list(folder.iterdir())) == 48
    for frame in read_frames(clip, range(12), None, FFMPEG):
        assert np.array_equal(cv2.imread(str(folder / f"frame_{4 * frame.frame:06d}.png")), frame.image_HWC)
    assert [data for _, data in sound_packets(out)[1]] == [data for _, data in sound_packets(clip)[1]]
    assert not work_folder(out).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out.mp4", "out.parquet"]


def test_slow_motion_and_target_rates(clip, tmp_path):
    render_video(clip, tmp_path / "slow.mp4", options(slow=8))
    assert [time_s for time_s, _ in decode(tmp_path / "slow.mp4")] == pytest.approx([n / 25 for n in range(96)])
    assert sound_packets(tmp_path / "slow.mp4") is None
    rows = rows_of(tmp_path / "slow.mp4")
    assert rows[9]["time"] == pytest.approx(9 / 25)
    assert rows[9]["source_time"] == pytest.approx(9 / 25 / 8)
    render_video(clip, tmp_path / "stretched.mkv", options(slow=3, audio="stretch"))
    assert sound_packets(tmp_path / "stretched.mkv")[1][-1][0] == pytest.approx(3 * 0.48, abs=0.1)
    render_video(clip, tmp_path / "sixty.mov", options(fps="60"))
    frames = decode(tmp_path / "sixty.mov")
    assert [time_s for time_s, _ in frames] == pytest.approx([n / 60 for n in range(29)], abs=1e-3)
    assert [row["frame"] for row in rows_of(tmp_path / "sixty.mov") if row["origin"] == "original"] == [0, 12, 24]


def test_a_variable_rate_keeps_its_times_and_a_turned_picture_is_upright(tmp_path):
    ticks = np.cumsum([0, 300, 900, 512, 512, 1800, 256, 512])
    source = write_video(tmp_path / "flat.mp4", [ball(n) for n in range(8)], ticks.tolist())
    ffmpeg("-display_rotation", 90, "-i", source, "-c", "copy", tmp_path / "turned.mp4")
    render_video(tmp_path / "turned.mp4", tmp_path / "out.mp4", options(rate=2))
    frames = decode(tmp_path / "out.mp4")
    assert [time_s for time_s, _ in frames[::2]] == pytest.approx((ticks / 12800).tolist())
    assert [time_s for time_s, _ in frames[1:-1:2]] == pytest.approx(((ticks[1:] + ticks[:-1]) / 25600).tolist())
    info = probe_video(tmp_path / "out.mp4")
    assert (info.width, info.height, info.rotation_deg) == (64, 96, 0)
    assert np.abs(frames[4][1].astype(int) - np.rot90(ball(2))).mean() < 4


def test_nothing_is_made_across_a_cut(tmp_path):
    pictures = [ball(n) for n in range(6)] + [other_scene(0) for _ in range(6)]
    source = write_video(tmp_path / "in.mp4", pictures, range(0, 12 * 512, 512))
    out = tmp_path / "out.mp4"
    render_video(source, out, options(rate=4, frames=tmp_path / "frames"))
    rows = rows_of(out)
    assert [row["frame"] for row in rows if row["is_cut"]] == [20, 21, 22, 23]
    at_cut = rows[21:24]
    assert [(row["method"], row["source_frame"]) for row in at_cut] == [("hold", 5), ("hold", 5), ("hold", 6)]
    shown = [cv2.imread(str(tmp_path / "frames" / f"frame_{n:06d}.png")) for n in range(20, 25)]
    assert np.array_equal(shown[1], shown[0])
    assert np.array_equal(shown[2], shown[0])
    assert np.array_equal(shown[3], shown[4])


def test_odd_sizes_and_other_containers(tmp_path):
    pictures = [ball(n, 97, 65) for n in range(6)]
    source = write_video(tmp_path / "in.mkv", pictures, range(0, 6 * 512, 512))
    sound = add_sound(source, tmp_path / "sound.mkv", 0.24, "libopus")
    render_video(sound, tmp_path / "out.mp4", options(rate=2, frames=tmp_path / "frames"))
    assert decode(tmp_path / "out.mp4")[0][1].shape == (66, 98, 3)
    assert cv2.imread(str(tmp_path / "frames" / "frame_000000.png")).shape == (65, 97, 3)
    assert sound_packets(tmp_path / "out.mp4")[0] == "aac"
    render_video(sound, tmp_path / "out2.mkv", options(rate=2))
    assert sound_packets(tmp_path / "out2.mkv")[0] == "opus"


def refusal(source, target, chosen):
    with pytest.raises(InbetweenError) as caught:
        render_video(source, target, chosen)
    assert "\n" not in str(caught.value)
    assert not work_folder(target).exists() or target.exists()
    return str(caught.value)


def test_what_cannot_be_rendered_is_said_in_a_line(clip, tmp_path):
    out = tmp_path / "out.mp4"
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello\n" * 99)
    (tmp_path / "short.mp4").write_bytes(clip.read_bytes()[:3000])
    ffmpeg("-i", clip, "-vn", tmp_path / "sound.m4a")
    write_video(tmp_path / "one.mp4", [ball(0)], [0])
    long = write_video(tmp_path / "long.mkv", [ball(n) for n in range(40)], range(0, 40 * 512, 512))
    (tmp_path / "cut.mkv").write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    assert "no such file" in refusal(tmp_path / "none.mp4", out, options())
    assert "an empty file" in refusal(tmp_path / "empty.mp4", out, options())
    assert "not a video" in refusal(tmp_path / "text.mp4", out, options())
    assert "get the file again" in refusal(tmp_path / "short.mp4", out, options())
    assert "cut short: ends after" in refusal(tmp_path / "cut.mkv", out, options())
    assert "no video stream" in refusal(tmp_path / "sound.m4a", out, options())
    assert "has 1 frame" in refusal(tmp_path / "one.mp4", out, options())
    assert "make it first" in refusal(clip, tmp_path / "none" / "out.mp4", options())
    assert "is a folder; name a video" in refusal(tmp_path, out, options())
    if Path("/proc").is_dir():  # where nobody may make a file, root neither
        assert "nothing can be written there" in refusal(clip, Path("/proc/out.mp4"), options())
        assert "/proc/frames: nothing can be" in refusal(clip, out, options(frames=Path("/proc/frames")))
    assert "end it in .mp4" in refusal(clip, tmp_path / "out.avi", options())
    assert "neural needs" in refusal(clip, out, options(method="neural"))
    for option, kind in (("renderer", "tangents"), ("motion_model", "generator")):
        (tmp_path / kind).mkdir()
        chosen = {option: tmp_path / kind, "method": "neural" if option == "renderer" else "warp", "motion": "learned"}
        assert "holds no checkpoint" in refusal(clip, out, options(**chosen))
        (tmp_path / kind / "config.json").write_text(f'{{"network": "{kind}"}}')
        (tmp_path / kind / "model.safetensors").touch()
        assert f"holds a network {kind}; needed is " in refusal(clip, out, options(**chosen))
    if available_base("rife") == "rife":
        said = refusal(clip, out, options(method="rife", device="cuda"))
        assert said == "--device cuda: torch finds no GPU here; use cpu"
    assert "only --slow" in refusal(clip, out, options(audio="stretch"))
    assert "is not empty" in refusal(clip, out, options(frames=tmp_path))
    assert "is the input itself" in refusal(tmp_path / "one.mp4", tmp_path / "one.mp4", options())
    for given in ({"rate": 2, "slow": 2}, {"fps": "fast"}, {"fps": "0"}):
        with pytest.raises(ParamsError):
            options(**given)


def test_a_file_that_exists_is_replaced_only_when_asked(clip, tmp_path):
    out = tmp_path / "out.mp4"
    out.write_text("mine")
    assert "add --overwrite" in refusal(clip, out, options())
    assert out.read_text() == "mine"
    render_video(clip, out, options(overwrite=True))
    assert len(decode(out)) == 24


def run(*words, cwd, check=True):
    env = {key: value for key, value in os.environ.items() if not key.startswith("INBETWEEN_")}
    command = [str(BIN / "inbetween"), "render", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=250)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_the_command_works_in_any_folder_and_touches_no_lock(clip, tmp_path):
    shutil.copy(clip, tmp_path / "my clip.mp4")
    before = (ROOT / "dvc.lock").read_bytes() if (ROOT / "dvc.lock").exists() else None
    done = run("my clip.mp4", "out.mp4", "--method", "blend", "--workers", "1", cwd=tmp_path)
    assert "12 original, 11 by blend, 1 repeated (after the last one); sound kept" in done.stderr
    assert len(decode(tmp_path / "out.mp4")) == 24
    assert before == ((ROOT / "dvc.lock").read_bytes() if before is not None else None)
    done = run("my clip.mp4", "out.mp4", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "inbetween render my clip.mp4: out.mp4: exists already; name another file, or add --overwrite\n"
    )


def test_killed_it_goes_on_and_gives_the_same_bytes(tmp_path):
    pictures = [ball(n, 160, 96) for n in range(40)]
    source = write_video(tmp_path / "in.mp4", pictures, range(0, 40 * 512, 512))
    words = ["--method", "flow", "--rate", "4", "--workers", "2"]
    command = [str(BIN / "inbetween"), "render", "in.mp4", "out.mp4", *words]
    killed = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    store = work_folder(tmp_path / "out.mp4") / "items"
    deadline = time.monotonic() + 200
    while not list(store.glob("*/[0-9a-f]*/segment.mp4")) and time.monotonic() < deadline:
        assert killed.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "out.mp4").exists()
    finished = list(store.glob("*/[0-9a-f]*/segment.mp4"))
    assert 1 <= len(finished) < 10
    time.sleep(1)  # what belonged to it ends
    done = run("in.mp4", "out.mp4", *words, cwd=tmp_path)
    assert "goes on with what an earlier run has finished" in done.stderr
    render_video(source, tmp_path / "whole.mp4", options(rate=4, method="flow", crf=None))
    for suffix in (".mp4", ".parquet"):
        assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not work_folder(tmp_path / "out.mp4").exists()


def test_work_of_other_settings_is_not_used(clip, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    work_folder(out).mkdir()
    (work_folder(out) / "key").write_text("another")
    (work_folder(out) / "items").mkdir()
    render_video(clip, out, options())
    assert "it is dropped" in capsys.readouterr().err
    assert len(decode(out)) == 24


@needs_footage
def test_a_person_is_warped_on_either_side_of_a_cut_and_nobody_is_the_bases(tmp_path, capsys):
    """Two views of a man at 7.5 fps, then the floor alone, where nobody is."""
    part = "fps=7.5,trim=end_frame=6,scale=180:320,setsar=1"
    ffmpeg(
        "-i", FOOTAGE / "kick_front.mp4", "-i", FOOTAGE / "kick_back.mp4", "-filter_complex",
        f"[0]{part}[a];[1]{part}[b];[0]crop=120:200:200:430,{part}[c];[a][b][c]concat=3", "-crf", "10",
        tmp_path / "in.mp4",
    )  # fmt: skip
    out = tmp_path / "out.mp4"
    render_video(tmp_path / "in.mp4", out, options(rate=2, method="warp"))
    rows = rows_of(out)
    assert [row["key_before"] for row in rows if row["is_cut"] and row["origin"] == "generated"] == [5, 11]
    methods = [row["method"] for row in rows if row["origin"] == "generated"]
    assert methods[:5] == ["warp"] * 5
    assert methods[6:11] == ["warp"] * 5
    assert methods[12:] == ["flow"] * 5 + ["hold"]
    assert max(row["posed_share"] for row in rows[:11]) > 0.01
    assert all(row["posed_share"] == 0 for row in rows[24:])
    said = capsys.readouterr().err
    assert "a person was found in 12 of 18 frames" in said
    assert "5 of them flow's: nobody is seen" in said


def test_a_rate_is_one_of_three():
    assert read_pace(None, None, None).value == 2
    assert read_pace(None, "59.94", None).value == Fraction(2997, 50)
    assert read_pace(None, "60000/1001", None).value == Fraction(60000, 1001)
