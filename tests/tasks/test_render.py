"""What a render says of itself, and which files it reads."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.render import RenderSettings

WARP = RenderSettings(8, "robust", "warp", "data/models/motion", "rife", "data/models/renderer/r", "base")
POSES, BACKGROUNDS = Path("poses.parquet"), Path("backgrounds.parquet")


@pytest.mark.parametrize(
    ("method", "background", "said"),
    [
        ("blend", "base", set()),
        ("flow", "base", set()),
        ("rife", "base", {"device"}),
        ("warp", "base", {"base", "device"}),
        ("neural", "base", {"renderer", "background", "device"}),
        ("neural", "warp", {"renderer", "background", "base", "device"}),
    ],
)
def test_a_render_names_only_what_shaped_its_pictures(method, background, said):
    found = replace(WARP, method=method, background=background).describe()
    assert found.keys() == {"key_step", "motion", "method", "motion_model"} | said


def test_each_method_reads_its_own_files(tmp_path):
    (tmp_path / "model.safetensors").touch()
    motion, renderer = (tmp_path / "model.safetensors",), tmp_path
    assert replace(WARP, method="rife").inputs(POSES, BACKGROUNDS) == []
    assert replace(WARP, method="flow").inputs(POSES, BACKGROUNDS) == [BACKGROUNDS]
    assert WARP.inputs(POSES, BACKGROUNDS) == [POSES]
    learned = replace(WARP, motion="learned", motion_model=str(tmp_path))
    assert learned.inputs(POSES, BACKGROUNDS) == [POSES, *motion]
    neural = replace(WARP, method="neural", renderer=str(renderer))
    assert neural.inputs(POSES, BACKGROUNDS) == [BACKGROUNDS, POSES, *motion]
    over_warp = replace(neural, background="warp")
    assert over_warp.inputs(POSES, BACKGROUNDS) == [POSES, *motion]
