import cmath
import math
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from benchmarks import plain_samples
from models.renderer import draw_human_masks, draw_labels
from models.renderer.labels import MASK_LINES
from models.renderer.samples import (
    ClipKeys,
    RendererSamples,
    SampleSettings,
    Variation,
    blur_lines,
    move_joints,
    move_picture,
    split_keys,
    vary,
)
from models.renderer.sizes import resize_picture, scale_joints

HEIGHT, WIDTH = 64, 96
STRONG = SampleSettings(
    rotation_deg=20.0,
    scale_share=0.2,
    shift_share=0.1,
    joint_drop_share=0.2,
    limb_drop_share=0.2,
    sigmas_px=(4.0, 5.0),
    blur_share=0.3,
    blur_sigma_px=3.0,
    held_out_share=0.0,
    cache_mb=16,
)


class Watched(list):
    """A list that counts which of its entries are read."""

    def __init__(self, values):
        super().__init__(values)
        self.read = Counter()

    def __getitem__(self, index):
        self.read[index] += 1
        return super().__getitem__(index)


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def make_clip(seed=0, num_keys=8, name="clip"):
    rng = np.random.default_rng(seed)

    def picture():
        return png(cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (WIDTH, HEIGHT)))

    joints = np.ones((num_keys, 19, 3))
    joints[..., :2] = rng.uniform(0.05, 0.95, (num_keys, 19, 2)) * (WIDTH, HEIGHT)
    joints[rng.random((num_keys, 19)) < 0.1] = 0
    backgrounds = [None, *(picture() for _ in range(num_keys - 2)), None]
    return ClipKeys(name, Watched(picture() for _ in range(num_keys)), Watched(backgrounds), joints)


def make_source(clips, settings=STRONG, **changes):
    return RendererSamples(clips, SampleSettings(**{**vars(settings), **changes}), HEIGHT, WIDTH)


def assert_same(one, two):
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)


def copied(batch):
    return type(batch)(*(tensor.clone() for tensor in batch))


def disc_at(x, y):
    """A picture with a soft dot whose centre of mass is (x, y) px from the corner."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    dot = 250 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
    return np.repeat(dot.round().astype(np.uint8)[..., None], 3, axis=2)


def centre_of(image):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    weight = image[..., 0].astype(float)
    return (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()


def test_joints_turn_grow_and_shift_about_the_pictures_middle():
    seen = []
    for seed in range(200):
        place = vary(np.random.default_rng(seed), STRONG, 1, HEIGHT, WIDTH).place_23
        middle, corner = move_joints(np.array([[WIDTH / 2, HEIGHT / 2, 1.0], [0.0, 0.0, 0.5]]), place)
        shift = (middle[:2] - (WIDTH / 2, HEIGHT / 2)) / (WIDTH, HEIGHT)
        assert shift[0] == pytest.approx(shift[1])
        # As complex numbers: the way from the middle to the corner is multiplied by scale * exp(i turn).
        factor = complex(*(corner - middle)[:2]) / complex(-WIDTH / 2, -HEIGHT / 2)
        assert corner[2] == 0.5
        seen.append((shift[0], abs(factor) - 1, math.degrees(cmath.phase(factor))))
    extremes = np.abs(seen).max(axis=0)
    assert (extremes <= (0.1, 0.2, 20)).all()
    assert (extremes > 0.9 * np.array((0.1, 0.2, 20))).all()
    assert (np.min(seen, axis=0) < 0).all()


def test_a_dot_in_the_picture_ends_where_its_joint_says():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        place = vary(rng, STRONG, 1, HEIGHT, WIDTH).place_23
        x, y = rng.uniform(0.4, 0.6, 2) * (WIDTH, HEIGHT)
        moved = move_joints(np.array([[x, y, 1.0]]), place)[0]
        assert centre_of(move_picture(disc_at(x, y), place)) == pytest.approx(tuple(moved[:2]), abs=0.03)


def test_what_was_not_seen_stays_so_and_outside_is_black():
    place = np.array([[1.0, 0, 10], [0, 1, 5]])
    np.testing.assert_array_equal(
        move_joints(np.array([[0.0, 0, 0], [3, 4, 1]]), place), np.array([[0.0, 0, 0], [13, 9, 1]])
    )
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    expected = white.copy()
    expected[:5], expected[:, :10] = 0, 0
    np.testing.assert_array_equal(move_picture(white, place), expected)


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_batch_is_what_the_plain_way_makes_of_the_same_draws(num_frames):
    clips = [make_clip(0), make_clip(1)]
    source = make_source(clips)
    for step in range(2):
        batch = source.draw(3, step, 2, num_frames)
        for row, (place, varied) in enumerate(source.choose(3, step, 2, num_frames)):
            clip = clips[place.clip]
            run = range(place.first, place.first + num_frames + 2)
            per_frame = (np.pad(values, ((1, 1), (0, 0)), mode="edge") for values in varied[1:])
            expected = plain_samples.make_sample(
                [list.__getitem__(clip.pictures, key) for key in run],
                [list.__getitem__(clip.backgrounds, key) or png(disc_at(9, 9)) for key in run],
                clip.joints_px_KJD[run.start : run.stop],
                Variation(varied.place_23, *per_frame),
                HEIGHT,
                WIDTH,
                3.0,
            )
            for ours, plain in zip(batch, expected, strict=True):
                assert ours.shape[1:] == plain.shape
                assert ours.dtype == torch.float32
                np.testing.assert_allclose(ours[row].numpy(), plain, atol=1e-6, rtol=0)


def test_a_step_is_the_same_whatever_was_drawn_before_and_however_rows_are_shared():
    clips = [make_clip(0), make_clip(1)]
    source = make_source(clips)
    whole = copied(source.draw(5, 7, 4, 2))
    for step in (8, 0, 3):
        source.draw(5, step, 4, 2)
    assert_same(source.draw(5, 7, 4, 2), whole)
    other = make_source(clips, cache_mb=0)
    other.draw(5, 6, 4, 1)
    first, second = copied(other.draw(5, 7, 4, 2, rows=[0, 1])), other.draw(5, 7, 4, 2, rows=[2, 3])
    assert_same([torch.cat(parts) for parts in zip(first, second, strict=True)], whole)
    for differs in (source.draw(6, 7, 4, 2), source.draw(5, 8, 4, 2)):
        assert not torch.equal(differs.pictures_BSCHW, whole.pictures_BSCHW)
        assert not torch.equal(differs.labels_BSCHW, whole.labels_BSCHW)


def test_every_place_comes_once_before_one_comes_again():
    source = make_source([make_clip(0), make_clip(1, num_keys=5), make_clip(2, num_keys=3)])
    places = source.places(2)
    assert [(p.clip, p.first) for p in places] == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1)]
    drawn = [place for step in range(7) for place, _ in source.choose(0, step, 3, 2)]
    for epoch in range(3):
        assert sorted(drawn[7 * epoch : 7 * epoch + 7]) == places
    assert drawn[:7] != drawn[7:14]


def test_only_what_a_step_uses_is_decoded_and_drawn():
    clip = make_clip(0, num_keys=4)
    joints = clip.joints_px_KJD.copy()
    joints[[0, 3]] = np.nan  # drawing them would be refused
    source = make_source([clip._replace(joints_px_KJD=joints)])
    source.draw(0, 0, 1, 2)
    assert clip.pictures.read == {0: 1, 1: 1, 2: 1}
    assert clip.backgrounds.read == {1: 1, 2: 1}


def test_decoded_pictures_are_kept_within_the_bound():
    clip = make_clip(0)
    picture_bytes = HEIGHT * WIDTH * 3
    for cache_mb, again in ((1, 0), (0, 5)):  # 1 MB holds all of the clip's
        clip.pictures.read.clear()
        clip.backgrounds.read.clear()
        source = make_source([clip], cache_mb=cache_mb)
        source.draw(0, 0, 1, 2)
        source.draw(0, 0, 1, 2)
        assert clip.pictures.read.total() + clip.backgrounds.read.total() == 5 + again
    long = make_clip(0, num_keys=80)
    assert 80 * picture_bytes > 2**20
    source = make_source([long], cache_mb=1)
    for step in range(80):
        source.draw(0, step, 1, 1)
    held = [value.nbytes for value, _ in source._cache._entries.values()]
    assert 2**20 - picture_bytes < sum(held) <= 2**20


@pytest.mark.parametrize(
    ("num_keys", "share", "training", "held_out"),
    [
        (12, 0.2, range(9), range(9, 11)),
        (7, 0.2, range(5), range(5, 6)),
        (7, 0.01, range(5), range(5, 6)),
        (7, 0.0, range(7), range(0)),
        (3, 1.0, range(1), range(1, 2)),
        (2, 0.5, range(2), range(0)),
        (0, 0.5, range(0), range(0)),
    ],
)
def test_the_last_inner_keys_are_held_out(num_keys, share, training, held_out):
    assert split_keys(num_keys, share) == (training, held_out)


def test_no_held_out_key_is_touched_in_training():
    clip = make_clip(0, num_keys=12)
    split = split_keys(12, 0.3)
    assert (split.training, split.held_out) == (range(8), range(8, 11))
    joints = clip.joints_px_KJD.copy()
    pictures, backgrounds = list(clip.pictures), list(clip.backgrounds)
    for key in (*split.held_out, 11):
        pictures[key], backgrounds[key], joints[key] = b"", b"", np.nan
    source = make_source([ClipKeys("clip", Watched(pictures), Watched(backgrounds), joints)], held_out_share=0.3)
    assert [place.first for place in source.places(2)] == [0, 1, 2, 3, 4]  # key 4 + 2 + 1 is the last training key
    for step in range(5):
        source.draw(0, step, 2, 2)


def test_held_out_keys_come_in_runs_as_they_are():
    clips = [make_clip(0, num_keys=12), make_clip(1, num_keys=2)]
    source = make_source(clips, held_out_share=0.3)
    runs = list(source.held_out(2))
    assert [(place.clip, place.first, batch.pictures_BSCHW.shape[1]) for place, batch in runs] == [(0, 7, 2), (0, 9, 1)]
    keys = [8, 9]
    batch = runs[0][1]
    joints = clips[0].joints_px_KJD[keys]
    np.testing.assert_array_equal(batch.labels_BSCHW[0], draw_labels(joints, HEIGHT, WIDTH))
    np.testing.assert_array_equal(batch.person_BS1HW[0, :, 0], draw_human_masks(joints, HEIGHT, WIDTH))
    for found, data in (
        (batch.previous_BCHW[0], clips[0].pictures[7]),
        (batch.pictures_BSCHW[0, 1], clips[0].pictures[9]),
        (batch.backgrounds_BSCHW[0, 0], clips[0].backgrounds[8]),
    ):
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].transpose(2, 0, 1)
        np.testing.assert_allclose(found, rgb / 255 * 2 - 1, atol=1e-6)
    kept = copied(batch)
    source.draw(0, 0, 2, 2)
    assert_same(batch, kept)  # training writes over none of it
    assert_same(next(source.held_out(2))[1], kept)


def test_held_out_keys_may_be_asked_for_while_another_thread_draws():
    clip = make_clip(0, num_keys=60)
    source = make_source([clip], held_out_share=0.5, cache_mb=1)  # too little: what is kept changes all the time
    expected = [copied(batch) for _, batch in make_source([clip], held_out_share=0.5).held_out(3)]
    stop = threading.Event()

    def draw():
        step = 0
        while not stop.is_set():
            source.draw(0, step, 2, 3)
            step += 1
        return step

    with ThreadPoolExecutor(1) as threads:
        drawing = threads.submit(draw)
        try:
            for _ in range(3):
                for (_, batch), right in zip(source.held_out(3), expected, strict=True):
                    assert_same(batch, right)
        finally:
            stop.set()
        assert drawing.result() > 0
    assert sum(num_bytes for _, num_bytes in source._cache._entries.values()) == source._cache._num_bytes <= 2**20


def test_a_background_is_blurred_inside_the_chosen_limbs_alone():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    joints = np.zeros((19, 3))
    joints[2], joints[3], joints[4] = (20, 20, 1), (70, 40, 1), (90, 60, 1)
    chosen = np.array([(line.start, line.end) == (2, 3) for line in MASK_LINES])
    image = sharp.copy()
    blur_lines(image, joints, chosen, 3.0)
    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.line(inside, (20, 20), (70, 40), 1, 30)
    expected = np.where(inside[..., None] == 1, cv2.GaussianBlur(sharp, (19, 19), 3.0), sharp)
    np.testing.assert_array_equal(image, expected)
    unseen = sharp.copy()
    blur_lines(unseen, joints, np.array([(line.start, line.end) == (5, 6) for line in MASK_LINES]), 3.0)
    np.testing.assert_array_equal(unseen, sharp)


def test_shares_are_met():
    varied = vary(np.random.default_rng(0), STRONG, 2000, HEIGHT, WIDTH)
    assert varied.is_dropped_SJ.mean() == pytest.approx(0.2, abs=0.01)
    assert varied.is_drawn_SL.mean() == pytest.approx(0.8, abs=0.01)
    assert varied.is_blurred_SM.mean() == pytest.approx(0.3, abs=0.01)
    assert (varied.sigma_px_SJ == 4).mean() == pytest.approx(0.5, abs=0.01)
    assert set(varied.sigma_px_SJ.ravel()) == {4.0, 5.0}


def test_what_cannot_be_drawn_is_refused():
    clip = make_clip(0, num_keys=4)
    pictures, (_, first, *_) = list(clip.pictures), list(clip.backgrounds)
    with pytest.raises(ValueError, match="no clip has 5 training keys in a row"):
        make_source([clip]).draw(0, 0, 1, 3)
    small = png(np.zeros((5, 6, 3), np.uint8))
    broken = {
        "clip clip: the picture of key 1 is damaged": {"pictures": [pictures[0], b"no", *pictures[2:]]},
        "clip clip: the background of key 2 is missing": {"backgrounds": [None, first, None, None]},
        r"clip clip: the picture of key 0 has shape \(5, 6, 3\), not \(64, 96, 3\)": {
            "pictures": [small, *pictures[1:]]
        },
    }
    for message, changes in broken.items():
        with pytest.raises(ValueError, match=message):
            make_source([clip._replace(**changes)]).draw(0, 0, 1, 2)


@pytest.mark.parametrize("size", [(32, 48), (31, 40), (128, 200), (64, 96)])
def test_a_dot_keeps_its_joint_at_another_size(size):
    for x, y in ((30.3, 20.8), (61.5, 40.1)):
        joint = scale_joints(np.array([[x, y, 0.7], [0, 0, 0]]), (HEIGHT, WIDTH), size)
        assert joint[0, 2] == 0.7
        np.testing.assert_array_equal(joint[1], 0)
        resized = resize_picture(disc_at(x, y), *size)
        assert resized.shape == (*size, 3)
        assert centre_of(resized) == pytest.approx(tuple(joint[0, :2]), abs=0.05)


def test_a_smaller_picture_is_the_average_of_what_it_covers():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    mean = image.reshape(10, 4, 15, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_picture(image, 10, 15), mean, atol=0.51)
