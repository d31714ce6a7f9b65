"""Pose passes through a stage: every chunk is done, then those again in which somebody else was followed."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pyarrow as pa

from flows.project import STATE
from flows.stage import Stage
from tasks.items import Item, Work, group_items
from tasks.pose import MediapipeSettings
from tasks.pose_passes import PassSpec, estimate_group, group_calls, plan_again


def estimate_passes(
    stage: Stage,
    passes: Sequence[Sequence[Item]],
    beside: Sequence[Item] = (),
    do_group: Callable[..., Iterator[tuple[int, pa.Table]]] = estimate_group,
) -> list[list[Item]]:
    """Have the poses of all passes in the store; returns each pass's chunks, some of them done again.

    Args:
        passes: the chunks of each pass, in the order of their frames.
        beside: other items, to be done meanwhile.
        do_group: as estimate_group, of groups of either kind.
    """
    params = stage.params.pose
    settings = MediapipeSettings(params.upscale, params.model_complexity, params.timeout_s)
    work_dir = STATE / "work" / stage.label
    shutil.rmtree(work_dir, ignore_errors=True)  # what a killed run left
    work: Work = partial(do_group, work_dir=work_dir, settings=settings)
    stage.do(work, [*(item for chunks in passes for item in chunks), *beside], group=_group)
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


def _group(items: Sequence[Item], num_workers: int) -> list[list[Item]]:
    """The calls of the estimator first: they take longest, and begin by loading its models."""
    passes = [item for item in items if isinstance(item.args, PassSpec)]
    others = [item for item in items if not isinstance(item.args, PassSpec)]
    return [*group_calls(passes, num_workers), *group_items(others, num_workers)]
