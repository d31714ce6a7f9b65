"""What the renderer is trained on: runs of neighbouring key frames, augmented alike in picture, joints and background.

Axes: B samples, S predicted frames, K keys of a clip, J joints (19), D (x px, y px, score 0..1), L limbs (18),
M lines of the person's mask, C channels, H, W. Pictures are PNG or BGR uint8 inside, RGB from -1 to 1 in a batch.
Joints are measured from the picture's corner (models.renderer.sizes).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.renderer.labels import LIMBS, MASK_LINES, LabelCanvas, draw_human_masks, draw_labels, draw_mask_lines
from models.skeleton import NUM_JOINTS

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_DRAW, _ORDER = 0, 1  # streams of random numbers under one seed
_LEVELS = (np.arange(256) / 255 * 2 - 1).astype(np.float32)  # of a byte in a batch


class SampleBatch(NamedTuple):
    """Runs of S + 2 key frames: the first gives the previous picture, the S after it are predicted one after the other,
    and the last is only what the background of the one before it was made from.

    previous_BCHW: (B, 3, H, W) the first frame.
    labels_BSCHW: (B, S, 22, H, W) as draw_labels.
    pictures_BSCHW, backgrounds_BSCHW: (B, S, 3, H, W) the truth, and what is painted over.
    person_BS1HW: (B, S, 1, H, W) 1 on the person, 0 elsewhere.
    """

    previous_BCHW: Tensor
    labels_BSCHW: Tensor
    pictures_BSCHW: Tensor
    backgrounds_BSCHW: Tensor
    person_BS1HW: Tensor


class ClipKeys(NamedTuple):
    """The key frames of one clip at model size.

    name: for messages.
    pictures, backgrounds: K PNG each; a background is None where there is none (the first and the last key).
    joints_px_KJD: (K, 19, 3); (0, 0, 0) = not seen.
    """

    name: str
    pictures: Sequence[bytes]
    backgrounds: Sequence[bytes | None]
    joints_px_KJD: FloatArray


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How samples vary. Shares and probabilities are 0..1; the paper's values stand in brackets.

    rotation_deg: up to this much both ways (10).  scale_share: (0.1).
    shift_share: one draw for both axes, of the width and of the height (0.0625).
    joint_drop_share: pose maps left empty (0.02).  limb_drop_share: limbs left out of the skeleton picture (0.02).
    sigmas_px: one of these for each pose map (4, 5).
    blur_share: lines of the person's mask in which the background is blurred (0.06).  blur_sigma_px: (10).
    held_out_share: of each clip's inner keys, the last ones, never trained on.
    cache_mb: decoded pictures kept, at most; shapes no value.
    """

    rotation_deg: float
    scale_share: float
    shift_share: float
    joint_drop_share: float
    limb_drop_share: float
    sigmas_px: tuple[float, ...]
    blur_share: float
    blur_sigma_px: float
    held_out_share: float
    cache_mb: int


class Variation(NamedTuple):
    """What is random in one sample.

    place_23: x' = A x + b for joints, px; one for all of its frames.
    sigma_px_SJ, is_dropped_SJ, is_drawn_SL: see draw_labels.  is_blurred_SM: the lines of MASK_LINES.
    """

    place_23: FloatArray
    sigma_px_SJ: FloatArray
    is_dropped_SJ: BoolArray
    is_drawn_SL: BoolArray
    is_blurred_SM: BoolArray


class KeySplit(NamedTuple):
    """training: keys that may be an input or a target of training. held_out: keys kept to judge by.

    A clip's last key is in neither where keys are held out: it is behind the background of the last of them.
    """

    training: range
    held_out: range


class Place(NamedTuple):
    """Where a sample begins: a clip's number, and the key that gives the previous picture."""

    clip: int
    first: int


def split_keys(num_keys: int, held_out_share: float) -> KeySplit:
    """Hold out the last inner keys of a clip: that share of them, at least one where the share is above 0.

    Inner keys are those between the first and the last; the others have no background.
    """
    num_inner = max(0, num_keys - 2)
    num_held_out = min(num_inner, max(1, round(held_out_share * num_inner))) if held_out_share > 0 else 0
    if not num_held_out:
        return KeySplit(range(num_keys), range(0))
    first = num_keys - 1 - num_held_out
    return KeySplit(range(first), range(first, num_keys - 1))


def vary(rng: np.random.Generator, settings: SampleSettings, num_frames: int, height: int, width: int) -> Variation:
    """Draw what is random in a sample of num_frames predicted frames of this size."""
    turn_rad = np.deg2rad(rng.uniform(-settings.rotation_deg, settings.rotation_deg))
    scale = 1 + rng.uniform(-settings.scale_share, settings.scale_share)
    shift = rng.uniform(-settings.shift_share, settings.shift_share)
    centre_px = np.array([width, height]) / 2
    turn_22 = scale * np.array([[np.cos(turn_rad), -np.sin(turn_rad)], [np.sin(turn_rad), np.cos(turn_rad)]])
    moved_px = centre_px - turn_22 @ centre_px + shift * np.array([width, height])
    return Variation(
        np.column_stack([turn_22, moved_px]),
        rng.choice(np.array(settings.sigmas_px, np.float64), (num_frames, NUM_JOINTS)),
        rng.random((num_frames, NUM_JOINTS)) < settings.joint_drop_share,
        rng.random((num_frames, len(LIMBS))) >= settings.limb_drop_share,
        rng.random((num_frames, len(MASK_LINES))) < settings.blur_share,
    )


def move_joints(joints_px: FloatArray, place_23: FloatArray) -> FloatArray:
    """Joints (..., 3) at their places in a picture moved alike; what was not seen stays (0, 0, 0)."""
    moved_px = joints_px[..., :2] @ place_23[:, :2].T + place_23[:, 2]
    return np.where(joints_px[..., 2:] > 0, np.concatenate([moved_px, joints_px[..., 2:]], axis=-1), 0.0)


def move_picture(image_HWC: UInt8Array, place_23: FloatArray) -> UInt8Array:
    """A picture turned, scaled and shifted once, bilinear, black outside; joints go where move_joints says."""
    height, width = image_HWC.shape[:2]
    centres_23 = place_23.copy()  # OpenCV counts from the first pixel's centre, half a pixel inside the corner
    centres_23[:, 2] += place_23[:, :2].sum(axis=1) / 2 - 0.5
    return np.asarray(cv2.warpAffine(image_HWC, centres_23, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def blur_lines(image_HWC: UInt8Array, joints_px_JD: FloatArray, is_blurred_M: BoolArray, sigma_px: float) -> None:
    """Blur a picture, in place, inside the chosen lines of the person's mask (those whose two joints count)."""
    if not is_blurred_M.any():
        return
    height, width = image_HWC.shape[:2]
    is_inside_HW = draw_mask_lines(joints_px_JD, height, width, is_blurred_M)
    left, top, box_width, box_height = cv2.boundingRect(is_inside_HW)
    if not box_width:
        return
    reach = int(np.ceil(3 * sigma_px))
    rows = slice(max(0, top - reach), top + box_height + reach)
    columns = slice(max(0, left - reach), left + box_width + reach)
    part_HWC = image_HWC[rows, columns]
    blurred_HWC = cv2.GaussianBlur(part_HWC, (2 * reach + 1, 2 * reach + 1), sigma_px)
    cv2.copyTo(blurred_HWC, is_inside_HW[rows, columns], part_HWC)


class RendererSamples:
    """Samples of one renderer, from its clips' key frames.

    Every number of a batch is a function of (seed, step, row in the batch) and of the data, never of what was drawn
    before: training that resumes at a step, or that shares a batch's rows among processes, sees what it would have.
    One thread may draw while another asks for held-out keys.
    Only what a step uses is decoded and drawn: of a run's first frame the picture alone, of its last nothing.
    """

    def __init__(self, clips: Sequence[ClipKeys], settings: SampleSettings, height: int, width: int) -> None:
        """Args: height, width: of the clips' pictures, px."""
        self._clips, self._settings = clips, settings
        self._height, self._width = height, width
        self._splits = [split_keys(len(clip.pictures), settings.held_out_share) for clip in clips]
        self._cache = _Cache(settings.cache_mb * 2**20)
        self._canvas: LabelCanvas | None = None
        self._canvas_frames = 0
        self._order: tuple[tuple[int, int, int], npt.NDArray[np.int64]] | None = None

    def places(self, num_frames: int) -> list[Place]:
        """Where a training sample of num_frames predicted frames may begin: none of its frames is held out."""
        return [
            Place(number, first)
            for number, split in enumerate(self._splits)
            for first in range(len(split.training) - num_frames - 1)
        ]

    def draw(
        self, seed: int, step: int, batch_size: int, num_frames: int, rows: Sequence[int] | None = None
    ) -> SampleBatch:
        """The batch of one training step. Every place comes once before one comes again, in an order that is random.

        Args:
            seed, step: 0 or more.
            num_frames: predicted frames of a sample.
            rows: of the batch, those wanted; None = all of it.
        Returns: a sample a row. Its labels lie in memory that the next call of `draw` writes over.
        Raises: ValueError where no clip is long enough, or a picture is damaged.
        """
        chosen = self.choose(seed, step, batch_size, num_frames, rows)
        return self._make([place for place, _ in chosen], num_frames, [varied for _, varied in chosen])

    def choose(
        self, seed: int, step: int, batch_size: int, num_frames: int, rows: Sequence[int] | None = None
    ) -> list[tuple[Place, Variation]]:
        """What `draw` draws, without drawing it."""
        places = self.places(num_frames)
        if not places:
            raise ValueError(f"no clip has {num_frames + 2} training keys in a row; take fewer frames or more clips")
        chosen = []
        for row in range(batch_size) if rows is None else rows:
            epoch, at = divmod(step * batch_size + row, len(places))
            place = places[int(self._shuffle(seed, epoch, len(places))[at])]
            rng = _generator(seed, _DRAW, row, step)
            chosen.append((place, vary(rng, self._settings, num_frames, self._height, self._width)))
        return chosen

    def held_out(self, num_frames: int) -> Iterator[tuple[Place, SampleBatch]]:
        """The held-out keys as they are, in runs of at most num_frames: batches of one, labels as for rendering.

        A run's first frame, which gives the previous picture, is the key before it.
        """
        for number, split in enumerate(self._splits):
            for start in split.held_out[::num_frames]:
                length = min(num_frames, split.held_out.stop - start)
                place = Place(number, start - 1)
                yield place, self._evaluation(place, length)

    def _shuffle(self, seed: int, epoch: int, num_places: int) -> npt.NDArray[np.int64]:
        key = (seed, epoch, num_places)
        if self._order is None or self._order[0] != key:
            self._order = (key, _generator(seed, _ORDER, 0, epoch).permutation(num_places))
        return self._order[1]

    def _evaluation(self, place: Place, num_frames: int) -> SampleBatch:
        key = ("run", *place, num_frames)
        found = self._cache.get(key)
        if not isinstance(found, SampleBatch):
            found = self._make([place], num_frames, None)
            self._cache.put(key, found, sum(tensor.nbytes for tensor in found))
        return found

    def _make(self, places: Sequence[Place], num_frames: int, variations: Sequence[Variation] | None) -> SampleBatch:
        """variations: one a place; None = nothing varies."""
        height, width = self._height, self._width
        size = (len(places), num_frames)
        previous_BCHW = np.empty((len(places), 3, height, width), np.float32)
        pictures_BSCHW, backgrounds_BSCHW = (np.empty((*size, 3, height, width), np.float32) for _ in range(2))
        joints_px_BSJD = np.empty((*size, NUM_JOINTS, 3))
        for b, place in enumerate(places):
            clip = self._clips[place.clip]
            varied = variations[b] if variations else None
            predicted = range(place.first + 1, place.first + 1 + num_frames)
            joints_px_SJD = clip.joints_px_KJD[predicted.start : predicted.stop]
            joints_px_BSJD[b] = joints_px_SJD if varied is None else move_joints(joints_px_SJD, varied.place_23)
            _write_picture(self._picture(place.clip, place.first, varied), previous_BCHW[b])
            for s, key in enumerate(predicted):
                _write_picture(self._picture(place.clip, key, varied), pictures_BSCHW[b, s])
                background_HWC = self._picture(place.clip, key, varied, is_background=True)
                if varied is not None:
                    blur_lines(
                        background_HWC, joints_px_BSJD[b, s], varied.is_blurred_SM[s], self._settings.blur_sigma_px
                    )
                _write_picture(background_HWC, backgrounds_BSCHW[b, s])
        joints_px_TJD = joints_px_BSJD.reshape(-1, NUM_JOINTS, 3)
        person_THW = draw_human_masks(joints_px_TJD, height, width).astype(np.float32)
        labels_TCHW = self._draw_labels(joints_px_TJD, variations)
        return SampleBatch(
            torch.from_numpy(previous_BCHW),
            torch.from_numpy(labels_TCHW.reshape(*size, *labels_TCHW.shape[1:])),
            torch.from_numpy(pictures_BSCHW),
            torch.from_numpy(backgrounds_BSCHW),
            torch.from_numpy(person_THW.reshape(*size, 1, height, width)),
        )

    def _draw_labels(
        self, joints_px_TJD: FloatArray, variations: Sequence[Variation] | None
    ) -> npt.NDArray[np.float32]:
        if variations is None:
            return draw_labels(joints_px_TJD, self._height, self._width)
        if self._canvas is None or self._canvas_frames < len(joints_px_TJD):
            self._canvas, self._canvas_frames = None, len(joints_px_TJD)  # the old one's memory goes first
            self._canvas = LabelCanvas(len(joints_px_TJD), self._height, self._width)
        return self._canvas.draw_labels(
            joints_px_TJD,
            sigma_px_TJ=np.concatenate([varied.sigma_px_SJ for varied in variations]),
            is_dropped_TJ=np.concatenate([varied.is_dropped_SJ for varied in variations]),
            is_drawn_TL=np.concatenate([varied.is_drawn_SL for varied in variations]),
        )

    def _picture(self, number: int, key: int, varied: Variation | None, *, is_background: bool = False) -> UInt8Array:
        """A key's picture, or its background, moved where something varies; then it may be written to."""
        name = (is_background, number, key)
        image_HWC = self._cache.get(name)
        if not isinstance(image_HWC, np.ndarray):
            image_HWC = self._decode(number, key, is_background)
            self._cache.put(name, image_HWC, image_HWC.nbytes)
        return image_HWC if varied is None else move_picture(image_HWC, varied.place_23)

    def _decode(self, number: int, key: int, is_background: bool) -> UInt8Array:
        clip = self._clips[number]
        what = f"clip {clip.name}: the {'background' if is_background else 'picture'} of key {key}"
        data = (clip.backgrounds if is_background else clip.pictures)[key]
        if data is None:
            raise ValueError(f"{what} is missing")
        image_HWC = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if image_HWC is None:
            raise ValueError(f"{what} is damaged")
        if image_HWC.shape != (self._height, self._width, 3):
            raise ValueError(f"{what} has shape {image_HWC.shape}, not {(self._height, self._width, 3)}")
        return np.asarray(image_HWC, np.uint8)


def _generator(seed: int, stream: int, row: int, at: int) -> np.random.Generator:
    """Random numbers of their own for every (seed, stream, row, at): Philox counts up from the place that is given."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, row, at]))


def _write_picture(image_HWC: UInt8Array, out_CHW: npt.NDArray[np.float32]) -> None:
    """BGR bytes as RGB from -1 to 1."""
    for channel, plane_HW in enumerate(reversed(cv2.split(image_HWC))):
        cv2.LUT(plane_HW, _LEVELS, dst=out_CHW[channel])


class _Cache:
    """Things by name, the latest used, as many as fit into max_bytes. Several threads may use it.

    Batches are drawn ahead by a thread, while held-out keys are asked for by another.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._entries: OrderedDict[tuple[object, ...], tuple[object, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, name: tuple[object, ...]) -> object:
        with self._lock:
            if name not in self._entries:
                return None
            self._entries.move_to_end(name)
            return self._entries[name][0]

    def put(self, name: tuple[object, ...], value: object, num_bytes: int) -> None:
        with self._lock:
            if num_bytes > self._max_bytes or name in self._entries:
                return
            self._entries[name] = (value, num_bytes)
            self._num_bytes += num_bytes
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._entries.popitem(last=False)[1][1]
