"""Pose passes through a stage: every chunk is done, then those again in which somebody else was followed."""

import shutil
from collections.abc import Sequence
from functools import partial

from flows.project import STATE
from flows.stage import Stage
from tasks.items import Item
from tasks.pose import MediapipeSettings
from tasks.pose_passes import estimate_group, group_calls, plan_again


def estimate_passes(stage: Stage, passes: Sequence[Sequence[Item]]) -> list[list[Item]]:
    """Have the poses of all passes in the store; returns each pass's chunks, some of them done again.

    Args: passes: the chunks of each pass, in the order of their frames.
    """
    params = stage.params.pose
    settings = MediapipeSettings(params.upscale, params.model_complexity, params.timeout_s)
    work_dir = STATE / "work" / stage.label
    shutil.rmtree(work_dir, ignore_errors=True)  # what a killed run left
    work = partial(estimate_group, work_dir=work_dir, settings=settings)
    stage.do(work, [item for chunks in passes for item in chunks], group=group_calls)
    final = [plan_again(chunks, stage.store) for chunks in passes]
    again = [
        item
        for chunks, first in zip(final, passes, strict=True)
        for item, before in zip(chunks, first, strict=True)
        if item is not before
    ]
    stage.do(work, again, group=group_calls)
    shutil.rmtree(work_dir, ignore_errors=True)
    return final
