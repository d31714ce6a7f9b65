"""Stage train_motion: the motion network on the training subsets' 2D shards, into data/models/motion."""

from functools import partial
from pathlib import Path

from flows.live import LiveLog, forget_run, log_nothing
from flows.mapping import run_ranks
from flows.params import TrainMotionParams
from flows.progress import say
from flows.project import STATE
from flows.stage import Stage
from models.motion.paper_samples import PaperSampleConfig
from models.motion.samples import SampleConfig
from models.motion.training import TrainConfig
from models.training import OptimiserConfig
from tasks.errors import ParamsError
from tasks.items import hash_file
from tasks.tables import list_tables
from tasks.train_motion import MotionTraining, Samples, train_motion

TOOLS = ("numpy", "pyarrow", "scipy", "torch")


def run(stage: Stage) -> None:
    params = stage.params.train_motion
    folders = {split: stage.subset_folders(split) for split in ("train", "test")}
    shards = [hash_file(path) for folder in folders["train"] for path in list_tables(folder)]
    start = Path(params.start)
    key = stage.key(params, shards, [hash_file(path) for path in sorted(start.glob("*")) if path.is_file()])
    state = STATE / "training" / f"{key}.safetensors"
    if stage.store.is_fresh:
        forget_run(state)
    training = MotionTraining(
        train=folders["train"],
        test=folders["test"],
        network=params.network,
        network_config=getattr(params, params.network).model_dump(),
        samples=_samples(params),
        config=TrainConfig(
            seed=params.seed,
            num_steps=params.num_steps,
            pool_bytes=params.pool_mb * 2**20,
            save_every=params.save_every,
            log_every=params.log_every,
            optimiser=OptimiserConfig(**params.optimiser.model_dump()),
        ),
        start=start,
        state=state,
        threads=params.threads,
    )
    say(f"{stage.label}: {params.network}, {params.num_steps} steps, on {', '.join(f.name for f in folders['train'])}")
    with LiveLog(stage.label, Path("metrics/train_motion"), state.with_suffix(".jsonl"), params.num_steps) as log:
        run_ranks(
            partial(train_motion, training, Path("data/models/motion"), log),
            partial(train_motion, training, None, log_nothing),
            params.processes,
        )
    forget_run(state)


def _samples(params: TrainMotionParams) -> Samples:
    section = "paper_samples" if params.network == "transformer" else "samples"
    values = getattr(params, section).model_dump()
    try:
        if section == "paper_samples":
            return PaperSampleConfig(**values)
        return SampleConfig(**values | {name: tuple(values[name]) for name in ("rates", "rate_shares")})
    except ValueError as error:
        raise ParamsError(f"params.yaml: train_motion.{section}: {error}") from error
