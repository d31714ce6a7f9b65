"""The motion transformer against another implementation of it: equal outputs, then inference and a training step.

    OMP_NUM_THREADS=1 python benchmarks/transformer.py [--module PATH.py[:NAME]] [--threads 1] [--repeat 7]

PATH.py is a file that defines NAME(config: dict) -> nn.Module, by default `build`. config has the fields of
TransformerConfig; the parameters have the names of the authors' checkpoints
(../shared/reference/state_dict_keys.json), whose values are loaded into them; forward(source, target, source_mask,
pad_mask) or forward(source, target, source_mask, pad_mask, rate) returns pred and reco, batch x 38 x frames.
Without it: benchmarks/plain_transformer.py.

Where ../shared/reference is there, the module is first held against its fixtures. Then both get the same weights of the
paper's size, and take turns. Medians; the ratio is that of the medians.
"""

import argparse
import importlib.util
import inspect
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models.motion.losses import motion_loss
from models.motion.transformer import (
    ENCODER_MASKS,
    EncoderMask,
    MotionTransformer,
    TransformerConfig,
    from_authors_state,
    interpolate_keys,
    to_authors_state,
)

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT.parent / "shared" / "reference" / "motion"
PLAIN = ROOT / "benchmarks" / "plain_transformer.py"
NUM_FRAMES, BATCH, RATE = 321, 8, 8
TOLERANCE = 1e-5
Forward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def paper_config(encoder_mask: EncoderMask) -> TransformerConfig:
    return TransformerConfig(
        width=128, num_heads=8, feedforward=256, num_encoder_layers=6, num_decoder_layers=6, dropout=0.1,
        encoder_mask=encoder_mask,
    )  # fmt: skip


def load_build(place: str) -> Callable[[dict[str, object]], nn.Module]:
    file, _, name = place.partition(":")
    path, name = Path(file), name or "build"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        sys.exit(f"{path}: no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        sys.exit(f"{path}: defines no {name}(config)")
    return getattr(module, name)


def build_other(build: Callable[[dict[str, object]], nn.Module], network: MotionTransformer) -> nn.Module:
    other = build(asdict(network.config)).eval()
    other.load_state_dict(to_authors_state(network))
    return other


def forward_of(module: nn.Module, rate: int) -> Forward:
    """One call for both: (source, source_mask, pad_mask) -> pred, reco."""
    if isinstance(module, MotionTransformer):
        return lambda source, hidden, pad: module(source, hidden, pad, rate)
    takes_rate = len(inspect.signature(module.forward).parameters) > 4

    def run(source: Tensor, hidden: Tensor, pad: Tensor) -> tuple[Tensor, Tensor]:
        target = interpolate_keys(source[:, :, ::rate], rate)
        return module(source, target, hidden, pad, *([rate] if takes_rate else []))

    return run


def largest_difference(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], hidden: Tensor, pad: Tensor) -> float:
    """Of pred where there is no padding, and of reco at keys."""
    used, key = ~pad[:, None].expand_as(a[0]), ~hidden[:, None].expand_as(a[1])
    return max((a[0] - b[0])[used].abs().max().item(), (a[1] - b[1])[key].abs().max().item())


def check_fixtures(build: Callable[[dict[str, object]], nn.Module]) -> None:
    if not REFERENCE.is_dir():
        print("fixtures: not on this machine, not checked")
        return
    state = torch.load(REFERENCE / "motion_state_dict.pt", weights_only=True)
    with np.load(REFERENCE / "motion_io.npz") as file:
        io = {key: torch.from_numpy(file[key]) for key in file.files}
    for encoder_mask, suffix in (("exclude", ""), ("plus-one", "_diagonal_plus_one")):
        ours = from_authors_state(state, num_heads=8, encoder_mask=encoder_mask)
        off = {}
        for name, module in (("ours", ours), ("module", build_other(build, ours))):
            for case, rate in (("a", 8), ("b", 16)):
                hidden, pad = io[f"{case}_source_mask"], io[f"{case}_pad_mask"]
                with torch.inference_mode():
                    found = forward_of(module, rate)(io[f"{case}_source"], hidden, pad)
                truth = (io[f"{case}_pred{suffix}"], io[f"{case}_reco{suffix}"])
                off[name] = max(off.get(name, 0.0), largest_difference(found, truth, hidden, pad))
        print(f"fixtures, {encoder_mask}: off by at most " + ", ".join(f"{k} {v:.1e}" for k, v in off.items()))
        if max(off.values()) > TOLERANCE:
            sys.exit(f"more than {TOLERANCE:g}: not the same network")


class Cost(NamedTuple):
    """Medians. processor_s leaves out what other work on the machine takes."""

    wall_s: float
    processor_s: float


def take_turns(runs: list[Callable[[], object]], repeat: int) -> list[Cost]:
    """Of each, run in turns, after one run that is not counted."""
    costs: list[list[Cost]] = [[] for _ in runs]
    for turn in range(repeat + 1):
        for run, own in zip(runs, costs, strict=True):
            wall, processor = time.perf_counter(), time.process_time()
            run()
            if turn:
                own.append(Cost(time.perf_counter() - wall, time.process_time() - processor))
    return [Cost(*(statistics.median(values) for values in zip(*own, strict=True))) for own in costs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", default=str(PLAIN), metavar="PATH.py[:NAME]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    build = load_build(options.module)
    check_fixtures(build)

    torch.manual_seed(0)
    truth = torch.randn(BATCH, 38, NUM_FRAMES)
    pad = torch.zeros(BATCH, NUM_FRAMES, dtype=torch.bool)
    pad[-1, 201:] = True  # one short clip, as in a batch of the paper's
    hidden = pad | (torch.arange(NUM_FRAMES) % RATE != 0)
    source = truth.masked_fill(hidden[:, None], 0)
    for encoder_mask in ENCODER_MASKS:
        ours = MotionTransformer(paper_config(encoder_mask)).eval()
        pair = [ours, build_other(build, ours)]
        forwards = [forward_of(module, RATE) for module in pair]
        with torch.inference_mode():
            answers = [forward(source, hidden, pad) for forward in forwards]
            off = largest_difference(*answers, hidden, pad)
            if off > TOLERANCE:
                sys.exit(f"outputs differ by {off:.1e}, more than {TOLERANCE:g}")
            inference = take_turns([lambda f=f: f(source, hidden, pad) for f in forwards], options.repeat)
        optimisers = [torch.optim.Adam(m.train().parameters(), 1e-4, (0.5, 0.999), amsgrad=True) for m in pair]

        def step(forward: Forward, optimiser: torch.optim.Optimizer) -> None:
            optimiser.zero_grad(set_to_none=True)
            motion_loss(*forward(source, hidden, pad), truth, hidden, pad).total.backward()
            optimiser.step()

        training = take_turns(
            [lambda f=f, o=o: step(f, o) for f, o in zip(forwards, optimisers, strict=True)], options.repeat
        )
        print(f"{encoder_mask}, {options.threads} thread(s): outputs differ by at most {off:.1e}")
        for name, (mine, other) in (("inference", inference), ("training step", training)):
            print(
                f"  {name}: ours {mine.wall_s:.3f} s, module {other.wall_s:.3f} s,"
                f" {other.wall_s / mine.wall_s:.2f} times; processor {mine.processor_s:.3f} and"
                f" {other.processor_s:.3f} s, {other.processor_s / mine.processor_s:.2f} times"
            )


if __name__ == "__main__":
    main()
