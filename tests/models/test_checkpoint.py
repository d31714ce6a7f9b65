import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import models
from models import checkpoint
from models.checkpoint import CheckpointError, build_network, load, save
from models.motion.transformer import MotionTransformer, TransformerConfig

CONFIG = TransformerConfig(
    width=8,
    num_heads=2,
    feedforward=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dropout=0.1,
    encoder_mask="plus-one",
)


def network(seed=0):
    torch.manual_seed(seed)
    return MotionTransformer(CONFIG)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_save_and_load_give_the_network_back_in_eval_mode(tmp_path):
    saved = network()
    save(tmp_path / "a" / "b", saved, CONFIG, {"seed": 3, "sequences": ["x"]})
    loaded = models.load(str(tmp_path / "a" / "b"))
    assert isinstance(loaded, MotionTransformer)
    assert not loaded.training
    assert loaded.config == CONFIG
    assert same_weights(loaded, saved)
    assert json.loads((tmp_path / "a" / "b" / "provenance.json").read_text()) == {"seed": 3, "sequences": ["x"]}
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["b"]


def test_the_same_checkpoint_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name, network(), CONFIG, {"b": 1, "a": 2})
    for file in ("model.safetensors", "config.json", "provenance.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("stop_at", ["save_file", "_write_json", "_flush_to_disk"])
def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch, stop_at):
    old, new = network(1), network(2)
    save(tmp_path / "m", old, CONFIG, {})

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, stop_at, stop)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "m", new, CONFIG, {})
    assert same_weights(load(tmp_path / "m"), old)
    save(tmp_path / "m", new, CONFIG, {})
    assert same_weights(load(tmp_path / "m"), new)


def test_killed_between_the_renames_the_old_one_is_found_and_replaced(tmp_path):
    old, new = network(1), network(2)
    save(tmp_path / "m", old, CONFIG, {})
    (tmp_path / "m").rename(tmp_path / ".m.previous")
    assert same_weights(load(tmp_path / "m"), old)
    save(tmp_path / "m", new, CONFIG, {})
    assert same_weights(load(tmp_path / "m"), new)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"none/config\.json: there is no such file"):
        load(tmp_path / "none")
    save(tmp_path / "m", network(), CONFIG, {})
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file"):
        load(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json: not a checkpoint's config"):
        load(tmp_path / "m")


def test_a_config_of_another_size_is_refused_with_both(tmp_path):
    save(tmp_path / "m", network(), CONFIG, {})
    path = tmp_path / "m" / "config.json"
    values = json.loads(path.read_text())
    values["config"]["width"] = 16
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"has shape \(8, 38\); config\.json asks for \(16, 38\)"):
        load(tmp_path / "m")
    values["config"]["num_decoder_layers"] = 2
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"lacks decoder\.1"):
        load(tmp_path / "m")


def test_unknown_networks_and_fields_are_refused():
    with pytest.raises(
        CheckpointError, match="no network 'mlp'; there are discriminator, generator, tangents, transformer"
    ):
        build_network("mlp", {})
    with pytest.raises(CheckpointError, match="differs in dropout, heads"):
        build_network("transformer", {"heads": 3} | {k: v for k, v in vars(CONFIG).items() if k != "dropout"})
    with pytest.raises(CheckpointError, match="transformer: width 9"):
        build_network("transformer", vars(CONFIG) | {"width": 9})
    with pytest.raises(CheckpointError, match=r"Linear is not in models\.checkpoint\.NETWORKS"):
        checkpoint.network_name(nn.Linear(1, 1))


def test_importing_models_imports_no_torch():
    code = "import sys, models, models.skeleton; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
