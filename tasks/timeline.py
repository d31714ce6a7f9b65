"""Which frames a rendered video has, and when: from the key frames' own times, whatever they are.

Times are counted in ticks, exactly. K keys; a gap is what lies between a key and the next one, the last key's gap what
is left of its own time on the screen.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.errors import VideoError

# Rendered frames of a chunk, more in a longer video: few enough that short ones are shared among processes and a kill
# costs at most a minute or two, many enough that the pieces, each with a key frame of H.264, stay small.
MIN_CHUNK_FRAMES, MAX_CHUNK_FRAMES, NUM_CHUNKS = 16, 96, 32
MAX_TICKS_PER_S = 10**9
MIN_TICKS_PER_S = 10_000
# A frame that is nearer to a key than this share of the new frames' distance is that key: sources round their times.
SAME_TIME = Fraction(1, 50)
MAX_SAME_TIME = Fraction(1, 4)


@dataclass(frozen=True)
class Pace:
    """rate: `value` times the frames in the same time.  slow: as many, in `value` times the time.
    fps: `value` frames a second in the same time, at even distances from the first key on.
    """

    kind: Literal["rate", "slow", "fps"]
    value: Fraction

    @property
    def stretch(self) -> int:
        """How many times longer the video becomes."""
        return int(self.value) if self.kind == "slow" else 1


class Moment(NamedTuple):
    """A frame of the rendered video.

    frame: its number, from 0.  tick: when it is shown, in Timeline.out_base.
    share: 0..1 from its gap's key to the next one, by time; 0 = the key itself.
    """

    frame: int
    tick: int
    share: float


@dataclass(frozen=True, eq=False)
class Timeline:
    """ticks_K: when each key is shown, in time_base (s), rising.  last_ticks: how long the last one is."""

    ticks_K: npt.NDArray[np.int64]
    time_base: Fraction
    last_ticks: int
    pace: Pace

    @property
    def num_keys(self) -> int:
        return len(self.ticks_K)

    @property
    def key_fps(self) -> Fraction:
        """Mean rate of the keys."""
        span = int(self.ticks_K[-1] - self.ticks_K[0])
        return (self.num_keys - 1) / (span * self.time_base)

    @property
    def out_fps(self) -> Fraction:
        """Mean rate of the rendered video, as it is played."""
        if self.pace.kind == "fps":
            return self.pace.value
        return self.key_fps * (self.pace.value if self.pace.kind == "rate" else 1)

    @cached_property
    def key_times_s(self) -> npt.NDArray[np.float64]:
        """Of the keys, s from the first one."""
        times: npt.NDArray[np.float64] = (self.ticks_K - self.ticks_K[0]) * float(self.time_base)
        return times

    @cached_property
    def out_base(self) -> Fraction:
        """Seconds in a tick of the rendered video: fine enough for every one of its times."""
        if self.pace.kind == "fps":
            numerator = self.pace.value.numerator
            return Fraction(1, numerator * -(-MIN_TICKS_PER_S // numerator))
        base = self.time_base / (self.pace.value if self.pace.kind == "rate" else 1)
        return base if base.denominator <= MAX_TICKS_PER_S else Fraction(1, MAX_TICKS_PER_S)

    @property
    def num_frames(self) -> int:
        return self.first_frame(self.num_keys)

    @property
    def end_tick(self) -> int:
        """When the rendered video's last frame ends."""
        if self.pace.kind == "fps":
            return self._fps_tick(self.num_frames)
        return self._tick(Fraction(int(self.ticks_K[-1]) + self.last_ticks))

    def first_frame(self, key: int) -> int:
        """The number of the first frame of a key's gap; of `num_keys`, how many frames there are."""
        if self.pace.kind != "fps":
            return key * int(self.pace.value)
        if key == 0:
            return 0
        end = self.ticks_K[key] if key < self.num_keys else self.ticks_K[-1] + self.last_ticks
        passed = int(end - self.ticks_K[0]) * self.time_base
        # Half of the tolerance would do for the end; but the last frame must not be nearer to it than to a key.
        number = math.ceil((passed - self._same_time) * self.pace.value)
        return max(number, 1) if key == self.num_keys else number

    def moments(self, key: int) -> list[Moment]:
        """The frames from a key to before the next one, in order; may be none where frames become fewer."""
        start = int(self.ticks_K[key])
        is_last = key == self.num_keys - 1
        length = self.last_ticks if is_last else int(self.ticks_K[key + 1]) - start
        first, end = self.first_frame(key), self.first_frame(key + 1)
        if self.pace.kind != "fps":
            count = end - first
            return [Moment(first + j, self._tick(start + Fraction(j * length, count)), j / count) for j in range(count)]
        found = []
        for number in range(first, end):
            after = number / self.pace.value - (start - int(self.ticks_K[0])) * self.time_base
            is_key = abs(after) <= self._same_time
            share = 0.0 if is_key else float(after / (length * self.time_base))
            found.append(Moment(number, self._fps_tick(number), share))
        return found

    @property
    def _same_time(self) -> Fraction:
        """Seconds."""
        return min(max(self.time_base, SAME_TIME / self.pace.value), MAX_SAME_TIME / self.pace.value)

    def _tick(self, source_ticks: Fraction) -> int:
        """source_ticks: in time_base. In slow motion all times are stretched alike, the first one too."""
        return round(source_ticks * self.time_base * self.pace.stretch / self.out_base)

    def _fps_tick(self, number: int) -> int:
        step = 1 / (self.pace.value * self.out_base)
        assert step.denominator == 1
        return round(int(self.ticks_K[0]) * self.time_base / self.out_base) + number * int(step)

    def chunks(self, max_keys: int) -> list[range]:
        """The gaps in runs, of at most max_keys keys (the one after the last gap counts).

        They depend on the video and the pace alone.
        """
        num_frames = min(max(self.num_frames / NUM_CHUNKS, MIN_CHUNK_FRAMES), MAX_CHUNK_FRAMES)
        length = max(1, min(int(num_frames * self.num_keys / self.num_frames), max_keys - 1))
        return [range(first, min(first + length, self.num_keys)) for first in range(0, self.num_keys, length)]


def check_ticks(path: object, ticks_K: npt.NDArray[np.int64]) -> None:
    """Raises: VideoError for a single frame, or frames that do not follow one another in time."""
    if len(ticks_K) < 2:
        raise VideoError(f"{path}: has {len(ticks_K)} frame; two are needed to make frames between them")
    for number, (before, after) in enumerate(pairwise(ticks_K.tolist())):
        if after <= before:
            raise VideoError(
                f"{path}: frame {number + 1} is not shown after frame {number}; re-encode it with a frame rate first"
            )


def find_shots(is_cut_G: npt.NDArray[np.bool_]) -> list[range]:
    """The keys of each shot; G gaps between K = G + 1 keys."""
    bounds = [0, *(np.flatnonzero(is_cut_G) + 1).tolist(), len(is_cut_G) + 1]
    return [range(first, end) for first, end in pairwise(bounds)]
