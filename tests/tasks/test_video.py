import re
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from tasks import video
from tasks.errors import ToolError, VideoError
from tasks.video import Crop, ffmpeg_path, probe_video, read_frames, resize_image, write_mp4

FFMPEG = ffmpeg_path("pinned")
WIDTH, HEIGHT = 96, 64
TICKS = Fraction(1, 15360)


def numbered_picture(number, width=WIDTH, height=HEIGHT):
    """A picture that says its number: eight black or white columns, bit 0 left; the top quarter red."""
    columns = np.arange(width) * 8 // width
    image = np.repeat(((number >> columns) & 1)[None, :, None] * np.uint8(255), height, axis=0)
    image = np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)), dtype=np.uint8)
    image[: height // 4] = (0, 0, 255)
    return image


def read_number(image):
    """The number of a numbered picture, upright."""
    height, width = image.shape[:2]
    row = image[height * 5 // 8, :, 1]
    return sum(1 << bit for bit in range(8) if row[int((bit + 0.5) * width / 8)] > 127)


def encode(path, ticks, b_frames=0, width=WIDTH, height=HEIGHT):
    """A video of numbered pictures, muxed by PyAV with these presentation times."""
    options = {"bf": str(b_frames), "b_strategy": "0", "crf": "12", "g": "12", "preset": "veryfast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TICKS
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, width, height), "bgr24")
            frame.pts, frame.time_base = tick, TICKS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source, target, *options, before=()):
    subprocess.run([FFMPEG, "-v", "error", "-y", *before, "-i", source, *options, "-c", "copy", target], check=True)
    return target


def decode_with_pyav(path):
    with av.open(str(path)) as container:
        return [
            (frame.time, np.rot90(frame.to_ndarray(format="bgr24"), frame.rotation // 90))
            for frame in container.decode(video=0)
        ]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    regular = [number * 512 for number in range(60)]
    irregular = [int(tick) for tick in np.cumsum(np.random.default_rng(3).integers(90, 2500, 60))]
    found = {
        "constant": encode(folder / "constant.mp4", regular),
        "b_frames": encode(folder / "b_frames.mp4", regular, b_frames=3),
        "variable": encode(folder / "variable.mp4", irregular, b_frames=2),
        "variable_mkv": encode(folder / "variable.mkv", irregular),
        "colon": encode(folder / "a:b %d.mp4", regular),
    }
    for degrees in (90, 180, 270):
        rotate = ("-display_rotation", str(degrees))
        found[f"rotated_{degrees}"] = remux(found["b_frames"], folder / f"{degrees}.mp4", before=rotate)
    # Starts between two key frames: the packets from the key frame on are there, hidden by the edit list.
    found["edit_list"] = remux(found["b_frames"], folder / "edit.mp4", before=("-ss", "0.51"))
    found["transport_stream"] = remux(found["b_frames"], folder / "stream.ts")
    return found


KINDS = ["constant", "b_frames", "variable", "variable_mkv", "colon", "rotated_90", "rotated_180", "rotated_270",
    "edit_list", "transport_stream"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_that_pyav_decodes(videos, kind):
    expected = decode_with_pyav(videos[kind])
    wanted = [0, 1, 2, 7, 11, 12, 13, 20, 23, 26, 29, len(expected) - 1]
    got = list(read_frames(videos[kind], wanted, None, FFMPEG))
    assert [frame.frame for frame in got] == wanted
    for frame in got:
        time_s, image = expected[frame.frame]
        assert frame.time_s == time_s
        assert frame.image_HWC.shape == image.shape
        # Neighbours differ by black to white in an eighth of the picture or more: a mean of 30.
        assert np.abs(frame.image_HWC.astype(int) - image).mean() < 3


@pytest.mark.parametrize("kind", ["constant", "b_frames", "variable", "variable_mkv", "colon"])
def test_frames_bear_the_number_that_was_drawn(videos, kind):
    got = read_frames(videos[kind], range(60), None, FFMPEG)
    assert [read_number(frame.image_HWC) for frame in got] == list(range(60))


def test_edit_list_hides_the_frames_before_its_start(videos):
    first = next(read_frames(videos["edit_list"], [0], None, FFMPEG))
    info = probe_video(videos["edit_list"])
    assert read_number(first.image_HWC) == 16  # 0.51 s x 30 = 15.3: the next frame
    assert info.num_frames == 44
    with av.open(str(videos["edit_list"])) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) > 44


def test_rotated_footage_is_upright_and_cropped_afterwards(videos):
    whole = next(read_frames(videos["rotated_90"], [5], None, FFMPEG)).image_HWC
    assert whole.shape == (WIDTH, HEIGHT, 3)
    # A quarter turn counter-clockwise brings the red top row to the left.
    assert whole[:, :10, 2].min() > 150
    crop = Crop(left=3, top=11, width=35, height=51)
    part = next(read_frames(videos["rotated_90"], [5], crop, FFMPEG)).image_HWC
    np.testing.assert_array_equal(part, whole[11 : 11 + 51, 3 : 3 + 35])


@pytest.mark.parametrize("kind", KINDS)
def test_probe_agrees_with_decoding(videos, kind):
    expected = decode_with_pyav(videos[kind])
    info = probe_video(videos[kind])
    assert info.num_frames == len(expected)
    assert (info.height, info.width) == expected[0][1].shape[:2]
    assert info.rotation_deg % 360 == int(kind.partition("_")[2]) if kind.startswith("rotated") else True
    measured_fps = (len(expected) - 1) / (expected[-1][0] - expected[0][0])
    assert float(info.average_fps) == pytest.approx(measured_fps, rel=0.011)
    last_s = expected[-1][0] - expected[0][0]
    assert last_s <= info.duration_s < last_s + 0.2
    assert (info.codec, info.has_audio) == ("h264", False)


def test_probe_keeps_the_exact_rate_and_sees_sound(tmp_path):
    path = tmp_path / "sound.mp4"
    sources = ["-f", "lavfi", "-i", "testsrc=r=30000/1001:s=64x48:d=1", "-f", "lavfi", "-i", "sine=d=1"]
    subprocess.run([FFMPEG, "-v", "error", *sources, str(path)], check=True)
    info = probe_video(path)
    assert info.average_fps == Fraction(30000, 1001)
    assert info.has_audio


def test_long_irregular_lists_are_read_exactly(tmp_path):
    path = encode(tmp_path / "long.mp4", [number * 512 for number in range(1500)], width=32, height=32)
    chosen = sorted(np.random.default_rng(1).choice(1500, 400, replace=False).tolist())
    assert len(video._ranges(chosen)) == video.MAX_SELECT_TERMS
    got = [(frame.frame, read_number(frame.image_HWC)) for frame in read_frames(path, chosen, None, FFMPEG)]
    assert got == [(number, number % 256) for number in chosen]


def test_ranges_hold_regular_lists_exactly():
    assert video._ranges([0, 1, 2, 10, 18, 26, 27, 90]) == [range(3), range(10, 27, 8), range(27, 91, 63)]
    assert video._ranges([7]) == [range(7, 8)]
    assert video._ranges([]) == []


def test_reading_twice_gives_the_same_bytes_and_no_frames_give_nothing(videos):
    first, second = (
        [frame.image_HWC.tobytes() for frame in read_frames(videos["b_frames"], [3, 30], None, FFMPEG)]
        for _ in range(2)
    )
    assert first == second
    assert list(read_frames(videos["b_frames"], [], None, FFMPEG)) == []


def test_frame_past_the_end_is_named(videos):
    reading = read_frames(videos["constant"], [58, 59, 60, 99], None, FFMPEG)
    assert [next(reading).frame, next(reading).frame] == [58, 59]
    with pytest.raises(VideoError, match=r"constant\.mp4: no frame 60: it has 60 frames, 0 to 59"):
        next(reading)


def test_unordered_numbers_and_a_crop_outside_are_refused(videos):
    for frames in ([1, 1], [2, 1], [-1, 0]):
        with pytest.raises(ValueError, match="must rise from 0"):
            read_frames(videos["constant"], frames, None, FFMPEG)
    with pytest.raises(VideoError, match=r"crop of 50x20 px at \(50, 0\) is not inside the picture of 96x64 px"):
        read_frames(videos["constant"], [0], Crop(50, 0, 50, 20), FFMPEG)
    with pytest.raises(VideoError, match="crop"):
        read_frames(videos["constant"], [0], Crop(0, 0, 0, 20), FFMPEG)


def make_damaged(kind, folder, videos):
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a film\n" * 40)
    elif kind == "index at the end lost":
        whole = videos["b_frames"].read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    elif kind == "only sound":
        subprocess.run([FFMPEG, "-v", "error", "-f", "lavfi", "-i", "sine=d=1", str(path)], check=True)
    elif kind == "ansi art":
        path = folder / "text.nfo"
        path.write_text("not a film\n" * 40)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "an empty file"),
        ("text", "not a video"),
        ("ansi art", "not a video"),
        ("index at the end lost", "cut short"),
        ("only sound", "no video stream"),
    ],
)
def test_what_is_no_video_is_one_line_with_its_path(videos, tmp_path, kind, reason):
    path = make_damaged(kind, tmp_path, videos)
    for use in (probe_video, lambda path: read_frames(path, [0], None, FFMPEG)):
        with pytest.raises(VideoError, match=reason) as caught:
            use(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at_packet_end", [False, True])
def test_a_video_cut_short_gives_the_frames_it_has_and_then_says_so(videos, tmp_path, at_packet_end):
    fast = remux(videos["constant"], tmp_path / "fast.mp4", "-movflags", "faststart")
    with av.open(str(fast)) as container:
        packet = list(container.demux(video=0))[30]
    end = packet.pos + (0 if at_packet_end else packet.size // 2)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(fast.read_bytes()[:end])
    with pytest.raises(VideoError, match=r"cut\.mp4: cut short (or damaged )?after 30 frames"):
        probe_video(cut)
    assert [frame.frame for frame in read_frames(cut, [0, 20], None, FFMPEG)] == [0, 20]
    with pytest.raises(VideoError, match="cut short"):
        list(read_frames(cut, [0, 40], None, FFMPEG))


def test_a_picture_that_changes_its_size_is_refused_there(tmp_path):
    small = encode(tmp_path / "small.ts", [number * 512 for number in range(10)])
    large = encode(tmp_path / "large.ts", [number * 512 for number in range(10, 20)], width=192, height=128)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    both = remux(joined, tmp_path / "both.ts")  # with the packets counted through
    assert len(list(read_frames(both, range(10), None, FFMPEG))) == 10
    with pytest.raises(VideoError, match=r"both\.ts: frame 10: the picture's size changes from 96x64"):
        list(read_frames(both, range(20), None, FFMPEG))


def test_a_damaged_frame_ends_the_reading_with_its_number(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 96, 3), dtype=np.uint8)
    path = tmp_path / "noise.mp4"
    write_mp4(path, noise, 30, 18, FFMPEG)
    with av.open(str(path)) as container:
        packets = sorted((p for p in container.demux(video=0) if p.size), key=lambda packet: packet.pts)
    damaged = bytearray(path.read_bytes())
    middle = packets[15]
    damaged[middle.pos + 40 : middle.pos + middle.size] = bytes(middle.size - 40)
    path.write_bytes(damaged)
    with pytest.raises(VideoError, match=r"noise\.mp4: frame \d+ of 30 does not decode \(.+\); get the file"):
        list(read_frames(path, range(30), None, FFMPEG))


def test_closing_the_iterator_ends_ffmpeg(videos):
    before = set(psutil.Process().children())
    reading = read_frames(videos["constant"], range(60), None, FFMPEG)
    next(reading)
    assert len(set(psutil.Process().children()) - before) == 1
    reading.close()
    assert set(psutil.Process().children()) <= before


def test_ffmpeg_ends_with_a_process_that_is_killed(tmp_path):
    path = encode(tmp_path / "long.mp4", [number * 512 for number in range(400)], width=320, height=240)
    script = (
        "import sys, time; from pathlib import Path; from tasks.video import read_frames\n"
        "reading = read_frames(Path(sys.argv[1]), range(400), None, sys.argv[2]); next(reading)\n"
        "print('reading', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(path), FFMPEG]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout.readline() == b"reading\n"
    (ffmpeg,) = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    # Whoever adopts it may never collect it: a zombie has ended too.
    deadline = time.monotonic() + 10
    while ffmpeg.is_running() and ffmpeg.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not ffmpeg.is_running() or ffmpeg.status() == psutil.STATUS_ZOMBIE


def test_resize_takes_the_mean_going_down_and_interpolates_going_up():
    image = numbered_picture(0b10101010)
    assert resize_image(image, WIDTH, HEIGHT) is image
    small = resize_image(image, WIDTH // 12, HEIGHT // 8)
    expected = image.reshape(8, 8, 8, 12, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small, expected, atol=0.51)
    assert resize_image(image, 100, 130).shape == (130, 100, 3)


def test_written_mp4_is_the_same_bytes_twice_and_names_no_version(tmp_path):
    for name in ("first.mp4", "second.mp4"):
        write_mp4(tmp_path / name, map(numbered_picture, range(40)), Fraction(60000, 1001), 18, FFMPEG)
    first = (tmp_path / "first.mp4").read_bytes()
    assert first == (tmp_path / "second.mp4").read_bytes()
    assert not re.search(rb"x264 - core|Lav[cf]\d", first)
    assert first.index(b"moov") < first.index(b"mdat")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.mp4", "second.mp4"]


def test_written_mp4_reads_back_with_its_rate_and_colours(tmp_path):
    path = tmp_path / "odd.mp4"
    write_mp4(path, (numbered_picture(n, 95, 63) for n in range(10)), 59.94005994, 4, FFMPEG)
    info = probe_video(path)
    assert (info.width, info.height, info.num_frames) == (96, 64, 10)
    assert info.average_fps == Fraction(60000, 1001)
    for frame in read_frames(path, range(10), None, FFMPEG):
        assert frame.time_s == pytest.approx(frame.frame * 1001 / 60000, abs=1e-9)
        assert read_number(frame.image_HWC) == frame.frame
        np.testing.assert_allclose(frame.image_HWC[4, 40], (0, 0, 255), atol=6)
        np.testing.assert_allclose(frame.image_HWC[:, 95].astype(int), frame.image_HWC[:, 94], atol=10)


def test_mp4_that_cannot_be_written_leaves_nothing(tmp_path):
    path = tmp_path / "a.mp4"

    def broken():
        yield numbered_picture(0)
        raise RuntimeError("from the caller")

    with pytest.raises(RuntimeError, match="from the caller"):
        write_mp4(path, broken(), 30, 18, FFMPEG)
    with pytest.raises(VideoError, match="no picture"):
        write_mp4(path, [], 30, 18, FFMPEG)
    with pytest.raises(VideoError, match=r"picture 1 is uint8 \(64, 40, 3\)"):
        write_mp4(path, [numbered_picture(0), numbered_picture(1, 40)], 30, 18, FFMPEG)
    with pytest.raises(VideoError, match="rate above 0"):
        write_mp4(path, [numbered_picture(0)], 0, 18, FFMPEG)
    with pytest.raises(VideoError, match=r"ffmpeg could not write it: .*No such file or directory"):
        write_mp4(tmp_path / "nowhere" / "a.mp4", [numbered_picture(0)] * 50, 30, 18, FFMPEG)
    with pytest.raises(ToolError, match="nowhere/ffmpeg: ffmpeg cannot be started"):
        write_mp4(path, [numbered_picture(0)], 30, 18, "nowhere/ffmpeg")
    assert list(tmp_path.iterdir()) == []


def test_missing_system_ffmpeg_is_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="no ffmpeg on PATH; install it"):
        ffmpeg_path("system")
