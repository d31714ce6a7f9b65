"""Made-up motion for tests: a stiff figure that sways, as the networks' 19 joints, seen from the front."""

import numpy as np

from models.body import stand_in_rest
from models.motion.samples import SampleConfig
from models.motion.views import project_points
from models.skeleton import joints_from_smpl_h

RECIPE = SampleConfig(
    rates=(8, 16),
    rate_shares=(0.4, 0.6),
    min_frames=65,
    max_frames=321,
    num_key_tokens=768,
    clean_share=0.5,
    taught_share=0.25,
    speed_range=(0.75, 1.35),
    size_range=(0.75, 1.33),
    roll_rad=0.1,
    max_faulty_keys=6,
)


def swaying(num_frames, seed=0):
    """(num_frames, 19, 2) float32 projected units."""
    generator = np.random.default_rng(seed)
    figure = joints_from_smpl_h(stand_in_rest()[None])[0][:, [0, 2, 1]] * [1, -1, 1]
    t = np.arange(num_frames)[:, None, None] / 60
    sway = sum(
        generator.normal(0, 0.1, (1, 19, 3)) * np.sin(2 * np.pi * f * t + generator.uniform(0, 6, (1, 19, 3)))
        for f in (0.5, 1.1, 1.9)
    )
    moving = figure + sway + t * generator.normal(0, 0.3, 3)
    return project_points(moving, 4.0, 8.0).astype(np.float32)
