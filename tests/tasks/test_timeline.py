from fractions import Fraction

import numpy as np
import pytest

from tasks.errors import VideoError
from tasks.timeline import Pace, Timeline, check_ticks, find_shots

MS = Fraction(1, 1000)


def timeline(ticks, kind, value, base=MS, last=None):
    ticks = np.array(ticks, np.int64)
    return Timeline(ticks, base, int(ticks[-1] - ticks[-2]) if last is None else last, Pace(kind, Fraction(value)))


def everything(line):
    return [moment for key in range(line.num_keys) for moment in line.moments(key)]


def seconds(line, moments):
    return [float(moment.tick * line.out_base) for moment in moments]


def test_a_rate_puts_frames_evenly_into_every_gap_of_a_variable_rate():
    line = timeline([100, 200, 500], "rate", 4, last=200)
    moments = everything(line)
    assert line.num_frames == len(moments) == 12
    assert [moment.frame for moment in moments] == list(range(12))
    expected = [0.1, 0.125, 0.15, 0.175, 0.2, 0.275, 0.35, 0.425, 0.5, 0.55, 0.6, 0.65]
    assert seconds(line, moments) == pytest.approx(expected)
    assert [moment.share for moment in moments] == [0, 0.25, 0.5, 0.75] * 3
    assert float(line.end_tick * line.out_base) == pytest.approx(0.7)
    assert line.out_fps == 4 * Fraction(2, 400) * 1000


def test_slow_motion_makes_the_same_frames_in_a_longer_time():
    line = timeline([0, 40, 80], "slow", 8)
    assert line.num_frames == 24
    assert line.out_fps == 25
    assert seconds(line, everything(line)) == pytest.approx([n * 0.04 for n in range(24)])
    assert float(line.end_tick * line.out_base) == pytest.approx(24 * 0.04)


def test_a_target_rate_is_even_and_meets_the_keys_that_lie_on_it():
    # 25 fps to 60: 12 frames for every 5 keys, the first of them a key.
    line = timeline(range(0, 400, 40), "fps", 60)
    moments = everything(line)
    assert line.num_frames == len(moments) == 24
    assert seconds(line, moments) == pytest.approx([n / 60 for n in range(24)])
    assert [moment.frame for moment in moments if moment.share == 0] == [0, 12]
    assert moments[1].share == pytest.approx(1 / 60 / 0.04)
    assert [len(line.moments(key)) for key in range(5)] == [3, 2, 3, 2, 2]


def test_a_target_rate_takes_keys_whose_times_are_rounded():
    # 30 fps in whole milliseconds, to 60: every other frame is a key, though 33 ms is no multiple of 1/60 s.
    line = timeline([0, 33, 67, 100, 133, 167], "fps", 60)
    shares = [moment.share for moment in everything(line)]
    assert len(shares) == 12
    assert [n for n, share in enumerate(shares) if share == 0] == [0, 2, 4, 6, 8, 10]
    assert all(0.4 < share < 0.6 for share in shares[1::2])


def test_a_target_rate_may_be_lower_and_may_be_broken():
    line = timeline(range(0, 1000, 40), "fps", 10)  # one second at 25 fps
    assert seconds(line, everything(line)) == pytest.approx([n / 10 for n in range(10)])
    assert [len(line.moments(key)) for key in range(6)] == [1, 0, 1, 0, 0, 1]
    line = timeline(range(0, 1000, 40), "fps", Fraction(24000, 1001))
    assert line.num_frames == 24
    assert seconds(line, everything(line)) == pytest.approx([n * 1001 / 24000 for n in range(24)])
    assert 0.98 < float(line.end_tick * line.out_base) < 1.02


def test_first_frames_agree_with_moments_at_any_times():
    rng = np.random.default_rng(5)
    ticks = np.cumsum(rng.integers(1, 90, 200))
    for kind, value in (("fps", 60), ("fps", Fraction(30000, 1001)), ("fps", 7), ("rate", 3), ("slow", 5)):
        line = timeline(ticks, kind, value)
        moments = everything(line)
        assert [moment.frame for moment in moments] == list(range(line.num_frames))
        for key in range(line.num_keys):
            assert [moment.frame for moment in line.moments(key)[:1]] in ([], [line.first_frame(key)])
        assert all(0 <= moment.share < 1 for moment in moments)
        assert (np.diff([moment.tick for moment in moments]) > 0).all()
        assert line.end_tick > moments[-1].tick


def test_chunks_cover_every_gap_once_and_hold_few_frames():
    line = timeline(range(0, 400_000, 40), "rate", 4)
    chunks = line.chunks(50)
    assert [key for chunk in chunks for key in chunk] == list(range(10_000))
    assert {len(chunk) for chunk in chunks[:-1]} == {24}  # 96 frames
    assert max(len(chunk) for chunk in line.chunks(10)) == 9  # and the key after
    short = timeline(range(0, 480, 40), "rate", 4).chunks(50)
    assert [len(chunk) for chunk in short] == [4, 4, 4]


def test_frames_that_do_not_follow_one_another_are_refused():
    with pytest.raises(VideoError, match="has 1 frame"):
        check_ticks("a.mp4", np.array([5]))
    with pytest.raises(VideoError, match=r"a.mp4: frame 2 is not shown after frame 1"):
        check_ticks("a.mp4", np.array([0, 5, 5]))


def test_shots_lie_between_cuts():
    assert find_shots(np.array([False, True, False, True])) == [range(2), range(2, 4), range(4, 5)]
    assert find_shots(np.zeros(3, bool)) == [range(4)]
