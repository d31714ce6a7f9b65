import pytest
import torch

from models.motion.losses import motion_loss
from tests.models.motion.reference import load_arrays, load_json, needs_reference


@needs_reference
@pytest.mark.parametrize("case", ["a", "b"])
def test_losses_are_the_fixtures(case):
    io = {k: torch.from_numpy(v) for k, v in load_arrays("motion_io.npz").items()}
    names = ("pred", "reco", "target", "source_mask", "pad_mask")
    loss = motion_loss(*(io[f"{case}_{name}"] for name in names))
    expected = load_json("motion_losses.json")[case]
    assert loss.reco.item() == pytest.approx(expected["loss_reco"], abs=1e-6)
    assert loss.pred.item() == pytest.approx(expected["loss_pose2d"], abs=1e-6)
    assert loss.total.item() == pytest.approx(expected["weighted"], abs=1e-5)


def test_keys_and_in_betweens_are_counted_apart_and_padding_not_at_all():
    truth = torch.zeros(1, 38, 4)
    pred = torch.tensor([9.0, 2.0, 9.0, 9.0]).expand(1, 38, 4)
    reco = torch.tensor([1.0, 9.0, 3.0, 9.0]).expand(1, 38, 4)
    hidden = torch.tensor([[False, True, False, True]])
    pad = torch.tensor([[False, False, False, True]])
    loss = motion_loss(pred, reco, truth, hidden, pad)
    assert (loss.reco.item(), loss.pred.item(), loss.total.item()) == (2, 2, 30)


def test_a_clip_of_keys_alone_has_no_loss_between():
    rows = torch.ones(1, 38, 3)
    loss = motion_loss(rows, rows, 0 * rows, torch.zeros(1, 3, dtype=torch.bool), None)
    assert (loss.reco.item(), loss.pred.item()) == (1, 0)
