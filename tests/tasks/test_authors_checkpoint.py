import json
import pickle
from hashlib import sha256

import numpy as np
import pytest
import torch

import models
from models.checkpoint import save
from models.motion.tangents import TangentConfig, TangentNetwork
from models.motion.transformer import MotionTransformer, TransformerConfig, to_authors_state
from models.motion.views import Normalisation
from models.renderer.authors import discriminator_name, generator_name
from models.renderer.discriminator import Discriminator, DiscriminatorConfig
from models.renderer.generator import Generator, GeneratorConfig
from tasks.authors_checkpoint import export_authors_checkpoint, import_authors_checkpoint
from tasks.errors import SourceError
from tests.models.motion.reference import MOTION, authors_state, needs_reference
from tests.models.renderer.reference import RENDER

CONFIG = TransformerConfig(
    width=16, num_heads=2, feedforward=24, num_encoder_layers=2, num_decoder_layers=3, dropout=0.1,
    encoder_mask="plus-one",
)  # fmt: skip


def network(seed=0):
    torch.manual_seed(seed)
    made = MotionTransformer(CONFIG)
    generator = np.random.default_rng(seed)
    made.rows.set(Normalisation(generator.normal(0, 1, (19, 2)), generator.uniform(0.1, 1, (19, 2))))
    return made


def do_import(file, folder, **options):
    return import_authors_checkpoint(
        file, folder, **{"encoder_mask": "plus-one", "num_heads": 2, "mean": None, "std": None, **options}
    )


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"network": state, "epoch": 399},
        lambda state: {"optim": {"state": {0: {"exp_avg": torch.zeros(2)}}, 1: torch.ones(1)}, "net": {"model": state}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
    ],
    ids=["plain", "in network", "beside an optimiser", "of DataParallel"],
)
def test_what_is_imported_and_exported_has_the_same_tensors(tmp_path, wrap):
    made = network()
    state = to_authors_state(made)
    torch.save(wrap(state), tmp_path / "a.pth")
    np.save(tmp_path / "mean.npy", made.rows.mean_E2.double().numpy())
    np.save(tmp_path / "std.npy", made.rows.std_E2.double().numpy())
    said = do_import(tmp_path / "a.pth", tmp_path / "m", mean=tmp_path / "mean.npy", std=tmp_path / "std.npy")
    assert "width 16, 2 + 3 layers, 2 heads, encoder mask plus-one" in said
    loaded = models.load(tmp_path / "m")
    assert loaded.config == CONFIG
    assert same(loaded.state_dict(), made.state_dict())
    export_authors_checkpoint(tmp_path / "m", tmp_path / "out/b.pth", mean=tmp_path / "m.npy", std=tmp_path / "s.npy")
    assert same(torch.load(tmp_path / "out/b.pth", weights_only=True), state)
    for ours, theirs in (("m", "mean"), ("s", "std")):
        np.testing.assert_array_equal(np.load(tmp_path / f"{ours}.npy"), np.load(tmp_path / f"{theirs}.npy"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.pth"]


def test_provenance_names_the_files_and_not_where_they_lay(tmp_path):
    torch.save(to_authors_state(network()), tmp_path / "a.pth")
    said = do_import(tmp_path / "a.pth", tmp_path / "m", encoder_mask="exclude")
    assert "rows are taken for points" in said
    assert json.loads((tmp_path / "m/provenance.json").read_text()) == {
        "imported_from": {
            "checkpoint": {"file": "a.pth", "sha256": sha256((tmp_path / "a.pth").read_bytes()).hexdigest()}
        },
        "licence": "unknown: the authors gave none",
        "options": {"encoder_mask": "exclude", "num_heads": 2},
    }
    assert models.load(tmp_path / "m").config.encoder_mask == "exclude"
    assert (models.load(tmp_path / "m").rows.std_E2 == 1).all()


def test_the_same_network_is_the_same_bytes(tmp_path):
    save(tmp_path / "m", network(), CONFIG, {})
    for name in ("a.pth", "other.pt"):
        export_authors_checkpoint(tmp_path / "m", tmp_path / name)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "other.pt").read_bytes()


@needs_reference
def test_the_reference_file_goes_there_and_back(tmp_path):
    rows = {"mean": MOTION / "mean_pose.npy", "std": MOTION / "std_pose.npy"}
    do_import(MOTION / "motion_state_dict.pt", tmp_path / "m", num_heads=8, **rows)
    export_authors_checkpoint(tmp_path / "m", tmp_path / "b.pth")
    assert same(torch.load(tmp_path / "b.pth", weights_only=True), authors_state())
    np.testing.assert_allclose(models.load(tmp_path / "m").rows.std_E2, np.load(rows["std"]), rtol=1e-6)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_what_is_no_motion_network_is_refused_by_name(tmp_path):
    file, folder = tmp_path / "a.pth", tmp_path / "m"

    def refused(content, match, **options):
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        with pytest.raises(SourceError, match=match):
            do_import(file, folder, **options)
        assert not folder.exists()

    state = to_authors_state(network())
    torch.save(state, file)
    whole = file.read_bytes()
    refused(b"", r"a\.pth: not a file of tensors alone")
    refused(b"words", r"a\.pth: not a file of tensors alone")
    refused(whole[: len(whole) // 2], r"a\.pth: not a file of tensors alone")
    refused(pickle.dumps(Evil()), r"a\.pth: not a file of tensors alone.*never read")
    refused({"network": Evil()}, r"a\.pth: not a file of tensors alone.*never read")
    refused(torch.zeros(3), r"a\.pth: holds a Tensor: not a network")
    refused({"conv.weight": torch.zeros(3)}, r"a\.pth: holds no input_embed\.weight: not a motion network")
    refused(
        {"input_embed.weight": torch.zeros(())}, r"not a motion network of the authors': input_embed\.weight has shape"
    )
    refused(state | {"joints_embed.bias": torch.zeros(4)}, r"joints_embed\.bias has shape \(4,\).* has \(38,\)")
    refused(state, r"a\.pth: width 16 is not a multiple of 2 x num_heads 3", num_heads=3)
    refused(state, r"--encoder-mask none: must be one of exclude, plus-one", encoder_mask="none")
    with pytest.raises(SourceError, match=r"gone\.pth: No such file"):
        do_import(tmp_path / "gone.pth", folder)


def test_mean_and_deviation_are_checked(tmp_path):
    torch.save(to_authors_state(network()), tmp_path / "a.pth")
    good, flat, short, infinite, text = (tmp_path / f"{n}.npy" for n in ("good", "flat", "short", "infinite", "text"))
    np.save(good, np.ones((19, 2)))
    np.save(flat, np.zeros((19, 2)))
    np.save(short, np.ones((17, 2)))
    np.save(infinite, np.full((19, 2), np.inf))
    text.write_text("0.5")
    for mean, std, match in (
        (good, None, "--mean: give mean and std together"),
        (None, good, "--std: give mean and std together"),
        (good, flat, r"flat\.npy: std has a value that is not above 0"),
        (short, good, r"short\.npy.*mean has shape \(17, 2\); \(19, 2\) is needed"),
        (good, infinite, r"infinite\.npy: has a value that is not finite"),
        (text, good, r"text\.npy: not a \.npy file of numbers"),
        (tmp_path / "gone.npy", good, r"gone\.npy: No such file"),
    ):
        with pytest.raises(SourceError, match=match):
            do_import(tmp_path / "a.pth", tmp_path / "m", mean=mean, std=std)


def test_a_folder_of_other_things_is_never_replaced_and_a_checkpoint_is(tmp_path):
    torch.save(to_authors_state(network(1)), tmp_path / "a.pth")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    for place in ("home", "a.pth"):
        with pytest.raises(SourceError, match=rf"{place}: is there, and no checkpoint; name a new folder"):
            do_import(tmp_path / "a.pth", tmp_path / place)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "mine"
    save(tmp_path / "m", network(2), CONFIG, {})
    do_import(tmp_path / "a.pth", tmp_path / "m")
    assert same(to_authors_state(models.load(tmp_path / "m")), to_authors_state(network(1)))


def test_only_a_transformer_is_exported(tmp_path):
    with pytest.raises(SourceError, match=r"none/config\.json: there is no such file"):
        export_authors_checkpoint(tmp_path / "none", tmp_path / "a.pth")
    config = TangentConfig(width=8, num_heads=2, num_detector_blocks=1, num_tangent_blocks=1, reach=2)
    save(tmp_path / "m", TangentNetwork(config), config, {})
    with pytest.raises(SourceError, match=r"m: holds tangents; .* the transformer alone"):
        export_authors_checkpoint(tmp_path / "m", tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()


GENERATOR = GeneratorConfig(
    num_filters=4, max_filters=16, num_condition_filters=5, max_condition_filters=10, num_downsamples=3,
    num_middle_blocks=1, num_mask_filters=3, max_mask_filters=12, num_mask_downsamples=2, num_mask_blocks=2,
    paints_change=False,
)  # fmt: skip
DISCRIMINATOR = DiscriminatorConfig(
    num_filters=4,
    max_filters=16,
    num_layers=3,
    num_scales=3,
    num_crop_filters=5,
    max_crop_filters=10,
    num_crop_layers=1,
)


def renderer(kind, seed=0):
    """A network and its weights under the authors' names, with some that nothing reads."""
    torch.manual_seed(seed)
    if kind == "generator":
        made = Generator(GENERATOR)
        state = {generator_name(name): value for name, value in made.state_dict().items()}
        return made, state | {"label_embedding.down_0.layers.conv.bias": torch.zeros(3)}
    made = Discriminator(DISCRIMINATOR)
    return made, {discriminator_name(name, DISCRIMINATOR): value for name, value in made.state_dict().items()}


@pytest.mark.parametrize(
    ("kind", "said"), [("generator", "widths 4 to 16, 3 halvings"), ("discriminator", "widths 4 to 16, 3 scales")]
)
def test_a_rendering_network_is_told_by_its_names(tmp_path, kind, said):
    made, state = renderer(kind)
    torch.save({"net": {f"module.{name}": value for name, value in state.items()}, "epoch": 9}, tmp_path / "net.pth")
    assert f"a {kind} of {said}" in do_import(tmp_path / "net.pth", tmp_path / "m")
    loaded = models.load(tmp_path / "m")
    assert loaded.config == made.config
    assert same(loaded.state_dict(), made.state_dict())
    provenance = json.loads((tmp_path / "m/provenance.json").read_text())
    assert provenance["options"] == {}
    assert provenance["imported_from"]["checkpoint"]["file"] == "net.pth"


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_rendering_network_that_is_not_whole_is_refused_by_name(tmp_path, kind):
    _, state = renderer(kind)
    name = max(name for name in state if name.endswith(".weight_u"))
    for odd, match in (
        ({key: value for key, value in state.items() if key != name}, f"differs in {name}"),
        (state | {"net_E.weight": torch.zeros(2)}, "differs in net_E.weight"),
        (state | {name: torch.zeros(77)}, rf"{name} has shape \(77,\)"),
    ):
        torch.save(odd, tmp_path / "net.pth")
        with pytest.raises(SourceError, match=rf"net\.pth: .*{match}"):
            do_import(tmp_path / "net.pth", tmp_path / "m")
    torch.save(state, tmp_path / "net.pth")
    for path in ("mean", "std"):
        np.save(tmp_path / f"{path}.npy", np.ones((19, 2)))
    with pytest.raises(SourceError, match="holds a rendering network, which --mean and --std do not go with"):
        do_import(tmp_path / "net.pth", tmp_path / "m", mean=tmp_path / "mean.npy", std=tmp_path / "std.npy")
    assert not (tmp_path / "m").exists()


@needs_reference
@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_the_reference_renderers_are_imported(tmp_path, kind):
    assert f"a {kind} of widths 8 to" in do_import(RENDER / f"{kind}_state_dict.pt", tmp_path / "m")
    assert type(models.load(tmp_path / "m")) in (Generator, Discriminator)
