import torch

from models.motion.filling import fill_gaps, fill_points
from models.skeleton import Joint

USUAL = torch.arange(38.0).view(19, 2)


def walk(num_keys=6):
    """A stiff pose that moves on by (1, 0.5) a key."""
    pose = torch.randn(19, 2, generator=torch.Generator().manual_seed(0))
    return (pose + torch.arange(num_keys)[:, None, None] * torch.tensor([1.0, 0.5]))[None]


def all_good(points):
    return torch.ones(points.shape[:3], dtype=torch.bool)


def test_gaps_are_filled_by_straight_lines_and_ends_by_the_nearest():
    values = torch.tensor([9.0, 2.0, 9.0, 9.0, 5.0, 9.0])[None, :, None]
    is_good = torch.tensor([False, True, False, False, True, False])[None, :, None]
    filled, distance = fill_gaps(values, is_good)
    assert filled.flatten().tolist() == [2, 2, 3, 4, 5, 5]
    assert distance.flatten().tolist() == [1, 0, 1, 1, 0, 1]


def test_a_channel_without_a_good_value_is_zero():
    filled, distance = fill_gaps(torch.full((1, 3, 1), torch.nan), torch.zeros(1, 3, 1, dtype=torch.bool))
    assert filled.flatten().tolist() == [0, 0, 0]
    assert distance.flatten().tolist() == [3, 3, 3]


def test_good_points_pass_bit_for_bit_and_bad_ones_move_with_the_hip():
    points = walk()
    is_good = all_good(points)
    is_good[0, 2, Joint.LEFT_WRIST] = False
    spoiled = torch.where(is_good[..., None], points, torch.full_like(points, torch.nan))
    filled, distance = fill_points(spoiled, is_good, USUAL)
    assert torch.equal(filled[is_good], points[is_good])
    torch.testing.assert_close(filled, points, atol=1e-5, rtol=0)
    assert distance[0, 2, Joint.LEFT_WRIST] == 1


def test_a_lost_mid_hip_is_found_from_the_trunk():
    points = walk()
    points[0, 2] += 5  # a jump that no line over time would find
    is_good = all_good(points)
    is_good[0, 2, Joint.MID_HIP] = False
    is_good[0, 2, Joint.NOSE] = False
    filled, _ = fill_points(points, is_good, USUAL)
    torch.testing.assert_close(filled, points, atol=1e-5, rtol=0)


def test_a_mid_hip_that_is_never_seen_and_whole_keys_missing():
    points = walk()
    is_good = all_good(points)
    is_good[0, 3] = False
    filled, _ = fill_points(points, is_good, USUAL)
    torch.testing.assert_close(filled, points, atol=1e-5, rtol=0)
    is_good[:, :, Joint.MID_HIP] = False
    filled, _ = fill_points(points, is_good, USUAL)
    assert filled.isfinite().all()
    others = [j for j in Joint if j is not Joint.MID_HIP]
    torch.testing.assert_close(filled[:, :, others], points[:, :, others], atol=1e-4, rtol=0)


def test_nothing_seen_at_all_gives_the_usual_pose():
    points = walk()
    filled, _ = fill_points(points, torch.zeros_like(all_good(points)), USUAL)
    assert torch.equal(filled, USUAL.expand_as(filled))
