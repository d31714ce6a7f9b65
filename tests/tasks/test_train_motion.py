import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from models.checkpoint import load, save
from models.motion.inference import inbetween
from models.motion.paper_samples import PaperSampleConfig
from models.motion.tangents import TangentConfig, TangentNetwork
from models.motion.transformer import TransformerConfig
from tasks.errors import ParamsError, SourceError, TableError
from tasks.items import hash_file
from tasks.tables import write_table
from tasks.train_motion import MotionTraining, train_motion
from tasks.view_shards import SETTINGS
from tests.models.motion.motions import RECIPE
from tests.models.motion.test_training import CONFIG
from tests.tasks.test_view_shards import make_shards

NETWORK = TangentConfig(width=16, num_heads=2, num_detector_blocks=2, num_tangent_blocks=2, reach=8)
TRANSFORMER = TransformerConfig(
    width=16, num_heads=2, feedforward=16, num_encoder_layers=1, num_decoder_layers=1, dropout=0.1,
    encoder_mask="exclude",
)  # fmt: skip
SAMPLES = replace(RECIPE, min_frames=17, max_frames=65, num_key_tokens=32)
PAPER_SAMPLES = PaperSampleConfig(rate=8, num_frames=41, batch_size=3, noise_keys=(2, 2, 1))


@pytest.fixture
def training(tmp_path):
    return MotionTraining(
        train=[make_shards(tmp_path, "cmu", "ab"), make_shards(tmp_path, "ours", "c", lengths=60)],
        test=[make_shards(tmp_path, "held", "d")],
        network="tangents",
        network_config=asdict(NETWORK),
        samples=SAMPLES,
        config=replace(CONFIG, num_steps=3),
        start=tmp_path / "no-model",
        state=tmp_path / "state.safetensors",
        threads=1,
    )


def run(training, out):
    logged = []
    train_motion(training, out, lambda step, values: logged.append((step, values)))
    return logged


def sequence(subset, name, num_frames=40, licence="Apache-2.0"):
    return {
        "subset": subset,
        "subject": f"{subset}/s",
        "sequence": name,
        "licence": licence,
        "source_sha256": f"hash of {subset}/s {name}",
        "num_frames": num_frames,
    }


def make_start(folder, **provenance):
    torch.manual_seed(5)
    save(folder, TangentNetwork(NETWORK), NETWORK, provenance)
    return folder


def test_the_checkpoint_tells_every_sequence_with_its_hash_and_licence(training, tmp_path):
    out = tmp_path / "motion"
    logged = run(training, out)
    assert [step for step, _ in logged] == [1, 2, 3]
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["sequences"] == [sequence("cmu", "a"), sequence("cmu", "b"), sequence("ours", "c", 60)]
    assert provenance["licences"] == ["Apache-2.0"]
    assert provenance["start"] is None
    assert provenance["training"]["seed"] == 3
    assert provenance["training"]["optimiser"]["learning_rate"] == 1e-3
    assert load(out).config == NETWORK
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    training.state.unlink()
    run(training, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_the_transformer_is_trained_too_and_answers(training, tmp_path):
    transformer = replace(training, network="transformer", network_config=asdict(TRANSFORMER), samples=PAPER_SAMPLES)
    logged = run(transformer, tmp_path / "motion")
    assert set(logged[-1][1]) == {"total", "reco", "pred"}
    keys = np.random.default_rng(0).normal(0, 0.3, (4, 19, 2))
    assert np.isfinite(inbetween(keys, 8, tmp_path / "motion")).all()


def test_a_process_that_is_not_the_first_writes_no_checkpoint(training, tmp_path):
    run(training, None)
    assert {path.name for path in tmp_path.iterdir()} == {"joints", "views", "store", "state.safetensors"}


def test_a_training_goes_on_from_its_start_and_carries_on_what_that_was_trained_on(training, tmp_path):
    older = {"folder": "older", "sha256": "0", "sequences": [sequence("oldest", "x", licence="CC BY-SA 3.0")]}
    start = make_start(
        tmp_path / "start",
        sequences=[sequence("old", "y", licence="CMU")],
        licences=["CC BY-SA 3.0", "CMU"],
        start=older,
    )
    still = replace(CONFIG.optimiser, learning_rate=1e-12, weight_decay=0.0)
    go_on = replace(training, start=start, config=replace(training.config, num_steps=1, optimiser=still))
    run(go_on, tmp_path / "motion")
    for name, value in load(start).state_dict().items():
        torch.testing.assert_close(load(tmp_path / "motion").state_dict()[name], value, atol=1e-10, rtol=0)
    provenance = json.loads((tmp_path / "motion/provenance.json").read_text())
    assert provenance["start"] == {
        "folder": start.as_posix(),
        "sha256": hash_file(start / "model.safetensors"),
        "sequences": [sequence("old", "y", licence="CMU"), sequence("oldest", "x", licence="CC BY-SA 3.0")],
    }
    assert provenance["licences"] == ["Apache-2.0", "CC BY-SA 3.0", "CMU"]


def refused(training, error, message):
    with pytest.raises(error, match=message) as caught:
        run(training, training.state.with_name("motion"))
    assert "\n" not in str(caught.value)
    assert not training.state.with_name("motion").exists()


def test_a_start_of_another_size_or_network_is_refused_with_both(training, tmp_path):
    start = make_start(tmp_path / "start")
    wider = asdict(replace(NETWORK, width=32))
    refused(
        replace(training, start=start, network_config=wider),
        SourceError,
        r"^train_motion\.start: .*start holds tangents \{'width': 16,.* where tangents \{'width': 32",
    )
    refused(
        replace(
            training, start=start, network="transformer", network_config=asdict(TRANSFORMER), samples=PAPER_SAMPLES
        ),
        SourceError,
        r"holds tangents \{.* where transformer \{'width': 16",
    )


def test_a_start_that_is_no_checkpoint_is_refused_and_not_taken_for_nothing(training, tmp_path):
    refused(
        replace(training, start=tmp_path / "mistyped"),
        SourceError,
        r"^train_motion\.start: .*mistyped/config\.json: there is no such file.*or name data/raw/embedded/no-model",
    )
    start = make_start(tmp_path / "start")
    (start / "model.safetensors").write_bytes(b"")
    refused(replace(training, start=start), SourceError, "not a readable safetensors file")
    start = make_start(tmp_path / "start")
    (start / "provenance.json").write_text("[]")
    refused(replace(training, start=start), SourceError, r"provenance\.json: not a checkpoint's provenance")


def test_a_test_sequence_that_is_trained_on_is_refused(training, tmp_path):
    refused(
        replace(training, test=[make_shards(tmp_path, "other", "b")]),
        TableError,
        r"^sequence other/s/b of other \(test\) is also in cmu \(train\) as cmu/s/b; write",
    )
    start = make_start(tmp_path / "start", sequences=[sequence("old", "d")])
    refused(
        replace(training, start=start),
        TableError,
        r"^train_motion\.start: .*start was trained on what is held out: sequence held/s/d of held \(test\) is also in"
        r" old \(train\) as old/s/d; name another checkpoint",
    )


def test_sequences_that_are_too_short_are_one_line(training, tmp_path):
    # Slowed down to 0.75 of its speed, a sequence of 12 frames fills 15: less than the 17 of two keys 16 apart.
    short = replace(training, train=[make_shards(tmp_path, "short", "ab", lengths=12)])
    only_16 = replace(SAMPLES, rates=(16,), rate_shares=(1.0,))
    refused(
        replace(short, samples=only_16), ParamsError, r"^train_motion: the longest sequence has 12 frames: no clip of"
    )
    refused(
        replace(
            short,
            network="transformer",
            network_config=asdict(TRANSFORMER),
            samples=replace(PAPER_SAMPLES, rate=20),
        ),
        ParamsError,
        "no sequence has the 21 frames of two keys",
    )


def test_a_network_that_cannot_be_is_one_line(training):
    config = asdict(NETWORK) | {"num_heads": 3}
    refused(replace(training, network_config=config), ParamsError, "width 16 is not a multiple of num_heads 3")


def test_a_loss_that_is_not_finite_is_one_line(training):
    wild = replace(CONFIG.optimiser, learning_rate=1e30, warmup_steps=0, clip_norm=1e30)
    refused(
        replace(training, config=replace(training.config, num_steps=8, optimiser=wild)),
        SourceError,
        r"^train_motion: step \d: the loss is not finite .*; lower the learning rate",
    )


def test_a_shard_of_another_camera_is_refused_with_both_values(training):
    write_table("views", training.train[0] / "z.parquet", [], dict(SETTINGS) | {"focal": "5.0"})
    refused(training, TableError, rf"z\.parquet: was made with focal 5\.0, where {SETTINGS['focal']} is needed")
