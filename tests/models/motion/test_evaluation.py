"""Scores by hand, and by a second formula."""

import numpy as np
import pytest

from models.motion.evaluation import classical_predictor, make_keys, middle, score_methods
from models.skeleton import LEG_JOINTS, Joint
from tests.models.motion.motions import swaying

NO_NOISE = (0, 0, 0)


def truth_of(*clips):
    """A predictor that knows the truth of these clips, found again by their first key."""
    by_first = {clip[0].tobytes(): clip for clip in clips}
    return lambda keys_KJ2, is_seen_KJ, key_step: by_first[keys_KJ2[0].tobytes()]


def moving_evenly(num_frames=33):
    """Whole numbers: straight lines are exact in float32 and float64."""
    start_J2 = np.random.default_rng(2).integers(-9, 9, (19, 2))
    speed_J2 = np.random.default_rng(3).integers(-3, 3, (19, 2))
    return (start_J2 + np.arange(num_frames)[:, None, None] * speed_J2).astype(np.float32)


def test_the_truth_scores_0_and_is_as_smooth_as_itself():
    clips = [swaying(33, 1), swaying(65, 2)]
    scores = score_methods(clips, {"truth": truth_of(*clips)}, [4, 16], NO_NOISE, seed=1)
    assert set(scores) == {4, 16}
    for step in scores:
        score = scores[step]["clean"]["truth"]
        assert score.measures == (0, 0, 0)
        assert score.jerk_ratio == 1


def test_straight_lines_score_0_on_straight_motion_and_by_formula_on_any_other():
    linear = {"linear": classical_predictor("linear")}
    even = score_methods([moving_evenly()], linear, [8], NO_NOISE, seed=1)[8]["clean"]["linear"].measures
    assert even == pytest.approx((0, 0, 0), abs=1e-12)

    clip = swaying(33, 3)
    t = np.arange(33)
    lines = np.stack(
        [np.interp(t, t[::8], clip[::8, joint, axis]) for joint in range(19) for axis in range(2)], axis=1
    ).reshape(33, 19, 2)
    off = np.abs(lines - clip)[t % 8 != 0]
    found = score_methods([clip], linear, [8], NO_NOISE, seed=1)[8]["clean"]["linear"]
    assert found.measures == pytest.approx(((off**2).mean(), off.mean(), off.max()), rel=1e-9)


def test_the_measures_of_a_predictor_that_is_off_by_a_known_amount():
    clips = [moving_evenly(17), moving_evenly(33)]

    def shifted(keys_KJ2, is_seen_KJ, key_step):
        points_TJ2 = classical_predictor("linear")(keys_KJ2, is_seen_KJ, key_step)
        points_TJ2[1] += 0.5  # of the 12 and 24 frames between keys, one each
        points_TJ2[::key_step] += 9  # keys do not count
        return points_TJ2

    calls = []
    scores = score_methods(clips, {"shifted": shifted}, [4], NO_NOISE, 1, lambda: calls.append(1))
    assert scores[4]["clean"]["shifted"].measures == pytest.approx((2 * 0.25 / 36, 2 * 0.5 / 36, 0.5))
    assert len(calls) == 2


def test_the_middle_of_a_sequence_has_a_multiple_of_16_frames_and_1():
    clip = swaying(100, 1)
    np.testing.assert_array_equal(middle(clip, 321), clip[1:98])
    np.testing.assert_array_equal(middle(clip, 40), clip[33:66])
    np.testing.assert_array_equal(middle(clip[:17], 321), clip[:17])
    assert middle(clip[:16], 321).shape == (0, 19, 2)


def test_clean_keys_are_every_nth_frame():
    clip = swaying(33, 1)
    keys = make_keys(clip, 8, "clean", (2, 2, 2), [1, 0])
    np.testing.assert_array_equal(keys.points_KJ2, clip[[0, 8, 16, 24, 32]])
    assert keys.is_seen_KJ.all()
    assert keys.truth_TJ2 is clip


def test_noisy_and_mirrored_keys_have_the_same_faults_but_for_the_sign_in_x():
    clip = np.zeros((33, 19, 2), np.float32)
    clip[:, list(LEG_JOINTS)] = 2.0  # the same for all legs: an exchange moves nothing
    noisy, mirrored = (make_keys(clip, 4, condition, (3, 2, 2), [7, 0]) for condition in ("noisy", "mirrored"))
    np.testing.assert_array_equal(noisy.is_seen_KJ, mirrored.is_seen_KJ)
    assert (~noisy.is_seen_KJ).sum() == 2 * 3
    seen = noisy.is_seen_KJ
    one, other = (keys.points_KJ2[seen] - clip[::4][seen] for keys in (noisy, mirrored))
    assert (one[:, 0] > 0.01).any()
    np.testing.assert_allclose(one * [-1, 1], other, atol=1e-6)
    assert (noisy.points_KJ2[~seen] == 0).all()
    # Another clip, or another step of the same one, has other faults.
    for step, seed in ((4, [7, 1]), (4, [8, 0]), (2, [7, 0])):
        others = make_keys(clip, step, "noisy", (3, 2, 2), seed)
        assert others.points_KJ2.shape != noisy.points_KJ2.shape or (others.points_KJ2 != noisy.points_KJ2).any()


def test_every_method_gets_the_same_keys():
    seen = {}

    def spy(name):
        def predict(keys_KJ2, is_seen_KJ, key_step):
            seen.setdefault(name, []).append(keys_KJ2.copy())
            return np.zeros(((len(keys_KJ2) - 1) * key_step + 1, 19, 2))

        return predict

    score_methods([swaying(33, 1)], {"a": spy("a"), "b": spy("b")}, [4, 8], (2, 2, 2), seed=1)
    assert len(seen["a"]) == 6
    assert all(np.array_equal(x, y) for x, y in zip(seen["a"], seen["b"], strict=True))


@pytest.mark.parametrize("method", ["linear", "cubic", "pchip", "robust"])
def test_a_classical_method_fills_what_the_keys_do_not_show(method):
    clip = moving_evenly(33)
    keys_KJ2, is_seen_KJ = clip[::8].copy(), np.ones((5, 19), bool)
    is_seen_KJ[2, Joint.NECK] = False  # between two keys that show it: on the line between them
    is_seen_KJ[0, Joint.NOSE] = False  # before the first that shows it: where that one has it
    is_seen_KJ[:, Joint.LEFT_HAND] = False  # never seen: at the mid hip
    keys_KJ2[~is_seen_KJ] = 0
    found = classical_predictor(method)(keys_KJ2, is_seen_KJ, 8)
    assert found.shape == (33, 19, 2)
    np.testing.assert_allclose(found[16, Joint.NECK], clip[16, Joint.NECK], atol=1e-9)
    np.testing.assert_allclose(found[0, Joint.NOSE], clip[8, Joint.NOSE], atol=1e-9)
    np.testing.assert_allclose(found[:, Joint.LEFT_HAND], found[:, Joint.MID_HIP], atol=1e-9)
    np.testing.assert_allclose(found[:, Joint.MID_HIP], clip[:, Joint.MID_HIP], atol=1e-9)
