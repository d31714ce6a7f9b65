"""Training-free, pose-guided in-between frames: each bone carries its pixels from both keys to the pose at t.

Axes: K the two keys, H, W the region around the person, J joints (19), D (x, y) px, for joints (x, y, score).
Pictures are BGR uint8 HWC. Lengths are in torso lengths unless their name ends in px.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from models.distances import distance_px
from models.renderer.camera import FIXED, Homography, displacement, find_camera
from models.renderer.chooser import LEAST_MOTION, Chooser, Posed, load_chooser, measure
from models.renderer.flow import FlowPair, FlowResult
from models.renderer.keys import FloatArray, ImageArray, KeyPair, RenderedFrame
from models.skeleton import Joint, is_seen

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

Values = TypeVar("Values", Float32Array, ImageArray)

J = Joint


class Limb(NamedTuple):
    """A bone that carries pixels; width is the sigma of its pull."""

    start: Joint
    end: Joint
    width: float


LIMBS = (
    Limb(J.NECK, J.NOSE, 0.20),
    Limb(J.RIGHT_SHOULDER, J.RIGHT_ELBOW, 0.13),
    Limb(J.RIGHT_ELBOW, J.RIGHT_WRIST, 0.10),
    Limb(J.RIGHT_WRIST, J.RIGHT_HAND, 0.09),
    Limb(J.LEFT_SHOULDER, J.LEFT_ELBOW, 0.13),
    Limb(J.LEFT_ELBOW, J.LEFT_WRIST, 0.10),
    Limb(J.LEFT_WRIST, J.LEFT_HAND, 0.09),
    Limb(J.RIGHT_HIP, J.RIGHT_KNEE, 0.17),
    Limb(J.RIGHT_KNEE, J.RIGHT_ANKLE, 0.13),
    Limb(J.RIGHT_ANKLE, J.RIGHT_BIG_TOE, 0.09),
    Limb(J.LEFT_HIP, J.LEFT_KNEE, 0.17),
    Limb(J.LEFT_KNEE, J.LEFT_ANKLE, 0.13),
    Limb(J.LEFT_ANKLE, J.LEFT_BIG_TOE, 0.09),
)
TRUNK = (J.RIGHT_SHOULDER, J.LEFT_SHOULDER, J.LEFT_HIP, J.RIGHT_HIP)
TRUNK_WIDTH = 0.14

_SUBPIXEL_BITS = 4  # OpenCV's drawing takes points in 1/16 px
_MIN_LENGTH_PX = 1e-3


class PairInterpolator(Protocol):
    """Two pictures, and any moment between them."""

    def at(self, t: float) -> FlowResult:
        """The frame at t in 0..1 and what it was mixed from."""
        ...


BaseInterpolator = Callable[[ImageArray, ImageArray], PairInterpolator]


class Composition(NamedTuple):
    """The two candidates for a frame: the base's, `plain`, and around the person the posed pair's, `joined`.

    features_Fhw: what the chooser is told of them. Where nothing moves far, there is only the base's.
    """

    plain: FlowResult
    box: "Box"
    joined: FlowResult | None = None
    features_Fhw: Float32Array | None = None


@dataclass(frozen=True)
class WarpSettings:
    """Shares of the torso's length, or plain shares; the comments say which.

    Chosen on the half-way frames of kick_front and kick_back (one man, one size).
    """

    width_scale: float = 0.95  # of every limb's width
    support_sigmas: float = 3.5  # a limb pulls no farther than this many widths
    margin: float = 0.6  # torso: the region around all joints that is rendered
    trunk_stiffness: float = 0.05  # pulls the trunk's affine map towards a similarity when it is seen edge-on
    matte_low: float = 0.10  # share: a matte at or below this is not the person ...
    matte_high: float = 0.70  # ... and is wholly the person from here on
    pull_gain: float = 16.0  # the person ends where the sum of the bones' pulls falls below 1 / gain
    drawn_low: float = 0.25  # pull at the outer edge of a matte drawn from the skeleton ...
    drawn_high: float = 0.55  # ... and where it is wholly the person
    astray_low: float = 0.06  # torso: a pixel that comes back farther from where it was fetched is another part's ...
    astray_high: float = 0.17  # ... and from here on surely
    person_matte: float = 0.25  # share: above it a pixel of a key hides the background
    background_far: float = 0.03  # torso: distance to such a pixel from which the background is fully trusted
    seam: float = 0.1  # torso: width of the edge of the region, over which the posed picture fades


class Box(NamedTuple):
    """Pixels left..right - 1, top..bottom - 1 of a picture."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def is_empty(self) -> bool:
        return self.right <= self.left or self.bottom <= self.top

    @property
    def rows_columns(self) -> tuple[slice, slice]:
        """What indexes a picture with this box."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, other: "Box") -> tuple[slice, slice]:
        """What indexes a cut of `other` with this box."""
        return (
            slice(self.top - other.top, self.bottom - other.top),
            slice(self.left - other.left, self.right - other.left),
        )

    def grid(self) -> tuple[Float32Array, Float32Array]:
        """x and y of every pixel, each (H, W)."""
        x_HW, y_HW = np.meshgrid(
            np.arange(self.left, self.right, dtype=np.float32), np.arange(self.top, self.bottom, dtype=np.float32)
        )
        return x_HW, y_HW


class PoseFlow(NamedTuple):
    """Where each pixel of the frame at t comes from in the keys, as the bones say.

    offsets_px_KHWD: (K, H, W, 2) from the pixel at t to its place in each key; 0 where no bone pulls.
    pull_HW: (H, W) sum of the bones' pulls, 1 on a bone, towards 0 away from the person.
    """

    offsets_px_KHWD: Float32Array
    pull_HW: Float32Array


class WarpPair:
    """Two key frames with their poses, and every in-between frame for a pose at its time.

    For each frame both keys are bent to the pose at t and laid over the background that either key shows; the
    base interpolator joins the two, which by then differ little. Where the result is better than the base's own
    frame is for the chooser to say: standing parts are sharper in the base, fast limbs are torn by it.

    Source: WARP recipe, steps 4-10. Differs from it: background from the two keys alone (a median plate of
    all keys gains .09 dB on the person and would grow with the clip), carried along by a moving camera; no trust in
    joints by comparing two detections (pose repair does that before); a trained chooser in the place of its gates; a
    part takes no other part's pixels along (_pose_keys).
    """

    def __init__(
        self,
        keys: KeyPair,
        base: BaseInterpolator = FlowPair,
        chooser: Chooser | None = None,
        settings: WarpSettings | None = None,
    ) -> None:
        """Prepare a pair.

        Args:
            keys: with joints of both; mattes that are missing are drawn from the skeleton. Where no torso was
                seen in the clip, or no joint moves, frames are the base's.
            base: joins pictures; called once for the keys and once a frame.
            chooser: trained with that base; None = flow's.
            settings: widths and thresholds.

        Raises: ValueError if the joints of a key are missing, or pictures and mattes differ in size.
        """
        if keys.joints_0_px_JD is None or keys.joints_1_px_JD is None:
            raise ValueError("warp needs the joints observed in both key frames")
        self._settings = settings or WarpSettings()
        self._base, self._chooser = base, chooser or load_chooser("flow")
        self._images = (keys.image_0, keys.image_1)
        self._shape = keys.image_0.shape[:2]
        self._torso_px = keys.torso_px
        self._joints_KJD = np.stack([keys.joints_0_px_JD, keys.joints_1_px_JD]).astype(np.float64)
        self._pair = base(*self._images)
        self._is_moving = False
        if not self._torso_px > 0.0:
            return
        self._mattes = [self._matte(*both) for both in zip(keys.mattes, self._joints_KJD, strict=True)]
        self._shown = [self._background_shown(matte_HW) for matte_HW in self._mattes]
        camera = find_camera(self._images, (self._shown[0] >= 1.0, self._shown[1] >= 1.0))
        # A drawn matte misses what the bones do not reach, which would then stand in the background twice.
        self._shows_background = camera is not None and all(matte is not None for matte in keys.mattes)
        self._camera = camera or FIXED
        self._fastest_px = self._move_fastest()
        self._is_moving = bool(self._fastest_px[-1] > LEAST_MOTION * self._torso_px)

    def at(self, t: float, joints_px_JD: FloatArray) -> RenderedFrame:
        """The frame at t.

        Args:
            t: 0..1; the keys themselves at 0 and 1.
            joints_px_JD: (19, 3) predicted at t; a bone moves only with both ends seen here and in both keys.
        """
        if t <= 0.0 or t >= 1.0:
            return RenderedFrame(self._images[int(t >= 1.0)].copy())
        plain, box, joined, features_Fhw = self.compose(t, joints_px_JD)
        if joined is None or features_Fhw is None:
            return RenderedFrame(plain.image)
        height, width = joined.image.shape[:2]
        share_HW = self._chooser.choose(features_Fhw, height, width) * self._fade(box)
        image = plain.image.copy()
        part_HWC = image[box.rows_columns]
        part_HWC[:] = _to_uint8(part_HWC + share_HW[..., None] * (joined.image - part_HWC.astype(np.float32)))
        return RenderedFrame(image, float(share_HW.sum(dtype=np.float64) / (self._shape[0] * self._shape[1])))

    def compose(self, t: float, joints_px_JD: FloatArray) -> Composition:
        """The base's frame at t, 0 < t < 1, the posed pair's, and what tells which is better where."""
        plain = self._pair.at(t)
        box = self._region(joints_px_JD) if self._is_moving else Box(0, 0, 0, 0)
        if box.is_empty:
            return Composition(plain, box)
        plain_part = plain.within(*box.rows_columns)
        camera_px_KHWD = self._carry_camera(t, box)
        flow = carry_pose(joints_px_JD, self._joints_KJD, self._torso_px, box, self._settings)
        # On each key's pixels: to the pose at t, and to the other key.
        key_flows = [
            carry_pose(here_JD, np.stack([joints_px_JD, there_JD]), self._torso_px, box, self._settings)
            for here_JD, there_JD in zip(self._joints_KJD, self._joints_KJD[::-1], strict=True)
        ]
        motion_px_HWD = flow.offsets_px_KHWD[0] - flow.offsets_px_KHWD[1]
        if camera_px_KHWD is not None:
            motion_px_HWD = motion_px_HWD - (camera_px_KHWD[0] - camera_px_KHWD[1]) * (flow.pull_HW > 0)[..., None]
        motion_px_HW = np.hypot(motion_px_HWD[..., 0], motion_px_HWD[..., 1])
        left_px_HW = self._left(key_flows, box, camera_px_KHWD)
        least_px = LEAST_MOTION * self._torso_px
        if not (motion_px_HW > least_px).any() and not (left_px_HW > least_px).any():
            return Composition(plain, box)
        behind_HWC, shown_HW = self._background(box, t, camera_px_KHWD, plain_part.image)
        alphas, returns, pictures = self._pose_keys(flow, key_flows, behind_HWC, box)
        joined = self._base(*pictures).at(t)
        posed = Posed(
            offsets_px_KHWD=flow.offsets_px_KHWD,
            pull_HW=flow.pull_HW,
            camera_px_KHWD=camera_px_KHWD,
            motion_px_HW=motion_px_HW,
            left_px_HW=left_px_HW,
            alphas=alphas,
            returns=returns,
            plain_mattes=[
                _fetch(matte_HW, box, offsets_px_HWD)
                for matte_HW, offsets_px_HWD in zip(self._mattes, plain_part.offsets_px_KHWD, strict=True)
            ],
            behind=_to_uint8(behind_HWC),
            shown_HW=shown_HW,
            fastest_px=float(self._fastest_px.mean()),
        )
        return Composition(plain, box, joined, measure(posed, joined, plain_part, self._torso_px, t))

    def _move_fastest(self) -> FloatArray:
        """Motion of up to three joints between the keys, the camera's taken off, px; the fastest last."""
        is_common_J = _seen_in_all(self._joints_KJD)
        if not is_common_J.any():
            return np.zeros(1)
        first_JD, second_JD = self._joints_KJD[:, is_common_J, :2]
        first_JD = cv2.perspectiveTransform(first_JD[None], self._camera.to_keys[1])[0]
        return np.sort(np.linalg.norm(second_JD - first_JD, axis=-1))[-3:]

    def _matte(self, matte: ImageArray | None, joints_px_JD: FloatArray) -> Float32Array:
        if matte is None:
            height, width = self._shape
            return draw_matte(joints_px_JD, self._torso_px, height, width, self._settings)
        if matte.shape != self._shape:
            raise ValueError(f"a matte of {matte.shape} for pictures of {self._shape}")
        return matte.astype(np.float32) / np.float32(255)

    def _background_shown(self, matte_HW: Float32Array) -> Float32Array:
        """(H, W) 0..1, how far a key shows the background there."""
        is_free_HW = (matte_HW <= self._settings.person_matte).astype(np.uint8)
        distance_px_HW = distance_px(is_free_HW)
        return _ramp(distance_px_HW, 0.0, self._settings.background_far * self._torso_px)

    def _region(self, joints_px_JD: FloatArray) -> Box:
        """The part of the picture that holds the person in both keys and at t, with a margin."""
        joints_px_NJD = np.stack([joints_px_JD, *self._joints_KJD])
        points_px_PD = joints_px_NJD[is_seen(joints_px_NJD), :2]
        return _box_around(points_px_PD, self._settings.margin * self._torso_px, Box(0, 0, *self._shape[::-1]))

    def _fade(self, box: Box) -> Float32Array:
        """(H, W) 1 inside, towards 0 at the edges of the region that are not the picture's."""
        width_px = self._settings.seam * self._torso_px
        height, width = self._shape
        x_W, y_H = np.arange(box.left, box.right, dtype=np.float32), np.arange(box.top, box.bottom, dtype=np.float32)
        fades = []
        for at_N, low, high, end in ((x_W, box.left, box.right, width), (y_H, box.top, box.bottom, height)):
            from_low_N = at_N - low + 1 if low > 0 else np.full_like(at_N, np.inf)
            to_high_N = high - at_N if high < end else np.full_like(at_N, np.inf)
            fades.append(np.minimum(np.minimum(from_low_N, to_high_N) / np.float32(max(width_px, 1.0)), 1.0))
        faded_HW: Float32Array = np.minimum(fades[1][:, None], fades[0])
        return faded_HW

    def _carry_camera(self, t: float, box: Box) -> Float32Array | None:
        """(K, H, W, 2) px from each pixel at t to where its background is in the keys; None = where it is."""
        if self._camera.is_fixed:
            return None
        grid = box.grid()
        return np.stack([displacement(homography, *grid) for homography in self._camera.at(t, *self._shape)])

    def _background(
        self, box: Box, t: float, camera_px_KHWD: Float32Array | None, filling: ImageArray
    ) -> tuple[Float32Array, Float32Array]:
        """What is behind the person at t, as either key shows it, over the base's frame; and how far it is known."""
        filling_HWC = filling.astype(np.float32)
        if not self._shows_background:
            return filling_HWC, np.zeros(filling.shape[:2], np.float32)
        offsets = (None, None) if camera_px_KHWD is None else camera_px_KHWD
        shown_0, shown_1 = (
            _fetch(shown_HW, box, offsets_HWD, outside=0)[..., None]
            for shown_HW, offsets_HWD in zip(self._shown, offsets, strict=True)
        )
        key_0, key_1 = (_fetch(key, box, offsets_HWD) for key, offsets_HWD in zip(self._images, offsets, strict=True))
        weight_0, weight_1 = (1.0 - t) * shown_0, t * shown_1
        mixed_HWC = (weight_0 * key_0 + weight_1 * key_1) / np.maximum(weight_0 + weight_1, 1e-6)
        shown_HW1 = np.maximum(shown_0, shown_1)
        behind_HWC = (mixed_HWC * shown_HW1 + filling_HWC * (1.0 - shown_HW1)).astype(np.float32)
        return behind_HWC, shown_HW1[..., 0]

    def _left(self, key_flows: list[PoseFlow], box: Box, camera_px_KHWD: Float32Array | None) -> Float32Array:
        """(H, W) px, how fast what stood here in either key moved: the base leaves a fading limb there."""
        left_px_HW = np.zeros(key_flows[0].pull_HW.shape, np.float32)
        to_second = self._camera.to_keys[1]
        there: tuple[Homography, Homography] = (to_second, np.linalg.inv(to_second).astype(np.float64))
        for key, (flow, matte_HW) in enumerate(zip(key_flows, self._mattes, strict=True)):
            moved_px_HWD = flow.offsets_px_KHWD[1]
            if camera_px_KHWD is not None:
                moved_px_HWD = moved_px_HWD - displacement(there[key], *box.grid()) * (flow.pull_HW > 0)[..., None]
            is_person_HW = _ramp(matte_HW[box.rows_columns], self._settings.person_matte - 0.05, 0.5)
            moved_px_HW = np.hypot(moved_px_HWD[..., 0], moved_px_HWD[..., 1]) * is_person_HW
            if camera_px_KHWD is not None:
                within = Box(0, 0, *moved_px_HW.shape[::-1])
                moved_px_HW = _fetch(moved_px_HW, within, camera_px_KHWD[key])
            np.maximum(left_px_HW, moved_px_HW, out=left_px_HW)
        return left_px_HW

    def _pose_keys(
        self, flow: PoseFlow, key_flows: list[PoseFlow], behind_HWC: Float32Array, box: Box
    ) -> tuple[list[Float32Array], list[Float32Array], list[ImageArray]]:
        """Of each key, bent to the pose at t: its person's share, whether its pixels are its own, and the picture.

        Where a part reaches into another's pixels (the trunk into an arm that hung beside it), those would come along:
        they are known by their not coming back to the same place, and the other key's are taken.
        """
        near_HW = np.minimum(self._settings.pull_gain * flow.pull_HW, 1.0)
        pictures, alphas, returns = [], [], []
        for key, offsets_px_HWD in enumerate(flow.offsets_px_KHWD):
            matte_HW = _fetch(self._mattes[key], box, offsets_px_HWD)
            # Bicubic: bilinear blurs twice over, here and in the base's join.
            person_HWC = _fetch(self._images[key], box, offsets_px_HWD, cv2.INTER_CUBIC)
            alphas.append(_ramp(matte_HW, self._settings.matte_low, self._settings.matte_high) * near_HW)
            pictures.append(behind_HWC + alphas[-1][..., None] * (person_HWC - behind_HWC))
            returns.append(self._returns(offsets_px_HWD, key_flows[key]))
        best_HW = np.maximum(np.maximum(*returns), 1e-3)
        share_0_HW1, share_1_HW1 = ((returns_HW / best_HW)[..., None] for returns_HW in returns)
        picture_0, picture_1 = pictures
        difference_HWC = picture_1 - picture_0
        mixed = [
            _to_uint8(picture_0 + (1.0 - share_0_HW1) * difference_HWC),
            _to_uint8(picture_1 - (1.0 - share_1_HW1) * difference_HWC),
        ]
        return alphas, returns, mixed

    def _returns(self, offsets_px_HWD: Float32Array, key_flow: PoseFlow) -> Float32Array:
        """(H, W) 0..1, whether what is fetched from a key belongs, in the key, to the part that fetches it."""
        within = Box(0, 0, *key_flow.pull_HW.shape[::-1])
        astray_px_HWD = offsets_px_HWD + _fetch(key_flow.offsets_px_KHWD[0], within, offsets_px_HWD)
        astray_px_HW: Float32Array = np.hypot(astray_px_HWD[..., 0], astray_px_HWD[..., 1])
        return 1.0 - _ramp(
            astray_px_HW / np.float32(self._torso_px), self._settings.astray_low, self._settings.astray_high
        )


def carry_pose(
    joints_px_JD: FloatArray, key_joints_px_KJD: FloatArray, torso_px: float, box: Box, settings: WarpSettings
) -> PoseFlow:
    """Where the pixels of the frame at t come from: maps of single bones, blended by nearness.

    A limb's map follows its bone, is stretched along it and rigid past its ends and across; the trunk's is affine.

    Args:
        joints_px_JD: (19, 3) at t.
        key_joints_px_KJD: (K, 19, 3), of the keys. A bone with an end not seen in any of the poses pulls nothing.
        torso_px: > 0.
        box: the part of the picture wanted.
        settings: widths.
    Returns: PoseFlow of the box's size.
    """
    size = (box.bottom - box.top, box.right - box.left)
    offsets_px_KHWD = np.zeros((len(key_joints_px_KJD), *size, 2), np.float32)
    pull_HW = np.zeros(size, np.float32)
    poses_NJD = np.stack([joints_px_JD, *key_joints_px_KJD])
    for part, pull_part_HW, maps in _parts(poses_NJD, torso_px, box, settings):
        where = part.within(box)
        grid = part.grid()
        pull_HW[where] += pull_part_HW
        for offsets_px_HWD, places in zip(offsets_px_KHWD, maps, strict=True):
            for d in (0, 1):
                offsets_px_HWD[*where, d] += pull_part_HW * (places[d] - grid[d])
    offsets_px_KHWD /= np.maximum(pull_HW, 1e-6)[None, ..., None]
    return PoseFlow(offsets_px_KHWD, pull_HW)


_Places = tuple[Float32Array, Float32Array]


def _parts(
    poses_NJD: FloatArray, torso_px: float, box: Box, settings: WarpSettings
) -> Iterator[tuple[Box, Float32Array, list[_Places]]]:
    """Of each body part seen in all three poses: its box, its pull there, and the (x, y) in either key."""
    is_seen_J = _seen_in_all(poses_NJD)
    unit_px = settings.width_scale * torso_px
    for limb in LIMBS:
        if not (is_seen_J[limb.start] and is_seen_J[limb.end]):
            continue
        ends_ND = poses_NJD[:, [limb.start, limb.end], :2]
        part = _box_around(ends_ND[0], settings.support_sigmas * limb.width * unit_px, box)
        if not part.is_empty:
            yield part, *_carry_limb(ends_ND, limb.width * unit_px, part)
    if is_seen_J[list(TRUNK)].all():
        corners_ND = poses_NJD[:, list(TRUNK), :2]
        part = _box_around(corners_ND[0], settings.support_sigmas * TRUNK_WIDTH * unit_px, box)
        if not part.is_empty:
            ridge_px2 = settings.trunk_stiffness * torso_px**2
            yield part, *_carry_trunk(corners_ND, TRUNK_WIDTH * unit_px, ridge_px2, part)


def _carry_limb(ends_ND: FloatArray, sigma_px: float, part: Box) -> tuple[Float32Array, list[_Places]]:
    (start_D, axis_D, length_px), *in_keys = (_axis(*ends_D) for ends_D in ends_ND.astype(np.float32))
    x_HW, y_HW = part.grid()
    x_HW -= start_D[0]
    y_HW -= start_D[1]
    along_HW = x_HW * axis_D[0] + y_HW * axis_D[1]
    across_HW = y_HW * axis_D[0] - x_HW * axis_D[1]
    on_bone_HW = np.clip(along_HW, 0, length_px)
    past_HW = along_HW - on_bone_HW
    maps = []
    for key_start_D, key_axis_D, key_length_px in in_keys:
        key_along_HW = on_bone_HW * (key_length_px / length_px) + past_HW
        maps.append(
            (
                key_start_D[0] + key_along_HW * key_axis_D[0] - across_HW * key_axis_D[1],
                key_start_D[1] + key_along_HW * key_axis_D[1] + across_HW * key_axis_D[0],
            )
        )
    return _pull(past_HW**2 + across_HW**2, sigma_px), maps


def _axis(start_D: Float32Array, end_D: Float32Array) -> tuple[Float32Array, Float32Array, np.float32]:
    """Start, unit vector and length of a bone; one without length points to the right."""
    length_px = np.hypot(*(end_D - start_D))
    if length_px < _MIN_LENGTH_PX:
        return start_D, np.array([1, 0], np.float32), np.float32(_MIN_LENGTH_PX)
    return start_D, (end_D - start_D) / length_px, np.float32(length_px)


def _carry_trunk(
    corners_ND: FloatArray, sigma_px: float, ridge_px2: float, part: Box
) -> tuple[Float32Array, list[_Places]]:
    hull = cv2.convexHull((corners_ND[0] - [part.left, part.top]).astype(np.float32))
    is_outside_HW = np.ones((part.bottom - part.top, part.right - part.left), np.uint8)
    cv2.fillConvexPoly(is_outside_HW, _fixed_point(hull), 0, shift=_SUBPIXEL_BITS)
    distance_px_HW = distance_px(is_outside_HW)
    centre_D, *key_centres_D = corners_ND.mean(axis=1)
    x_HW, y_HW = part.grid()
    x_HW -= np.float32(centre_D[0])
    y_HW -= np.float32(centre_D[1])
    maps = []
    for key_corners_D, key_centre_D in zip(corners_ND[1:], key_centres_D, strict=True):
        map_DD = _fit_affine(corners_ND[0] - centre_D, key_corners_D - key_centre_D, ridge_px2)
        from_x_D, from_y_D = map_DD.T.astype(np.float32)
        places = (np.float32(key_centre_D[d]) + from_x_D[d] * x_HW + from_y_D[d] * y_HW for d in (0, 1))
        maps.append((next(places), next(places)))
    return _pull(distance_px_HW**2, sigma_px), maps


def _fit_affine(source_ND: FloatArray, target_ND: FloatArray, ridge_px2: float) -> FloatArray:
    """The 2 x 2 map of centred points, drawn towards their best similarity by `ridge_px2`.

    A trunk seen from its side is a line: its points say nothing across it, and the similarity decides there.
    """
    square_px2 = max(float((source_ND**2).sum()), _MIN_LENGTH_PX)
    cosine = (source_ND * target_ND).sum() / square_px2
    sine = (source_ND[:, 0] * target_ND[:, 1] - source_ND[:, 1] * target_ND[:, 0]).sum() / square_px2
    similarity = np.array([[cosine, -sine], [sine, cosine]])
    normal = source_ND.T @ source_ND + ridge_px2 * np.eye(2)
    fitted: FloatArray = np.linalg.solve(normal, source_ND.T @ target_ND + ridge_px2 * similarity.T).T
    return fitted


def draw_matte(
    joints_px_JD: FloatArray, torso_px: float, height: int, width: int, settings: WarpSettings
) -> Float32Array:
    """A person's matte from the skeleton alone: where the bones pull.

    Args:
        joints_px_JD: (19, 3); bones with an end not seen are left out.
        torso_px: > 0.
        height, width: px.
        settings: widths, and the pull at the person's edge.
    Returns: (H, W) float32, 0..1, 1 = person, soft at the edge.
    """
    poses_KJD = np.stack([joints_px_JD, joints_px_JD])
    flow = carry_pose(joints_px_JD, poses_KJD, torso_px, Box(0, 0, width, height), settings)
    return _ramp(flow.pull_HW, settings.drawn_low, settings.drawn_high)


def _fetch(
    values: Values,
    box: Box,
    offsets_px_HWD: Float32Array | None,
    interpolation: int = cv2.INTER_LINEAR,
    outside: float | None = None,
) -> Values:
    """The values `offsets` px away from the pixels of a box; None = right there. outside: None = the nearest's."""
    if offsets_px_HWD is None:
        return values[box.rows_columns]
    x_HW, y_HW = box.grid()
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    maps = (x_HW + offsets_px_HWD[..., 0], y_HW + offsets_px_HWD[..., 1])
    fetched: Values = cv2.remap(values, *maps, interpolation, borderMode=border, borderValue=outside or 0)
    return fetched


def _box_around(points_px_PD: FloatArray, margin_px: float, limits: Box) -> Box:
    """The smallest box with the points and a margin, cut to the limits; empty where there is no point."""
    if not len(points_px_PD):
        return Box(limits.left, limits.top, limits.left, limits.top)
    left, top = np.floor(points_px_PD.min(axis=0) - margin_px).astype(int).tolist()
    right, bottom = (np.ceil(points_px_PD.max(axis=0) + margin_px).astype(int) + 1).tolist()
    return Box(max(limits.left, left), max(limits.top, top), min(limits.right, right), min(limits.bottom, bottom))


def _seen_in_all(poses_NJD: FloatArray) -> BoolArray:
    is_seen_J: BoolArray = np.logical_and.reduce(is_seen(poses_NJD), axis=0)
    return is_seen_J


def _pull(distance_squared_px_HW: Float32Array, sigma_px: float) -> Float32Array:
    pull_HW: Float32Array = np.exp(distance_squared_px_HW * np.float32(-0.5 / sigma_px**2))
    return pull_HW


def _ramp(values: Float32Array, low: float, high: float) -> Float32Array:
    """0 up to `low`, 1 from `high` on, straight between."""
    share: Float32Array = np.clip((values - np.float32(low)) / np.float32(high - low), np.float32(0), np.float32(1))
    return share


def _fixed_point(points_px: FloatArray) -> npt.NDArray[np.int32]:
    return np.rint(points_px * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _to_uint8(values: FloatArray) -> ImageArray:
    rounded: ImageArray = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return rounded
