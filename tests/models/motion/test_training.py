import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.motion.paper_samples import PaperSampleConfig
from models.motion.recipes import PaperRecipe, TangentRecipe
from models.motion.tangents import TangentConfig, TangentNetwork
from models.motion.training import SequencePool, TrainConfig, train
from models.motion.transformer import MotionTransformer, TransformerConfig
from models.motion.views import measure_normalisation
from models.training import OptimiserConfig, TrainingError, learning_rate
from tests.models.motion.motions import RECIPE, swaying
from tests.models.ranks import start_ranks

OPTIMISER = OptimiserConfig(
    kind="adamw", learning_rate=1e-3, betas=(0.9, 0.98), weight_decay=0.01, clip_norm=1.0, warmup_steps=2,
    cosine_share=0.5, halve_every=None, ema=0.9,
)  # fmt: skip
CONFIG = TrainConfig(seed=3, num_steps=6, pool_bytes=10**8, save_every=2, log_every=1, optimiser=OPTIMISER)
GROUPS = [[swaying(n, n) for n in lengths] for lengths in ((400, 90), (250,), (130, 70))]


class Source:
    """Groups in memory; counts what is read."""

    def __init__(self, groups=GROUPS):
        self.groups, self.reads = groups, []

    @property
    def group_bytes(self):
        return [sum(s.nbytes for s in group) for group in self.groups]

    def read_group(self, index):
        self.reads.append(index)
        return self.groups[index]


def make(kind):
    torch.manual_seed(0)
    rows = measure_normalisation([s for group in GROUPS for s in group])
    if kind == "tangents":
        config = TangentConfig(width=16, num_heads=2, num_detector_blocks=2, num_tangent_blocks=2, reach=8)
        network = TangentNetwork(config)
        network.rows.set(rows)
        return network, TangentRecipe(replace(RECIPE, num_key_tokens=96))
    network = MotionTransformer(
        TransformerConfig(
            width=16, num_heads=2, feedforward=16, num_encoder_layers=1, num_decoder_layers=1, dropout=0.1,
            encoder_mask="exclude",
        )
    )  # fmt: skip
    network.rows.set(rows)
    samples = PaperSampleConfig(rate=8, num_frames=161, batch_size=5, noise_keys=(6, 6, 3))
    return network, PaperRecipe(samples, network.rows.get())


def run(kind, config, state=None, source=None, network=None):
    made, recipe = make(kind)
    logged = []
    result = train(
        network or made, recipe, source or Source(), config, state, lambda step, values: logged.append((step, values))
    )
    return result, logged


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("kind", ["tangents", "transformer"])
def test_a_run_that_was_cut_off_ends_with_the_weights_of_one_that_was_not(kind, tmp_path):
    whole, logged = run(kind, CONFIG)
    state = tmp_path / "state.safetensors"

    class KilledError(Exception):
        pass

    def die_after_five(step, _):
        if step == 5:
            raise KilledError  # the last state saved is that of step 4

    made, recipe = make(kind)
    with pytest.raises(KilledError):
        train(made, recipe, Source(), CONFIG, state, die_after_five)
    resumed, rest = run(kind, CONFIG, state)
    assert resumed.first_step == 4
    assert_same(weights(whole.network), weights(resumed.network))
    assert rest == logged[4:]
    again, nothing = run(kind, CONFIG, state)  # a run that was finished
    assert (again.first_step, nothing) == (6, [])
    assert_same(weights(whole.network), weights(again.network))
    assert again.losses == resumed.losses == whole.losses == logged[-1][1]


def test_training_lowers_the_loss_and_logs_means():
    _, each = run("tangents", replace(CONFIG, num_steps=20))
    _, by_ten = run("tangents", replace(CONFIG, num_steps=150, log_every=50))
    assert [step for step, _ in by_ten] == [50, 100, 150]
    _, last = run("tangents", replace(CONFIG, num_steps=20, log_every=15))
    assert [step for step, _ in last] == [15, 20]
    assert last[0][1]["total"] == pytest.approx(np.mean([values["total"] for _, values in each[:15]]), rel=1e-5)
    assert last[1][1]["total"] == pytest.approx(np.mean([values["total"] for _, values in each[15:]]), rel=1e-5)
    assert by_ten[-1][1]["detector"] < 0.85 * by_ten[0][1]["detector"]


def test_a_loss_that_is_not_finite_stops_with_its_step_and_the_last_good_state(tmp_path):
    state = tmp_path / "state.safetensors"
    run("tangents", replace(CONFIG, num_steps=2), state)
    broken = [[sequence.copy() for sequence in group] for group in GROUPS]
    for group in broken:
        for sequence in group:
            sequence[:, 3] = np.nan
    with pytest.raises(TrainingError, match=rf"step 2: the loss is not finite.*last good state is in {state}"):
        run("tangents", CONFIG, state, Source(broken))
    resumed, _ = run("tangents", CONFIG, state)
    assert_same(weights(run("tangents", CONFIG)[0].network), weights(resumed.network))


def test_a_state_of_another_network_or_a_damaged_one_is_named(tmp_path):
    state = tmp_path / "state.safetensors"
    run("tangents", CONFIG, state)
    with pytest.raises(TrainingError, match=r"state.safetensors: not this training's state"):
        run("transformer", CONFIG, state)
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"remove it to start anew"):
        run("tangents", CONFIG, state)


def test_the_rate_rises_halves_and_falls_to_nothing():
    config = replace(OPTIMISER, warmup_steps=10, cosine_share=0.4, halve_every=30)
    rates = [learning_rate(config, step, 100) / 1e-3 for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[29:31] == [1, 0.5]
    assert rates[60] == pytest.approx(0.25)
    assert rates[80] == pytest.approx(0.25 * 0.5)  # half-way down the cosine
    assert 0 < rates[99] < 0.001


def test_a_pool_that_is_too_small_moves_through_all_groups_by_step_alone():
    groups = [[swaying(100, n)] for n in range(6)]
    size = groups[0][0].nbytes
    source = Source(groups)
    pool = SequencePool(source, 2 * size, frames_per_step=50, seed=1)
    seen = [[id(s) for s in pool.at(step)] for step in range(40)]
    assert all(len(step) <= 2 for step in seen)
    assert {each for step in seen for each in step} == {id(g[0]) for g in groups}
    # One new group every second step; at a turn the last of a pass may be the first of the next, and is not read again.
    assert 18 <= len(source.reads) <= 21
    other = SequencePool(Source(groups), 2 * size, frames_per_step=50, seed=1)
    assert [id(s) for s in other.at(33)] == seen[33]  # as a run sees it that goes on from there
    whole = Source(groups)
    pool = SequencePool(whole, 6 * size, frames_per_step=50, seed=1)
    assert [len(pool.at(step)) for step in range(40)] == [6] * 40
    assert len(whole.reads) == 6


def run_without_dropout(kind):
    """What is logged, and the sum of the weights; what chance drops in one process is not what it drops in two."""
    network, recipe = make(kind)
    if kind == "transformer":
        network.config = replace(network.config, dropout=0.0)
        for module in network.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    logged = []
    result = train(network, recipe, Source(), CONFIG, None, lambda step, values: logged.append([step, values]))
    total = sum(float(p.detach().double().abs().sum()) for p in result.network.parameters())
    return {"log": logged, "weights": total}


WORKER = """
import json, torch
from tests.models.motion.test_training import run_without_dropout
torch.set_num_threads(1)
print(json.dumps([run_without_dropout(kind) for kind in ("tangents", "transformer")]))
"""


def test_two_processes_give_the_single_processs_losses():
    processes = start_ranks(WORKER)
    singles = [run_without_dropout(kind) for kind in ("tangents", "transformer")]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [found["log"] for found in json.loads(outputs[1])] == [[], []]  # the first process alone logs
    for single, double in zip(singles, json.loads(outputs[0]), strict=True):
        for (step, one), (same_step, two) in zip(single["log"], double["log"], strict=True):
            assert step == same_step
            for name, value in one.items():
                assert two[name] == pytest.approx(value, rel=1e-4), (step, name)
        assert double["weights"] == pytest.approx(single["weights"], rel=1e-5)
