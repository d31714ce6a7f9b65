import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from models.measures import (
    MAX_PSNR_DB,
    compare_frames,
    correct_share,
    error_map,
    joint_errors,
    person_mask,
    psnr,
    ssim,
)
from models.skeleton import NUM_JOINTS, Joint


def noise(seed, shape=(24, 20, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pose(**joints_px):
    """(19, 3) with the named joints seen at (x, y)."""
    joints_JD = np.zeros((NUM_JOINTS, 3))
    for name, point in joints_px.items():
        joints_JD[Joint[name.upper()]] = (*point, 1)
    return joints_JD


def test_psnr_of_a_constant_difference_is_worked_by_hand():
    black = np.zeros((8, 8, 3), np.uint8)
    # A difference of 51 is a fifth of the peak: 20 log10(5) dB.
    assert psnr(black + 51, black) == pytest.approx(13.9794, abs=1e-4)
    assert psnr(black, black + 51) == psnr(black + 51, black)  # no wrap-around of uint8


def test_psnr_of_the_person_counts_its_pixels_alone():
    truth = np.zeros((8, 8, 3), np.uint8)
    image = truth.copy()
    image[:4] = 51
    is_person = np.zeros((8, 8), bool)
    is_person[:4] = True
    assert psnr(image, truth, is_person) == pytest.approx(13.9794, abs=1e-4)
    assert psnr(image, truth) == pytest.approx(13.9794 + 10 * np.log10(2), abs=1e-4)
    assert psnr(image, truth, ~is_person) == MAX_PSNR_DB


def test_psnr_is_scikit_images():
    image, truth = noise(1), noise(2)
    assert psnr(image, truth) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=255), abs=1e-9)


def test_identical_frames_have_finite_measures():
    image = noise(1)
    measures = compare_frames(image, image, np.ones(image.shape[:2], bool))
    assert measures == (100.0, 1.0, 100.0, 1.0)


def test_ssim_is_scikit_images_and_the_persons_is_the_mean_of_its_map():
    image, truth = noise(1), noise(2)
    is_person = np.zeros(image.shape[:2], bool)
    is_person[5:9, 6:12] = True
    whole, map_HWC = structural_similarity(image, truth, channel_axis=2, data_range=255, full=True)
    assert ssim(image, truth, is_person) == pytest.approx((whole, map_HWC[5:9, 6:12].mean()), abs=1e-6)


@pytest.mark.parametrize("levels", [(0, 255), (255, 255), (254, 255)])
def test_ssim_of_flat_pictures_at_the_ends_of_the_scale_is_scikit_images(levels):
    image, truth = (np.full((30, 20, 3), level, np.uint8) for level in levels)
    image[10:] = truth[20:] = 0
    whole = structural_similarity(image, truth, channel_axis=2, data_range=255)
    assert ssim(image, truth)[0] == pytest.approx(whole, abs=1e-6)


def test_measures_of_no_person_do_not_exist():
    image = noise(1)
    measures = compare_frames(image, noise(2), np.zeros(image.shape[:2], bool))
    assert np.isnan([measures.person_psnr, measures.person_ssim]).all()
    assert np.isfinite([measures.full_psnr, measures.full_ssim]).all()


def test_frames_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="must be the same"):
        compare_frames(noise(1), noise(1, (24, 21, 3)), np.ones((24, 20), bool))


def test_person_mask_joins_matte_and_bones_of_the_stated_width():
    matte = np.zeros((40, 60), np.uint8)
    matte[30:, :5] = 128
    matte[30:, 5:10] = 127
    joints = pose(neck=(20, 10), right_shoulder=(40, 10))
    # 0.1 of a torso of 20 px: 2 px to each side of the bone.
    is_person = person_mask(matte, joints, 40, 60, margin_torso_share=0.1, torso_px=20)
    assert np.flatnonzero(is_person[:, 30]).tolist() == [8, 9, 10, 11, 12]
    assert is_person[30:, :5].all()
    assert not is_person[30:, 5:10].any()


def test_person_mask_leaves_out_bones_with_an_end_not_seen():
    joints = pose(neck=(20, 10))
    assert not person_mask(np.zeros((40, 60), np.uint8), joints, 40, 60, 0.1, 20).any()


def test_person_mask_without_a_matte_is_as_wide_as_limbs():
    joints = pose(neck=(20, 10), right_shoulder=(40, 10))
    is_person = person_mask(None, joints, 40, 60, margin_torso_share=0.06, torso_px=20)
    assert np.flatnonzero(is_person[:, 30]).tolist() == list(range(7, 14))  # 0.15 x 20 = 3 to each side


def test_person_mask_without_a_known_torso_still_has_the_bones():
    joints = pose(neck=(20, 10), right_shoulder=(40, 10))
    assert person_mask(None, joints, 40, 60, 0.06, float("nan"))[10, 20:41].all()


def test_joint_errors_are_distances_where_both_see_the_joint():
    truth = pose(nose=(0, 0), neck=(10, 10), mid_hip=(10, 50))
    found = pose(nose=(3, 4), neck=(10, 10), left_ankle=(1, 1))
    errors = joint_errors(found, truth)
    assert errors[[Joint.NOSE, Joint.NECK]].tolist() == [5, 0]
    assert np.isnan(np.delete(errors, [Joint.NOSE, Joint.NECK])).all()


def test_pck_counts_a_missing_joint_as_wrong():
    truth = pose(nose=(0, 0), neck=(10, 10), mid_hip=(10, 50), left_knee=(0, 90))
    found = pose(nose=(3, 4), neck=(10, 10), mid_hip=(10, 41))
    # Torso 40 px, share 0.2: within 8 px. Nose 5 yes, neck 0 yes, mid hip 9 no, left knee not found.
    assert correct_share(found, truth, torso_px=40, torso_share=0.2) == 0.5
    assert np.isnan(correct_share(found, np.zeros((NUM_JOINTS, 3)), 40, 0.2))
    assert np.isnan(correct_share(found, truth, float("nan"), 0.2))


def test_error_map_rises_in_brightness_and_saturates():
    truth = np.zeros((4, 4, 3), np.uint8)
    levels = [error_map(truth + level, truth)[0, 0].astype(int).sum() for level in (0, 20, 40, 64, 200)]
    assert levels[:3] == sorted(levels[:3])
    assert levels[3] == levels[4] == max(levels)
    assert levels[0] < 10
