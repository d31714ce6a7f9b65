"""What a million clips would cost, and what happens on a cluster while they are made: a plan, not a measurement.

    .venv/bin/python benchmarks/million.py [--clips 1000000 --clips-per-batch 5000 --workers 256]

The costs of a frame are those of docs/benchmarks.md (one core of the machine named there, 360x640, key step 8); every
constant below says where it was measured. The second part plays one stage of a batch on a cluster, event by event:
groups of items on workers, nodes that die, one home machine that hands out inputs and takes in items.
"""

import argparse
import heapq
import math
import random
from dataclasses import dataclass

# Core-seconds a frame of a clip: docs/benchmarks.md, "One clip of 50 changed" (5,000 frames, two cores, whole commands)
# and "Pose" (tracked and static, every frame, and every 8th once more).
CORE_S = {
    "split": 42.4 * 2 / 5000,
    "pose": (0.051 + 0.054) * (1 + 1 / 8),
    "background": 283.1 * 2 / 5000,
    "render warp": 0.95 * 7 / 8,
}
# GPU-seconds a frame of a clip: benchmarks/gpu.py items, RIFE on one H200 (docs/benchmarks.md), alone on the GPU and by
# 16 processes that share it and 16 cores. Split and pose (mediapipe) work on cores.
GPU_S = {"background": (0.0318, 0.0053), "render warp": (0.0932, 0.0115)}
# Bytes a frame, 360x640: sizes in dvc.lock of the sample's outputs (98 frames; 49 of the render), PNG in parquet.
FRAME_BYTES = {
    "split": 33_276_406 / 98,
    "pose": 1_231_466 / 98,
    "background": 31_836_556 / 98,
    "render warp": 15_976_086 / 49,
}
FILES_PER_CLIP = {"split": 1, "pose": 1, "background": 1, "render warp": 2}
DVC_STAGES_PER_BATCH = 6  # download, split, pose, background, render, evaluate
ITEM_FRAMES = {"split": 256, "pose": 256, "background": 24, "render warp": 24}
# The paper's generator alone, on the same GPU; seven of eight frames are made.
NEURAL_S = 0.035 * 7 / 8
TRAIN_STEP_S, TRAIN_STEPS = 0.31, 21_200  # of a renderer, batch 4: the same table; steps as the paper's
# DVC's own time with nothing to do: 1.9 s at 300 stages, 10.0 s at 900 (benchmarks/dag.py), so n**1.51.
DVC_S, DVC_POWER = 1.9 / 300**1.51, 1.51
PREFECT_ROWS_PER_STAGE = 200  # task runs of one stage, at most


@dataclass(frozen=True)
class Cluster:
    """node_failures: a node and hour.  home_bytes_s: what one machine hands out and takes in."""

    workers: int
    workers_per_node: int
    node_failures: float
    home_bytes_s: float


@dataclass(frozen=True)
class Played:
    """busy: share of the workers' time spent on items that were kept.  repeated: items that were done again."""

    seconds: float
    busy: float
    repeated: int
    home_busy: float


def play_stage(
    num_items: int, item_s: float, item_bytes: float, cluster: Cluster, max_groups: int, seed: int
) -> Played:
    """One stage of a batch: groups of items handed to workers as they are free; a group that loses its node goes on,
    elsewhere, without the items that have come home.
    """
    draw = random.Random(seed)  # noqa: S311 a game
    num_groups = min(num_items, max_groups, 16 * cluster.workers)
    sizes = [num_items // num_groups + (number < num_items % num_groups) for number in range(num_groups)]
    waiting = sizes[::-1]
    free = [(0.0, worker) for worker in range(cluster.workers)]
    heapq.heapify(free)
    home_free = end = useful = spent = 0.0
    repeated = 0
    rate = cluster.node_failures / 3600
    while waiting:
        now, worker = heapq.heappop(free)
        group = waiting.pop()
        died = now + (draw.expovariate(rate) if rate else math.inf)
        clock, done = now, 0
        while done < group:
            finish = clock + item_s * draw.lognormvariate(0, 0.3)
            if finish > died:
                break
            clock = finish
            done += 1
        moved = done * item_bytes / cluster.home_bytes_s
        home_free = max(home_free, now) + moved
        clock = max(clock, home_free)  # back-pressure: a worker waits for the home machine
        useful += done * item_s
        if done < group:
            repeated += 1
            waiting.append(group - done)
            clock = died + 60  # a new node has to come
        spent += clock - now
        end = max(end, clock)
        heapq.heappush(free, (clock, worker))
    return Played(end, useful / (end * cluster.workers), repeated, sum(sizes) * item_bytes / cluster.home_bytes_s / end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=100, help="of a clip")
    parser.add_argument("--clips-per-batch", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--node-failures", type=float, default=0.01, help="a node and hour")
    parser.add_argument("--home-mb-s", type=float, default=100, help="the home machine's throughput")
    args = parser.parse_args()

    frames = args.clips * args.frames
    print(f"{args.clips:,} clips of {args.frames} frames at 360x640")
    print(f"{'stage':<14}{'core-hours':>12}{'TB':>8}{'files':>12}{'items':>14}")
    for stage, core_s in CORE_S.items():
        files = args.clips * FILES_PER_CLIP[stage]
        items = args.clips * math.ceil(args.frames / ITEM_FRAMES[stage])
        size_tb = frames * FRAME_BYTES[stage] / 1e12
        print(f"{stage:<14}{frames * core_s / 3600:>12,.0f}{size_tb:>8.1f}{files:>12,}{items:>14,}")
    total_h = frames * sum(CORE_S.values()) / 3600
    print(f"{'all':<14}{total_h:>12,.0f}{frames * sum(FRAME_BYTES.values()) / 1e12:>8.1f}")
    print(f"on {args.workers} cores: {total_h / args.workers / 24:,.1f} days\n")
    print(f"{'with device: cuda':<20}{'GPU-hours, a process a GPU':>28}{'16 processes a GPU':>20}")
    gpu_h = {stage: [frames * second / 3600 for second in seconds] for stage, seconds in GPU_S.items()}
    for stage, (alone_h, shared_h) in gpu_h.items():
        print(f"{stage + ', RIFE':<20}{alone_h:>28,.0f}{shared_h:>20,.0f}")
    print(f"{'both':<20}{sum(a for a, _ in gpu_h.values()):>28,.0f}{sum(b for _, b in gpu_h.values()):>20,.0f}")
    print(f"the generator of neural, alone: {frames * NEURAL_S / 3600:,.0f} GPU-hours")
    print(f"a renderer's training: {TRAIN_STEPS * TRAIN_STEP_S / 3600:.1f} GPU-hours\n")

    batches = math.ceil(args.clips / args.clips_per_batch)
    stages = batches * DVC_STAGES_PER_BATCH
    print(f"{batches:,} batches of {args.clips_per_batch:,} clips: {stages:,} DVC stages")
    for count in (batches // 4, batches, batches * 4):
        print(
            f"  `dvc repro` with nothing to do at {count * DVC_STAGES_PER_BATCH:>7,} stages: about "
            f"{DVC_S * (count * DVC_STAGES_PER_BATCH) ** DVC_POWER:,.0f} s"
        )
    print(f"  files in a batch's largest folder: {args.clips_per_batch * 2:,}")
    print(f"  rows in Prefect's database: at most {stages * PREFECT_ROWS_PER_STAGE:,} task runs\n")

    print(
        f"a batch's background stage on {args.workers} workers, 8 a node, {args.node_failures:g} failures a node"
        " and hour"
    )
    print(f"{'groups':>8}{'home MB/s':>11}{'hours':>8}{'busy':>7}{'home busy':>11}{'groups lost':>13}")
    items = args.clips_per_batch * math.ceil(args.frames / 24)
    item_s = args.frames * CORE_S["background"] / math.ceil(args.frames / 24)
    item_bytes = args.frames * (FRAME_BYTES["split"] + FRAME_BYTES["background"]) / math.ceil(args.frames / 24)
    for max_groups in (200, 1000):
        for home_mb_s in (args.home_mb_s, 10 * args.home_mb_s):
            cluster = Cluster(args.workers, 8, args.node_failures, home_mb_s * 1e6)
            found = play_stage(items, item_s, item_bytes, cluster, max_groups, seed=1)
            print(
                f"{max_groups:>8}{home_mb_s:>11,.0f}{found.seconds / 3600:>8.2f}{found.busy:>7.0%}"
                f"{found.home_busy:>11.0%}{found.repeated:>13}"
            )


if __name__ == "__main__":
    main()
