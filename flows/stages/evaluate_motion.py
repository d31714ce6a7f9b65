"""Stage evaluate_motion: the motion network beside the classical methods, on the test subsets' sequences."""

from pathlib import Path

from flows.progress import Progress
from flows.stage import Stage, empty_folder, write_json
from tasks.evaluate_motion import MotionTest, evaluate_motion, plot_rows, summarise, write_animation
from tasks.video import ffmpeg_path
from tasks.view_shards import ViewShards

TOOLS = ("ffmpeg", "numpy", "opencv", "pyarrow", "scipy", "torch")


def run(stage: Stage) -> None:
    params = stage.params.evaluate_motion
    test = MotionTest(
        train=stage.subset_folders("train"),
        test=stage.subset_folders("test"),
        model=Path("data/models/motion"),
        key_steps=params.key_steps,
        max_frames=params.max_frames,
        noise_keys=params.noise_keys,
        seed=params.seed,
    )
    with Progress(stage.label, len(ViewShards(test.test).index()), "sequences") as progress:
        result = evaluate_motion(test, progress.advance)
    write_json(Path("metrics/motion.json"), summarise(result))
    write_json(Path("metrics/plots/motion.json"), plot_rows(result))
    folder = empty_folder(stage.data("evaluations-motion"))
    write_animation(folder / "motion.mp4", test, result.clips, ffmpeg_path(stage.params.run.ffmpeg))
