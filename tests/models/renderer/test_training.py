import json
from dataclasses import replace

import pytest
import torch

from models.renderer.blocks import fold_spectral_norm, normalised
from models.renderer.discriminator import Discriminator
from models.renderer.generator import Generator
from models.renderer.held_out import HeldOut, to_image
from models.renderer.losses import PAPER_WEIGHTS, PerceptualLoss
from models.renderer.training import LOSSES, RendererTrainConfig, predict, train
from models.training import OptimiserConfig, TrainingError
from tests.models.ranks import start_ranks
from tests.models.renderer.pictures import DISCRIMINATOR, GENERATOR, Discs

CONFIG = RendererTrainConfig(
    seed=3,
    num_steps=6,
    num_frames=1,
    grow_every=4,
    max_frames=2,
    passes="lean",
    weights=PAPER_WEIGHTS,
    optimiser=OptimiserConfig(
        kind="amsgrad", learning_rate=2e-3, betas=(0.0, 0.999), weight_decay=0.0, clip_norm=None, warmup_steps=0,
        cosine_share=0.0, halve_every=None, ema=0.9,
    ),
    discriminator_rate=1e-3,
    save_every=2,
    log_every=3,
    evaluate_every=5,
    patience=None,
)  # fmt: skip
NOT_JUDGED = replace(PAPER_WEIGHTS, raw=0.0, face=0.0, hand=0.0, features=0.0, perceptual=0.0, l2=10.0, mask=0.1)


def networks():
    torch.manual_seed(0)
    return Generator(GENERATOR), Discriminator(DISCRIMINATOR)


def held_out(num_samples=3):
    return judge([Discs().sample([99, n], 2) for n in range(num_samples)])


def judge(batches):
    people = [x_HW.numpy() > 0 for batch in batches for x_HW in batch.person_BS1HW.flatten(0, 2)]
    return HeldOut(batches, people, has_lpips=False)


def run(config, state=None, log=None, *, score=None, source=None, made=None, perceptual=None):
    logged = []
    generator, discriminator = made or networks()
    result = train(
        generator,
        discriminator,
        perceptual,
        source or Discs(),
        score or held_out().score,
        config,
        state,
        log or (lambda step, values: logged.append((step, values))),
    )
    return result, logged


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


class KilledError(Exception):
    pass


@pytest.mark.parametrize("passes", ["lean", "paper"])
def test_a_run_that_was_cut_off_ends_with_the_weights_of_one_that_was_not(passes, tmp_path):
    config, state = replace(CONFIG, passes=passes), tmp_path / "state.safetensors"
    made = networks()
    whole, logged = run(config, made=made)
    assert [step for step, _ in logged] == [3, 5, 6]
    assert tuple(logged[0][1]) == LOSSES

    def die(step, _):
        if step == 5:
            raise KilledError  # the last state saved is that of step 4

    cut_off = networks()
    with pytest.raises(KilledError):
        run(config, state, die, made=cut_off)
    again = networks()
    resumed, rest = run(config, state, made=again)
    assert (resumed.first_step, resumed.last_step, resumed.best_step) == (4, 6, whole.best_step)
    assert same(resumed.generator, whole.generator)
    assert same(again[0], made[0])  # the weights of the last step, and the vectors of spectral norm
    assert same(again[1], made[1])
    assert rest == logged[1:]
    done, nothing = run(config, state)
    assert (done.first_step, nothing) == (6, [])
    assert same(done.generator, whole.generator)


def test_it_learns_to_paint_what_the_background_does_not_show():
    judged = held_out()
    config = replace(CONFIG, num_steps=40, grow_every=None, weights=NOT_JUDGED, log_every=20, evaluate_every=20)
    torch.manual_seed(0)
    generator, discriminator = Generator(replace(GENERATOR, paints_change=True)), Discriminator(DISCRIMINATOR)
    before = judged.score(generator)
    assert before["person_psnr"] == before["background_person_psnr"]  # it begins with the background
    optimiser = replace(CONFIG.optimiser, learning_rate=1e-2, betas=(0.5, 0.999))
    result, logged = run(replace(config, optimiser=optimiser), score=judged.score, made=(generator, discriminator))
    after = judged.score(result.generator)
    assert after["background_person_psnr"] == before["background_person_psnr"]
    assert after["person_psnr"] > after["background_person_psnr"] + 3
    assert after["score"] == max(values["score"] for _, values in logged if "score" in values)


def test_the_discriminator_learns_in_its_own_step_alone(monkeypatch):
    """After the generator's step, no weight of the discriminator has a gradient of it, or is changed."""
    from models.renderer import training

    generator, discriminator = networks()
    after_own = []
    own_step = training._Update._teach_discriminator

    def record(self, real, fake):
        found = own_step(self, real, fake)
        after_own.append([(p.detach().clone(), p.grad.clone()) for p in discriminator.parameters()])
        return found

    monkeypatch.setattr(training._Update, "_teach_discriminator", record)
    before = [p.detach().clone() for p in discriminator.parameters()]
    run(replace(CONFIG, num_steps=1), made=(generator, discriminator))
    (after,) = after_own
    for parameter, first, (value, gradient) in zip(discriminator.parameters(), before, after, strict=True):
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, gradient)
        assert not torch.equal(value, first)
    assert all(p.requires_grad for p in discriminator.parameters())


@pytest.mark.parametrize(
    ("weights", "passes", "expected"),
    [
        # A pair in the discriminator's step. In the generator's the fused picture, true and generated, and the other
        # three parts generated; hands and face each in the networks of their own.
        (PAPER_WEIGHTS, "lean", {"picture": 1 + 2 + 1, "face": 1 + 1, "hand": 1 + 1}),
        (PAPER_WEIGHTS, "paper", {"picture": 2 + 4, "face": 1 + 2, "hand": 1 + 2}),
        (replace(PAPER_WEIGHTS, features=0.0), "lean", {"picture": 1 + 1, "face": 1 + 1, "hand": 1 + 1}),
        (replace(PAPER_WEIGHTS, features=0.0, face=0.0, hand=0.0), "lean", {"picture": 2, "face": 0, "hand": 0}),
        (NOT_JUDGED, "lean", {"picture": 0, "face": 0, "hand": 0}),
    ],
)
def test_what_counts_nothing_is_not_computed(weights, passes, expected):
    generator, discriminator = networks()
    calls = dict.fromkeys(expected, 0)

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    for name in expected:
        getattr(discriminator, name).register_forward_hook(count(name))
    perceptual = PerceptualLoss()
    perceptual.register_forward_hook(count("picture"))
    config = replace(CONFIG, num_steps=1, weights=replace(weights, perceptual=0.0), passes=passes)
    _, logged = run(config, made=(generator, discriminator), perceptual=perceptual)
    assert calls == expected
    assert logged[-1][1]["perceptual"] == 0


def test_passes_differ_in_cost_and_hardly_in_what_is_learnt():
    """The first step's losses: only the spectral norm's vectors and the discriminator's last update differ."""
    (_, lean), (_, paper) = (run(replace(CONFIG, num_steps=1, passes=passes)) for passes in ("lean", "paper"))
    for name, value in lean[-1][1].items():
        assert value == pytest.approx(paper[-1][1][name], rel=0.1, abs=0.05), name


def test_training_ends_when_the_score_has_stopped_to_grow_and_keeps_the_best(tmp_path):
    scores = iter([0.5, 1.0, 3.0, 2.0, 2.5, 9.0])  # the first is the untrained generator's
    seen = []

    def score(generator):
        seen.append({name: value.clone() for name, value in generator.state_dict().items()})
        return {"score": next(scores)}

    state = tmp_path / "state.safetensors"
    config = replace(CONFIG, num_steps=50, evaluate_every=1, log_every=50, save_every=50, patience=2)
    result, logged = run(config, state, score=score)
    assert (result.last_step, result.best_step) == (4, 2)
    assert all(torch.equal(value, seen[2][name]) for name, value in result.generator.state_dict().items())
    assert logged[-1][1].keys() > {"score", "total"}
    again, nothing = run(config, state, score=score)
    assert (again.first_step, again.last_step, nothing) == (4, 4, [])
    assert same(again.generator, result.generator)


def test_training_that_makes_it_worse_keeps_the_start():
    scores = iter([3.0, 2.0, 1.0])
    seen = []

    def score(generator):
        seen.append({name: value.clone() for name, value in generator.state_dict().items()})
        return {"score": next(scores)}

    result, _ = run(replace(CONFIG, num_steps=2, evaluate_every=1, log_every=2, save_every=2), None, score=score)
    assert (result.last_step, result.best_step) == (2, 0)
    assert all(torch.equal(value, seen[0][name]) for name, value in result.generator.state_dict().items())


def test_a_loss_that_is_not_finite_stops_with_its_step():
    class Broken(Discs):
        def draw(self, step, *rest):
            batch = super().draw(step, *rest)
            return batch if step < 1 else batch._replace(pictures_BSCHW=batch.pictures_BSCHW * torch.nan)

    with pytest.raises(TrainingError, match=r"step 1: the loss is not finite \(discriminator nan, total nan"):
        run(CONFIG, source=Broken())


def test_samples_grow_up_to_a_bound():
    config = replace(CONFIG, num_frames=2, grow_every=10, max_frames=4)
    assert [config.frames_at(step) for step in (0, 9, 10, 20, 30)] == [2, 2, 3, 4, 4]
    assert replace(config, grow_every=None).frames_at(1000) == 2


def test_each_frame_is_made_beside_what_was_made_before_it():
    generator = fold_spectral_norm(networks()[0])
    batch = Discs().sample([1], 2)
    first, second = predict(generator, batch)[0]
    with torch.inference_mode():
        expected = generator(batch.labels_BSCHW[:, 1], batch.backgrounds_BSCHW[:, 1], first[None])[0]
    torch.testing.assert_close(second[None], expected)
    assert (first - batch.previous_BCHW[0]).abs().max() > 0.1


def test_weights_are_normalised_once_and_in_float32_whatever_autocast_says():
    plain, within = networks()[0].conditions[1], networks()[0]
    with normalised(within), torch.autocast("cpu", dtype=torch.bfloat16):
        first, second = within.conditions[1].weight, within.conditions[1].weight
    assert first is second
    assert first.dtype == torch.float32
    assert torch.equal(first, plain.weight)  # after one power step
    assert torch.equal(within.conditions[1].parametrizations.weight[0]._u, plain.parametrizations.weight[0]._u)
    assert not torch.equal(within.conditions[1].weight, first)  # outside, the next


def test_what_is_held_out_is_measured_on_the_person():
    batch = Discs().sample([99, 0], 2)
    judged = judge([batch])
    error = (batch.backgrounds_BSCHW - batch.pictures_BSCHW).permute(0, 1, 3, 4, 2)[batch.person_BS1HW[:, :, 0] > 0]
    expected = 10 * torch.log10(4 / error.square().mean())  # the two discs are of one size
    assert judged.compare(judged.backgrounds)["person_psnr"] == pytest.approx(expected.item(), abs=0.05)
    assert judged.compare(judged.truths)["person_psnr"] == 100
    assert to_image(torch.tensor([-1.0, 0.0, 1.0])[:, None, None])[0, 0].tolist() == [255, 128, 0]
    with pytest.raises(ValueError, match="no person"):
        judge([batch._replace(person_BS1HW=batch.person_BS1HW * 0)])
    with pytest.raises(ValueError, match="no key is held out"):
        judge([])


def run_few_steps():
    """What is logged, and the sums of the weights."""
    made = networks()
    _, logged = run(replace(CONFIG, num_steps=4, log_every=1), source=Discs(has_hand=False), made=made)
    total = [sum(float(p.detach().double().abs().sum()) for p in network.parameters()) for network in made]
    return {"log": logged, "weights": total}


WORKER = """
import json, torch
torch.set_num_threads(1)
from tests.models.renderer.test_training import run_few_steps
print(json.dumps(run_few_steps()))
"""


def test_two_processes_give_the_single_processs_losses():
    processes = start_ranks(WORKER)
    single = run_few_steps()
    first, second = (json.loads(process.communicate(timeout=200)[0]) for process in processes)
    assert second["log"] == []  # the first process alone logs
    assert second["weights"] == first["weights"]
    assert first["weights"] == pytest.approx(single["weights"], rel=1e-4)
    for (step, one), (same_step, two) in zip(single["log"], first["log"], strict=True):
        assert step == same_step
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-2, abs=1e-3), (step, name)
