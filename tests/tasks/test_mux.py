from fractions import Fraction

import av
import numpy as np
import pytest

from tasks.mux import Sound, convert_sound, is_copied, join_video
from tasks.video import write_mp4
from tests.tasks.video_samples import FFMPEG, add_sound, ball, decode, sound_packets, write_video

TICK = Fraction(1, 9000)


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segments")
    paths = []
    for number, (first, end) in enumerate([(0, 11), (11, 12), (12, 30)]):
        paths.append(folder / f"{number}.mp4")
        write_mp4(paths[-1], [ball(n) for n in range(first, end)], Fraction(30), 10, FFMPEG)
    return paths


def join(path, segments, ticks, sounds=(), container="mp4", aspect=Fraction(1)):
    told = []
    ticks = np.array(ticks, np.int64)
    end = int(ticks[-1] + 450)
    join_video(path, container, segments, ticks, end, TICK, aspect, sounds, told.append)
    assert sum(told) == len(ticks)
    return decode(path)


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
def test_segments_become_one_video_at_any_times(segments, tmp_path, container):
    ticks = np.cumsum(np.random.default_rng(1).integers(90, 900, 30)) + 500
    frames = join(tmp_path / "joined", segments, ticks, container=container)
    assert len(frames) == 30
    expected = (ticks - ticks[0]) / 9000  # the first frame begins the file
    tolerance = 1e-3 if container == "matroska" else 1e-9  # Matroska's times are milliseconds
    assert [time for time, _ in frames] == pytest.approx(expected, abs=tolerance)
    for number, (_, picture) in enumerate(frames):
        assert np.abs(picture.astype(int) - ball(number)).mean() < 3, number


def test_the_last_frame_is_shown_for_its_time(segments, tmp_path):
    join(tmp_path / "a.mp4", segments, np.arange(30) * 300)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx((29 * 300 + 450) / 9000, abs=1e-3)


def test_pixels_that_are_not_square_stay_so(segments, tmp_path):
    join(tmp_path / "a.mp4", segments, np.arange(30) * 300, aspect=Fraction(4, 3))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_sound_is_copied_bit_for_bit_where_the_container_holds_it(segments, tmp_path):
    source = write_video(tmp_path / "plain.mp4", [ball(n) for n in range(25)], range(0, 25 * 512, 512))
    source = add_sound(source, tmp_path / "in.mp4", 1.0, "aac")
    sounds = convert_sound(source, ["aac"], "mp4", 1, tmp_path, FFMPEG)
    assert sounds == [Sound(source, 0, 0.0)]
    join(tmp_path / "out.mp4", segments, np.arange(30) * 300, sounds)
    before, after = sound_packets(source), sound_packets(tmp_path / "out.mp4")
    assert after[0] == "aac"
    assert [data for _, data in after[1]] == [data for _, data in before[1]]
    assert [time for time, _ in after[1]] == pytest.approx([time for time, _ in before[1]], abs=1e-4)


def test_sound_moves_with_a_video_that_does_not_begin_at_zero(segments, tmp_path):
    source = write_video(tmp_path / "plain.mp4", [ball(n) for n in range(25)], range(0, 25 * 512, 512))
    source = add_sound(source, tmp_path / "in.mkv", 1.0, "aac")
    start = 2 * 9000
    join(tmp_path / "out.mp4", segments, start + np.arange(30) * 300, [Sound(source, 0, 2.0)])
    assert decode(tmp_path / "out.mp4")[0][0] == pytest.approx(0.0, abs=0.03)
    assert sound_packets(tmp_path / "out.mp4")[1][0][0] == pytest.approx(0.0, abs=0.03)


def test_other_sound_becomes_aac_and_slow_motion_stretches_it(tmp_path):
    source = write_video(tmp_path / "plain.mp4", [ball(n) for n in range(25)], range(0, 25 * 512, 512))
    source = add_sound(source, tmp_path / "in.mkv", 1.0, "libopus")
    assert is_copied("opus", "matroska")
    assert not is_copied("opus", "mp4")
    (sound,) = convert_sound(source, ["opus"], "mp4", 1, tmp_path, FFMPEG)
    name, packets = sound_packets(sound.path)
    assert name == "aac"
    assert packets[-1][0] == pytest.approx(1.0, abs=0.1)
    (sound,) = convert_sound(source, ["opus"], "mp4", 6, tmp_path, FFMPEG)
    assert sound_packets(sound.path)[1][-1][0] == pytest.approx(6.0, abs=0.2)
