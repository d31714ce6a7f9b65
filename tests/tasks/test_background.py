"""Stage background's own interpolators on pictures whose middle is known."""

import pytest

from models.renderer.keys import WeightsError, find_rife_weights
from tasks.background import make_backgrounds, plan_background
from tasks.items import item_key
from tests.tasks.test_dain import level, write_clip


@pytest.mark.parametrize("interpolator", ["flow", "rife"])
def test_grey_between_two_greys_is_their_mean(tmp_path, interpolator):
    if interpolator == "rife":
        try:
            find_rife_weights()
        except WeightsError as error:
            pytest.skip(str(error))
    clip = write_clip(tmp_path / "c.parquet", [100, 9, 110, 9, 120], size=(64, 96))
    plan = plan_background(clip, 2, interpolator, "", item_key)
    rows = [row for item in plan.items for row in make_backgrounds(item.args).to_pylist()]
    assert [(row["frame"], row["use"]) for row in rows] == [(11, "render"), (12, "train"), (13, "render")]
    for row, expected in zip(rows, (105, 110, 115), strict=True):
        assert abs(level(row["image"]["bytes"], spread=12) - expected) <= 6
    assert plan.metadata["interpolator"] == interpolator
    assert "interpolator_version" not in plan.metadata
