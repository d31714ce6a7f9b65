"""Training-free, pose-guided in-between frames: each bone carries its pixels from both keys to the pose at t.

Axes: K the two keys, H, W the region around the person, J joints (19), D (x, y) px, for joints (x, y, score).
Pictures are BGR uint8 HWC. Lengths are in torso lengths unless their name ends in px.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from models.renderer.flow import FlowPair, FlowResult
from models.renderer.keys import FloatArray, ImageArray, KeyPair
from models.skeleton import Joint, is_seen

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

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
        """The frame at t in 0..1 and the two warped pictures that it was mixed from."""
        ...


BaseInterpolator = Callable[[ImageArray, ImageArray], PairInterpolator]


@dataclass(frozen=True)
class WarpSettings:
    """Shares of the torso's length, grey levels of 255, or plain shares; the comments say which.

    Chosen on the half-way frames of kick_front and kick_back (one man, one size, flow as base).
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
    person_matte: float = 0.35  # share: above it a pixel of a key hides the background
    background_far: float = 0.05  # torso: distance to such a pixel from which the background is fully trusted
    camera_slack_levels: float = 1.0  # levels: see _is_camera_fixed
    gate_low: float = 0.06  # torso: where the person moves less between the keys, the base is the sharper ...
    gate_high: float = 0.17  # ... and from here on the posed picture is the better
    gate_grow: float = 0.09  # torso
    gate_sigma: float = 0.07  # torso
    trust_sigma: float = 0.11  # torso: neighbourhood in which pictures are compared
    trust_base: float = 0.5  # share of the base's own disagreement that the posed pair is forgiven
    trust_low: float = 13.0  # levels: disagreement of the posed pair from which it loses trust ...
    trust_high: float = 32.0  # ... and has none


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
    base interpolator joins the two, which by then differ little. The result replaces the base's own frame
    where the person moves much, and the posed pair agrees: standing parts are sharper in the base, fast
    limbs are torn by it. The background is never moved: with a moving camera the base's frame is the
    background.

    Source: WARP recipe, steps 4-10. Differs from it: background from the two keys alone (a median plate of
    all keys gains .09 dB on the person and would grow with the clip); no trust in joints by comparing two
    detections (pose repair does that before); the gate opens from .06 torso (the recipe's 7 px are .08 of that
    man's 85), as flow tears earlier than RIFE, and where a limb was in either key, which clears the base's ghosts of
    it; no gate by the base's own agreement, which holds for its ghosts too; looser photometric trust, which cost
    whole arms; a part takes no other part's pixels along (_pose_keys).
    """

    def __init__(self, keys: KeyPair, base: BaseInterpolator = FlowPair, settings: WarpSettings | None = None) -> None:
        """Prepare a pair.

        Args:
            keys: with joints of both; mattes that are missing are drawn from the skeleton. Where no torso was
                seen in the clip, or no joint moves, frames are the base's.
            base: joins pictures; called once for the keys and once a frame.
            settings: thresholds.

        Raises: ValueError if the joints of a key are missing, or pictures and mattes differ in size.
        """
        if keys.joints_0_px_JD is None or keys.joints_1_px_JD is None:
            raise ValueError("warp needs the joints observed in both key frames")
        self._settings = settings or WarpSettings()
        self._base = base
        self._images = (keys.image_0, keys.image_1)
        self._shape = keys.image_0.shape[:2]
        self._torso_px = keys.torso_px
        self._joints_KJD = np.stack([keys.joints_0_px_JD, keys.joints_1_px_JD]).astype(np.float64)
        self._pair = base(*self._images)
        self._is_moving = self._moves()
        if not self._is_moving:
            return
        self._mattes = [self._matte(*both) for both in zip(keys.mattes, self._joints_KJD, strict=True)]
        self._shown = [self._background_shown(matte_HW) for matte_HW in self._mattes]
        # A drawn matte misses what the bones do not reach, which would then stand in the background twice.
        has_mattes = all(matte is not None for matte in keys.mattes)
        self._shows_background = has_mattes and self._is_camera_fixed()

    def at(self, t: float, joints_px_JD: FloatArray, background: ImageArray | None = None) -> ImageArray:
        """The frame at t.

        Args:
            t: 0..1; the keys themselves at 0 and 1.
            joints_px_JD: (19, 3) predicted at t; a bone moves only with both ends seen here and in both keys.
            background: (H, W, 3) uint8, a base frame to paint over instead of this pair's own.
        Returns: (H, W, 3) uint8.
        """
        if t <= 0.0 or t >= 1.0:
            return self._images[int(t >= 1.0)].copy()
        box = self._region(joints_px_JD) if self._is_moving else None
        if background is not None and (box is None or box.is_empty):
            return background.copy()
        plain = self._pair.at(t)
        image = (plain.image if background is None else background).copy()
        if box is None or box.is_empty:
            return image
        flow = carry_pose(joints_px_JD, self._joints_KJD, self._torso_px, box, self._settings)
        # On each key's pixels: to the pose at t, and to the other key.
        key_flows = [
            carry_pose(here_JD, np.stack([joints_px_JD, there_JD]), self._torso_px, box, self._settings)
            for here_JD, there_JD in zip(self._joints_KJD, self._joints_KJD[::-1], strict=True)
        ]
        behind_HWC = self._background(box, t, image)
        posed = self._pose_keys(flow, key_flows, behind_HWC, box)
        joined = self._base(*posed).at(t)
        gate_HW = self._gate(flow, key_flows, joined, plain, box)[..., None]
        part_HWC = image[box.rows_columns]
        part_HWC[:] = _to_uint8(part_HWC * (1.0 - gate_HW) + joined.image * gate_HW)
        return image

    def _moves(self) -> bool:
        """Whether any joint moves enough between the keys for the gate to open."""
        if not self._torso_px > 0.0:
            return False
        is_common_J = _seen_in_all(self._joints_KJD)
        step_px_J = np.linalg.norm(self._joints_KJD[1, :, :2] - self._joints_KJD[0, :, :2], axis=-1)
        return bool((step_px_J[is_common_J] > self._settings.gate_low * self._torso_px).any())

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
        distance_px_HW = cv2.distanceTransform(is_free_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return _ramp(distance_px_HW, 0.0, self._settings.background_far * self._torso_px)

    def _is_camera_fixed(self) -> bool:
        """Whether the background agrees between the keys as they are, as well as after the base has aligned it."""
        halfway = self._pair.at(0.5)
        is_background_HW = np.minimum(*self._shown) >= 1.0
        if not is_background_HW.any():
            return False
        still, aligned = (
            cv2.absdiff(*both)[is_background_HW].mean() for both in (self._images, (halfway.warped_0, halfway.warped_1))
        )
        return bool(still <= 2.0 * aligned + self._settings.camera_slack_levels)

    def _region(self, joints_px_JD: FloatArray) -> Box:
        """The part of the picture that holds the person in both keys and at t, with a margin."""
        joints_px_NJD = np.stack([joints_px_JD, *self._joints_KJD])
        points_px_PD = joints_px_NJD[is_seen(joints_px_NJD), :2]
        return _box_around(points_px_PD, self._settings.margin * self._torso_px, Box(0, 0, *self._shape[::-1]))

    def _background(self, box: Box, t: float, image: ImageArray) -> Float32Array:
        """What is behind the person at t: what either key shows, over the base's frame."""
        filling_HWC = image[box.rows_columns].astype(np.float32)
        if not self._shows_background:
            return filling_HWC
        shown_0, shown_1 = (shown_HW[box.rows_columns][..., None] for shown_HW in self._shown)
        weight_0, weight_1 = (1.0 - t) * shown_0, t * shown_1
        key_0, key_1 = (key[box.rows_columns] for key in self._images)
        mixed_HWC = (weight_0 * key_0 + weight_1 * key_1) / np.maximum(weight_0 + weight_1, 1e-6)
        shown_HW1 = np.maximum(shown_0, shown_1)
        behind_HWC: Float32Array = (mixed_HWC * shown_HW1 + filling_HWC * (1.0 - shown_HW1)).astype(np.float32)
        return behind_HWC

    def _pose_keys(
        self, flow: PoseFlow, key_flows: list[PoseFlow], behind_HWC: Float32Array, box: Box
    ) -> list[ImageArray]:
        """Each key's person, bent to the pose at t, over the background.

        Where a part reaches into another's pixels (the trunk into an arm that hung beside it), those would come along:
        they are known by their not coming back to the same place, and the other key's are taken.
        """
        x_HW, y_HW = box.grid()
        near_HW = np.minimum(self._settings.pull_gain * flow.pull_HW, 1.0)
        pictures, returns = [], []
        for key, offsets_px_HWD in enumerate(flow.offsets_px_KHWD):
            maps = (x_HW + offsets_px_HWD[..., 0], y_HW + offsets_px_HWD[..., 1])
            matte_HW = cv2.remap(self._mattes[key], *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            # Bicubic: bilinear blurs twice over, here and in the base's join.
            person_HWC = cv2.remap(self._images[key], *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            alpha_HW = _ramp(matte_HW, self._settings.matte_low, self._settings.matte_high) * near_HW
            pictures.append(behind_HWC + alpha_HW[..., None] * (person_HWC - behind_HWC))
            returns.append(self._returns(offsets_px_HWD, maps, key_flows[key], box))
        best_HW = np.maximum(np.maximum(*returns), 1e-3)
        share_0_HW1, share_1_HW1 = ((returns_HW / best_HW)[..., None] for returns_HW in returns)
        picture_0, picture_1 = pictures
        difference_HWC = picture_1 - picture_0
        return [
            _to_uint8(picture_0 + (1.0 - share_0_HW1) * difference_HWC),
            _to_uint8(picture_1 - (1.0 - share_1_HW1) * difference_HWC),
        ]

    def _returns(
        self, offsets_px_HWD: Float32Array, maps: tuple[Float32Array, Float32Array], key_flow: PoseFlow, box: Box
    ) -> Float32Array:
        """(H, W) 0..1, whether what is fetched from a key belongs, in the key, to the part that fetches it."""
        places = (maps[0] - np.float32(box.left), maps[1] - np.float32(box.top))
        back_px_HWD = cv2.remap(key_flow.offsets_px_KHWD[0], *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        astray_px_HWD = offsets_px_HWD + back_px_HWD
        astray_px_HW: Float32Array = np.hypot(astray_px_HWD[..., 0], astray_px_HWD[..., 1])
        return 1.0 - _ramp(
            astray_px_HW / np.float32(self._torso_px), self._settings.astray_low, self._settings.astray_high
        )

    def _gate(
        self, flow: PoseFlow, key_flows: list[PoseFlow], joined: FlowResult, plain: FlowResult, box: Box
    ) -> Float32Array:
        """(H, W) 0..1, how far the posed picture replaces the base's."""
        settings, torso_px = self._settings, self._torso_px
        gate_HW = self._moving(flow.offsets_px_KHWD[0] - flow.offsets_px_KHWD[1])
        if self._shows_background:
            # The base leaves a fading limb where it was in either key; the background there is known.
            for key_flow, matte_HW in zip(key_flows, self._mattes, strict=True):
                is_person_HW = matte_HW[box.rows_columns] > settings.person_matte
                np.maximum(gate_HW, self._moving(key_flow.offsets_px_KHWD[1]) * is_person_HW, out=gate_HW)
        radius_px = max(1, round(settings.gate_grow * torso_px))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
        gate_HW = cv2.GaussianBlur(cv2.dilate(gate_HW, disc), (0, 0), settings.gate_sigma * torso_px)
        error_posed_HW = self._disagreement(joined.warped_0, joined.warped_1)
        where = box.rows_columns
        error_plain_HW = self._disagreement(plain.warped_0[where], plain.warped_1[where])
        excess_HW = error_posed_HW - np.float32(settings.trust_base) * error_plain_HW
        trusted_HW: Float32Array = gate_HW * (1.0 - _ramp(excess_HW, settings.trust_low, settings.trust_high))
        return trusted_HW

    def _moving(self, offsets_px_HWD: Float32Array) -> Float32Array:
        """(H, W) 0..1, how far the gate opens for such offsets between the keys."""
        motion_px_HW: Float32Array = np.hypot(offsets_px_HWD[..., 0], offsets_px_HWD[..., 1])
        return _ramp(motion_px_HW / np.float32(self._torso_px), self._settings.gate_low, self._settings.gate_high)

    def _disagreement(self, one: ImageArray, other: ImageArray) -> Float32Array:
        """(H, W) mean colour difference of two pictures around each pixel, in levels."""
        difference_HW = cv2.absdiff(one, other).mean(axis=2, dtype=np.float32)
        blurred: Float32Array = cv2.GaussianBlur(difference_HW, (0, 0), self._settings.trust_sigma * self._torso_px)
        return blurred


def render_warp(
    keys: KeyPair,
    joints_px_JD: FloatArray,
    t: float,
    background: ImageArray | None = None,
    base: BaseInterpolator = FlowPair,
    settings: WarpSettings | None = None,
) -> ImageArray:
    """One frame; for several of a pair make a WarpPair, which finds the base's flow only once. See there."""
    return WarpPair(keys, base, settings).at(t, joints_px_JD, background)


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
    distance_px_HW = cv2.distanceTransform(is_outside_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
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
