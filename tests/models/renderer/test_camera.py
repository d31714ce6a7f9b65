"""The camera's motion between two pictures, where it is known because we moved it."""

import cv2
import numpy as np
import pytest

from models.renderer.camera import FIXED, displacement, find_camera
from tests.models.renderer.scenes import texture

HEIGHT, WIDTH = 200, 260
EVERYWHERE = np.ones((HEIGHT, WIDTH), bool)


def seen_through(homography, wall):
    """The wall from a camera; homography: wall px to picture px."""
    return cv2.warpPerspective(wall, homography, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


def move(pan=(0.0, 0.0), zoom=1.0, turn_rad=0.0):
    """From wall px to picture px, about the picture's middle."""
    x, y = WIDTH / 2, HEIGHT / 2
    cosine, sine = zoom * np.cos(turn_rad), zoom * np.sin(turn_rad)
    centre = np.array([[1, 0, -x - 100], [0, 1, -y - 100], [0, 0, 1.0]])
    turned = np.array([[cosine, -sine, x + pan[0]], [sine, cosine, y + pan[1]], [0, 0, 1.0]])
    return turned @ centre


WALL = cv2.GaussianBlur(texture(HEIGHT + 200, WIDTH + 200, 3, 0, 255), (0, 0), 1.5)


def corner_error_px(found, truth):
    corners = np.float64([[[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]])
    return np.abs(cv2.perspectiveTransform(corners, found) - cv2.perspectiveTransform(corners, truth)).max()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (move(), move(pan=(9, -4))),
        (move(), move(pan=(40, 10))),
        (move(), move(zoom=1.08)),
        (move(pan=(-3, 0)), move(pan=(5, 2), zoom=0.95, turn_rad=0.05)),
    ],
)
def test_a_known_motion_is_found_to_a_third_of_a_pixel(first, second):
    camera = find_camera((seen_through(first, WALL), seen_through(second, WALL)), (EVERYWHERE, EVERYWHERE))
    assert camera is not None
    assert not camera.is_fixed
    assert corner_error_px(camera.to_keys[1], second @ np.linalg.inv(first)) < 1 / 3


def test_a_person_who_moves_does_not_move_the_camera():
    image_0 = seen_through(move(), WALL)
    image_1 = image_0.copy()
    image_0[60:140, 60:120], image_1[60:140, 80:140] = texture(80, 60, 5), texture(80, 60, 5)
    free = [EVERYWHERE.copy(), EVERYWHERE.copy()]
    free[0][50:150, 50:130] = free[1][50:150, 70:150] = False
    assert find_camera((image_0, image_1), (free[0], free[1])) is FIXED


def test_noise_and_flicker_are_no_motion():
    image = seen_through(move(), WALL)
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    noisy = np.clip(image * 1.01 + noise, 0, 255).astype(np.uint8)
    camera = find_camera((image, noisy), (EVERYWHERE, EVERYWHERE))
    assert camera is not None
    assert corner_error_px(camera.to_keys[1], np.eye(3)) < 0.3


def test_a_cut_has_no_motion():
    other = texture(HEIGHT, WIDTH, 11, 0, 255)
    assert find_camera((seen_through(move(), WALL), other), (EVERYWHERE, EVERYWHERE)) is None
    assert find_camera((seen_through(move(), WALL), other), (~EVERYWHERE, EVERYWHERE)) is None


def test_between_the_keys_the_corners_move_evenly():
    truth = move(pan=(12, -6))
    camera = find_camera((seen_through(move(), WALL), seen_through(truth, WALL)), (EVERYWHERE, EVERYWHERE))
    to_first, to_second = camera.at(0.25, HEIGHT, WIDTH)
    assert corner_error_px(to_first, np.array([[1, 0, -3], [0, 1, 1.5], [0, 0, 1.0]])) < 1 / 3
    assert corner_error_px(to_second, np.array([[1, 0, 9], [0, 1, -4.5], [0, 0, 1.0]])) < 1 / 3
    assert np.array_equal(FIXED.at(0.25, HEIGHT, WIDTH)[1], np.eye(3))


def test_displacement_is_the_homography_less_the_pixel():
    x, y = np.meshgrid(np.arange(4, dtype=np.float32), np.arange(3, dtype=np.float32))
    homography = np.array([[1.1, 0.1, 2], [0, 0.9, -1], [0.001, 0, 1]])
    points = np.stack([x, y], axis=-1).reshape(1, -1, 2).astype(np.float64)
    expected = cv2.perspectiveTransform(points, homography).reshape(3, 4, 2) - np.stack([x, y], axis=-1)
    assert displacement(homography, x, y) == pytest.approx(expected, abs=1e-5)
