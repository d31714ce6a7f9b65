"""Small painted scenes with a known truth at every moment."""

import cv2
import numpy as np

from models.skeleton import NUM_JOINTS, Joint

J = Joint
TORSO_PX = 60.0


def texture(height, width, seed, low=40, high=215):
    """Smooth random colours, (H, W, 3) uint8."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return (low + smooth * (high - low)).astype(np.uint8)


def psnr(image, truth, mask=None):
    square = (image.astype(float) - truth) ** 2
    return 10 * np.log10(255**2 / max(square[mask].mean() if mask is not None else square.mean(), 1e-9))


def square_at(left, top=60, side=48, height=160, width=220):
    """A textured square on a plain ground; `left` in px, may be fractional."""
    image = np.full((height, width, 3), 90, np.uint8)
    shift = np.float32([[1, 0, left], [0, 1, top]])
    patch = texture(side, side, 1)
    mask = cv2.warpAffine(np.full((side, side), 255, np.uint8), shift, (width, height))[..., None] / 255.0
    return (image * (1 - mask) + cv2.warpAffine(patch, shift, (width, height)) * mask + 0.5).astype(np.uint8)


def pose(arm_degrees, centre=(120.0, 90.0)):
    """(19, 3): a standing person, whose straight left arm points down at 0 degrees, sideways at 90."""
    x, y = centre
    joints = np.zeros((NUM_JOINTS, 3))
    places = {
        J.NOSE: (0, -20), J.NECK: (0, 0), J.MID_HIP: (0, 60),
        J.RIGHT_SHOULDER: (-20, 0), J.RIGHT_ELBOW: (-24, 30), J.RIGHT_WRIST: (-26, 58), J.RIGHT_HAND: (-27, 66),
        J.LEFT_SHOULDER: (20, 0),
        J.RIGHT_HIP: (-12, 60), J.RIGHT_KNEE: (-13, 100), J.RIGHT_ANKLE: (-14, 140), J.RIGHT_BIG_TOE: (-20, 146),
        J.LEFT_HIP: (12, 60), J.LEFT_KNEE: (13, 100), J.LEFT_ANKLE: (14, 140), J.LEFT_BIG_TOE: (20, 146),
    }  # fmt: skip
    angle = np.deg2rad(arm_degrees)
    for joint, reach in ((J.LEFT_ELBOW, 32), (J.LEFT_WRIST, 62), (J.LEFT_HAND, 72)):
        places[joint] = (20 + reach * np.sin(angle), reach * np.cos(angle))
    for joint, (dx, dy) in places.items():
        joints[joint] = (x + dx, y + dy, 1.0)
    return joints


def _paint_bone(image, matte, start, end, radius, colours):
    """Colours fixed to the bone: along it and across it."""
    height, width = matte.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    length = np.hypot(*(end - start))
    axis = (end - start) / length
    along = (x - start[0]) * axis[0] + (y - start[1]) * axis[1]
    across = (y - start[1]) * axis[0] - (x - start[0]) * axis[1]
    distance = np.hypot(along - np.clip(along, 0, length), across)
    alpha = np.clip(radius - distance + 0.5, 0, 1)[..., None]
    painted = cv2.remap(colours, (along + 20).astype(np.float32), (across + 20).astype(np.float32), cv2.INTER_LINEAR)
    image[:] = image * (1 - alpha) + painted * alpha
    np.maximum(matte, alpha[..., 0] * 255, out=matte)


def person(joints, background):
    """The person of `pose` painted on a background: image and matte, both uint8."""
    image = background.astype(np.float32)
    matte = np.zeros(background.shape[:2], np.float32)
    bones = (
        (J.MID_HIP, J.NECK, 20), (J.NECK, J.NOSE, 13),
        (J.RIGHT_HIP, J.RIGHT_KNEE, 8), (J.RIGHT_KNEE, J.RIGHT_ANKLE, 6), (J.RIGHT_ANKLE, J.RIGHT_BIG_TOE, 4),
        (J.LEFT_HIP, J.LEFT_KNEE, 8), (J.LEFT_KNEE, J.LEFT_ANKLE, 6), (J.LEFT_ANKLE, J.LEFT_BIG_TOE, 4),
        (J.RIGHT_SHOULDER, J.RIGHT_ELBOW, 6), (J.RIGHT_ELBOW, J.RIGHT_WRIST, 5), (J.RIGHT_WRIST, J.RIGHT_HAND, 5),
        (J.LEFT_SHOULDER, J.LEFT_ELBOW, 6), (J.LEFT_ELBOW, J.LEFT_WRIST, 5), (J.LEFT_WRIST, J.LEFT_HAND, 5),
    )  # fmt: skip
    for number, (start, end, radius) in enumerate(bones):
        colours = texture(60, 130, 100 + number, 0, 130)
        _paint_bone(image, matte, joints[start, :2], joints[end, :2], radius, colours)
    return (image + 0.5).astype(np.uint8), (matte + 0.5).astype(np.uint8)
