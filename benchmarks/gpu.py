"""What a GPU does for training and for pictures, beside the same machine's processor.

    python benchmarks/gpu.py renderer [--batch 4] [--steps 20] [--device cpu]  # a step at the paper's size, with VGG-19
    python benchmarks/gpu.py motion [--steps 50] [--device cpu]  # a step of both motion networks
    python benchmarks/gpu.py pictures CLIP.mp4  # RIFE, warp over it and a generator, and how far the pictures differ
    python benchmarks/gpu.py items data/sample [--processes 4] [--device cpu]  # whole items of background and render

renderer: the paper's widths and losses at 480 x 320, two predicted frames; VGG-19 has random weights, which take the
same time. Seconds are wall time, medians over the steps after the first five (one on a processor); the batch is drawn
ahead on the processor, labels included. --device cpu hides the GPU; all of the machine's threads are used.
items: tables in, tables out (decoding and PNG included), key step 8, by processes of one thread each that share the
GPU, or the processor's cores; the batch's clips, poses and backgrounds must have been made.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if TYPE_CHECKING:  # torch must not be imported before it is told which devices there are
    from multiprocessing.synchronize import Barrier

    from torch import Tensor

    from models.measures import Image
    from models.renderer.device import Device

NOT_COUNTED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["renderer", "motion", "pictures", "items"])
    parser.add_argument("input", nargs="?", help="pictures: a clip.  items: a batch's folder")
    parser.add_argument("--processes", type=int, default=1, help="of items")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --device cpu measures the processor")
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.what} on {where}, torch {torch.__version__}", flush=True)
    if options.what == "renderer":
        measure_renderer(options.batch, options.steps)
    elif options.what == "motion":
        measure_motion(options.steps)
    elif options.input is None:
        parser.error(f"{options.what} needs an input")
    elif options.what == "items":
        measure_items(Path(options.input), options.device, options.processes)
    else:
        measure_pictures(options.input)


class Stamps:
    """When each step was logged; its losses have come back from the device by then."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: dict[str, float] = {}

    def __call__(self, _step: int, values: Mapping[str, float]) -> None:
        self.times.append(time.perf_counter())
        self.losses = dict(values)

    def show(self, name: str, items: int) -> None:
        import torch

        first = NOT_COUNTED if torch.cuda.is_available() else 1
        steps = [b - a for a, b in zip(self.times[first - 1 :], self.times[first:], strict=False)]
        seconds = statistics.median(steps)
        memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""
        total = self.losses.get("total", float("nan"))
        print(f"{name}: {seconds:.3f} s a step, {items / seconds:.1f} items/s{memory}, loss {total:.3f}", flush=True)


def measure_renderer(batch_size: int, num_steps: int) -> None:
    import torch

    import benchmarks.renderer_step as bench
    from models.renderer.discriminator import PAPER_DISCRIMINATOR, Discriminator
    from models.renderer.generator import PAPER_GENERATOR, Generator
    from models.renderer.losses import PAPER_WEIGHTS, load_perceptual_loss
    from models.renderer.training import RendererTrainConfig, train

    bench.BATCH = batch_size
    torch.manual_seed(0)
    config = RendererTrainConfig(
        seed=0, num_steps=num_steps, num_frames=bench.NUM_FRAMES, grow_every=None, max_frames=bench.NUM_FRAMES,
        passes="lean", weights=PAPER_WEIGHTS, optimiser=bench.OPTIMISER, discriminator_rate=4e-4, save_every=10**9,
        log_every=1, evaluate_every=10**9, patience=None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vgg19.pth")
        torch.save(random_vgg(), path)
        perceptual = load_perceptual_loss(path)
    stamps = Stamps()
    networks = Generator(PAPER_GENERATOR), Discriminator(PAPER_DISCRIMINATOR)
    train(*networks, perceptual, bench.Samples(320, 480), lambda _: {"score": 0.0}, config, None, stamps)
    stamps.show(f"renderer, batch {batch_size} of 2 predicted frames", batch_size)


def random_vgg() -> "dict[str, Tensor]":
    """VGG-19's weights in torchvision's names and shapes, random."""
    from torch import nn

    layers: list[Any] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
            channels = width
        layers.append(nn.MaxPool2d(2))
    return {f"features.{name}": value for name, value in nn.Sequential(*layers).state_dict().items()}


def measure_motion(num_steps: int) -> None:
    import numpy as np
    import torch
    from torch import nn

    from models.motion.paper_samples import PaperSampleConfig
    from models.motion.recipes import PaperRecipe, Recipe, TangentRecipe
    from models.motion.samples import SampleConfig
    from models.motion.tangents import TangentConfig, TangentNetwork
    from models.motion.training import TrainConfig, train
    from models.motion.transformer import MotionTransformer, TransformerConfig
    from models.motion.views import measure_normalisation
    from models.training import OptimiserConfig

    rng = np.random.default_rng(0)
    t = np.arange(400)[:, None, None] / 60
    points = [
        (rng.normal(0, 1, (1, 19, 2)) + rng.normal(0, 0.2, (1, 19, 2)) * np.sin(t * rng.uniform(1, 9))).astype("f4")
        for _ in range(256)
    ]

    class Points:
        def __init__(self) -> None:
            self.group_bytes = [sum(x.nbytes for x in points)]

        def read_group(self, _index: int) -> list[Any]:
            return points

    optimiser = OptimiserConfig(
        kind="adamw", learning_rate=1e-4, betas=(0.9, 0.98), weight_decay=0.01, clip_norm=1.0, warmup_steps=0,
        cosine_share=0.0, halve_every=None, ema=0.95,
    )  # fmt: skip
    config = TrainConfig(
        seed=1, num_steps=num_steps, pool_bytes=10**9, save_every=10**9, log_every=1, optimiser=optimiser
    )

    def measure(name: str, network: nn.Module, make_recipe: Callable[[], Recipe], items: int) -> None:
        network.rows.set(measure_normalisation(points))
        stamps = Stamps()
        train(network, make_recipe(), Points(), config, None, stamps)
        stamps.show(name, items)

    torch.manual_seed(0)
    tangents = TangentNetwork(
        TangentConfig(width=128, num_heads=4, num_detector_blocks=3, num_tangent_blocks=4, reach=40)
    )
    recipe = TangentRecipe(
        SampleConfig(
            rates=(4, 6, 8, 12, 16, 24), rate_shares=(0.2, 0.05, 0.3, 0.05, 0.35, 0.05), min_frames=33,
            max_frames=321, num_key_tokens=768, clean_share=0.5, taught_share=0.25, speed_range=(0.75, 1.35),
            size_range=(0.75, 1.33), roll_rad=0.15, max_faulty_keys=6,
        )
    )  # fmt: skip
    measure("tangents, 768 keys", tangents, lambda: recipe, 768)
    transformer = MotionTransformer(
        TransformerConfig(
            width=128, num_heads=8, feedforward=256, num_encoder_layers=6, num_decoder_layers=6, dropout=0.1,
            encoder_mask="exclude",
        )
    )  # fmt: skip
    samples = PaperSampleConfig(rate=8, num_frames=321, batch_size=64, noise_keys=(15, 15, 8))
    measure("transformer, 64 clips of 321", transformer, lambda: PaperRecipe(samples, transformer.rows.get()), 64)


def measure_pictures(clip: str) -> None:
    """Every second frame of the clip's first 33 is a key; times are of one process."""
    import cv2
    import numpy as np
    import torch

    from models.renderer.device import open_device
    from models.renderer.generator import PAPER_GENERATOR, Generator
    from models.renderer.keys import KeyPair, WeightsError
    from models.renderer.methods import render_between
    from models.renderer.neural import NeuralPair, Renderer

    film = cv2.VideoCapture(clip)
    images = [image for ok, image in (film.read() for _ in range(33)) if ok]
    height, width = images[0].shape[:2]

    def compare(name: str, run: "Callable[[str, int], Image]", count: int) -> None:
        made: dict[str, list[Any]] = {}
        seconds: dict[str, float] = {}
        for device, number in (("cuda", count), ("cpu", max(1, count // 4))):
            try:
                run(device, 0)  # loads and warms up
                start = time.perf_counter()
                made[device] = [run(device, n) for n in range(number)]
                seconds[device] = (time.perf_counter() - start) / number
            except WeightsError as error:
                print(f"{name}: {error}")
                return
        off = np.abs(np.array(made["cuda"][: len(made["cpu"])], int) - np.array(made["cpu"], int))
        print(
            f"{name}: GPU {seconds['cuda'] * 1e3:.1f} ms, CPU {seconds['cpu'] * 1e3:.1f} ms a frame,"
            f" {seconds['cpu'] / seconds['cuda']:.1f} times; levels off: mean {off.mean():.4f}, most {off.max()},"
            f" {(off > 0).mean():.2%} of the values",
            flush=True,
        )

    def rife(scale: int) -> "Callable[[str, int], Image]":
        large = [cv2.resize(image, None, fx=scale, fy=scale) for image in images]

        def run(device: str, number: int) -> "Image":
            first, last = large[number % 16 * 2], large[number % 16 * 2 + 2]
            return render_between("rife", KeyPair(first, last), [0.5], device=device)[0].image

        return run

    compare(f"RIFE, {width} x {height}", rife(1), 32)
    compare(f"RIFE, {2 * width} x {2 * height}", rife(2), 16)
    torch.manual_seed(0)
    generator = Generator(PAPER_GENERATOR).eval()
    joints_JD = np.column_stack([np.linspace(0.3, 0.7, 19) * width, np.linspace(0.2, 0.9, 19) * height, np.ones(19)])

    def neural(device: str, number: int) -> "Image":
        renderer = Renderer(generator.to(open_device(device)), 320, 480)
        return NeuralPair(images[number], renderer).next(joints_JD, images[number]).image

    compare("neural, the paper's size", neural, 32)


def measure_items(batch: Path, device: str, num_processes: int) -> None:
    """A process does every item of the batch once unmeasured, and once measured, all of them at the same time."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    for what in ("background", "render"):
        barrier = context.Barrier(num_processes)
        with context.Pool(num_processes, _begin_items, (barrier,)) as pool:
            done = pool.starmap(_do_items, [(what, batch, device)] * num_processes, chunksize=1)
        wall_s = max(end for _, _, end in done) - min(start for _, start, _ in done)
        frames = sum(number for number, _, _ in done)
        print(
            f"{what}, RIFE on {device}: {num_processes} processes, {frames} frames of clips in {wall_s:.1f} s:"
            f" {wall_s / frames * 1e3:.1f} ms a frame, {wall_s * num_processes / frames * 1e3:.1f} of each process",
            flush=True,
        )


def _begin_items(barrier: "Barrier") -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    globals()["_BARRIER"] = barrier


def _do_items(what: str, batch: Path, device: "Device") -> tuple[int, float, float]:
    """Returns: the clips' frames, and when the measured run began and ended."""
    from tasks.background import make_backgrounds, plan_background
    from tasks.items import item_key
    from tasks.render import RenderSettings, plan_render, render_chunk
    from tasks.tables import Table, list_tables

    clips = list_tables(batch / "clips")
    settings = RenderSettings(8, "robust", "warp", "", "rife", "", "base", device)
    poses, backgrounds = batch / "poses", batch / "backgrounds-8"

    def run() -> None:
        for clip in clips:
            if what == "background":
                for item in plan_background(clip, 8, "rife", "", item_key, device).items:
                    make_backgrounds(item.args)
            else:
                for item in plan_render(clip, poses, backgrounds, settings, item_key).items:
                    render_chunk(item.args)

    run()  # loads the weights and warms up
    globals()["_BARRIER"].wait()
    start = time.time()
    run()
    return sum(Table("clip", clip).num_rows for clip in clips), start, time.time()


if __name__ == "__main__":
    main()
