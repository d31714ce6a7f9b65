import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from models import load
from models.renderer.samples import SampleSettings
from models.skeleton import NUM_JOINTS, Joint
from tasks.errors import ParamsError, SourceError, TableError
from tasks.tables import SAMPLES_SCHEMA, decode_png, encode_png, write_table
from tasks.train_renderer import RendererTraining, train_renderer
from tests.models.renderer.pictures import DISCRIMINATOR, GENERATOR
from tests.models.renderer.test_training import CONFIG

SIZE_PX, NUM_KEYS = 64, 7
SETTINGS = SampleSettings(
    rotation_deg=10.0, scale_share=0.1, shift_share=0.0625, joint_drop_share=0.02, limb_drop_share=0.02,
    sigmas_px=(4.0, 5.0), blur_share=0.06, blur_sigma_px=3.0, held_out_share=0.2, cache_mb=16,
)  # fmt: skip


def make_samples(folder, clip="walk", num_keys=NUM_KEYS, video="walks"):
    """A disc that goes from left to right; backgrounds without it."""
    rows = []
    y_HW, x_HW = np.mgrid[:SIZE_PX, :SIZE_PX]
    behind = encode_png(np.full((SIZE_PX, SIZE_PX, 3), 40, np.uint8))
    for key in range(num_keys):
        x = 12 + 6 * key
        is_disc_HW = (x_HW - x) ** 2 + (y_HW - 32) ** 2 <= 81
        image = np.where(is_disc_HW[..., None], [60, 120, 230], 40).astype(np.uint8)
        joints_JD = np.zeros((NUM_JOINTS, 3), np.float32)
        joints_JD[Joint.NECK], joints_JD[Joint.MID_HIP] = (x + 0.5, 26, 1), (x + 0.5, 38, 1)
        inner = 0 < key < num_keys - 1
        rows.append(
            {
                "frame": 8 * key,
                "joints": joints_JD.ravel(),
                "image": {"bytes": encode_png(image), "path": ""},
                "background": {"bytes": behind, "path": ""} if inner else None,
                "matte": encode_png(np.uint8(255) * is_disc_HW),
            }
        )
    facts = {"clip": clip, "batch": "b", "video": video, "split": "train", "subject": "s", "source_sha256": "hash"}
    facts |= {"key_step": "8", "background": "base", "height": str(SIZE_PX), "width": str(SIZE_PX)}
    write_table("samples", folder / f"{clip}.parquet", [pa.Table.from_pylist(rows, schema=SAMPLES_SCHEMA)], facts)


@pytest.fixture
def training(tmp_path):
    make_samples(tmp_path / "samples")
    return RendererTraining(
        samples=tmp_path / "samples",
        licences={"walks": "CC0"},
        settings=SETTINGS,
        batch_size=2,
        generator=asdict(GENERATOR),
        discriminator=asdict(DISCRIMINATOR),
        config=replace(CONFIG, num_steps=2, log_every=1, evaluate_every=2),
        vgg=tmp_path / "no-model",
        state=tmp_path / "state.safetensors",
        threads=1,
        has_lpips=False,
    )


def run(training):
    logged = []
    folder = training.state.parent
    train_renderer(
        training, folder / "out", folder / "held_out.png", lambda step, values: logged.append((step, values))
    )
    return logged


def test_the_checkpoint_tells_every_clip_with_its_hash_and_licence(training, tmp_path):
    logged = run(training)
    assert [step for step, _ in logged] == [1, 2]
    assert logged[1][1].keys() >= {"total", "score", "person_psnr", "background_person_psnr"}
    provenance = json.loads((tmp_path / "out/provenance.json").read_text())
    (clip,) = provenance["clips"]
    assert (clip["clip"], clip["source_sha256"], clip["licence"], clip["num_keys"]) == ("walk", "hash", "CC0", 7)
    assert provenance["licences"] == ["CC0"]
    assert provenance["size"] == {"height": SIZE_PX, "width": SIZE_PX}
    assert provenance["vgg_sha256"] is None
    assert provenance["steps"] == {"last": 2, "best": 2}
    held_out = provenance["metrics"]["held_out_background"]
    # Over the disc alone: each channel's squared difference between the disc's colour and 40.
    mean = np.mean([(60 - 40) ** 2, (120 - 40) ** 2, (230 - 40) ** 2])
    assert held_out["person_psnr"] == pytest.approx(10 * np.log10(255**2 / mean), abs=0.3)
    assert provenance["metrics"]["held_out"]["person_psnr"] == pytest.approx(logged[1][1]["person_psnr"])
    assert load(tmp_path / "out").config == GENERATOR
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    training.state.unlink()
    run(training)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first


@pytest.mark.gpu
def test_a_gpu_whose_memory_does_not_do_is_one_line(training):
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(ParamsError, match=r"^train_renderer: the GPU's memory does not do; lower .*batch_size"):
            run(replace(training, batch_size=64))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_the_sheet_shows_background_result_and_truth_of_what_is_held_out(training, tmp_path):
    make_samples(training.samples, "other")
    run(training)
    sheet = decode_png((tmp_path / "held_out.png").read_bytes())
    assert sheet.shape == (2 * SIZE_PX, 3 * SIZE_PX, 3)  # one key of either clip
    assert (sheet[:, :SIZE_PX] == 40).all()
    x = 12 + 6 * 5
    assert sheet[32, 2 * SIZE_PX + x].tolist() == [60, 120, 230]


def test_a_process_that_is_not_the_first_writes_nothing(training, tmp_path):
    train_renderer(replace(training, state=tmp_path / "s"), None, None, lambda step, values: None)
    assert {path.name for path in tmp_path.iterdir()} == {"samples", "s"}


def refused(training, error, message):
    with pytest.raises(error, match=message) as caught:
        run(training)
    assert "\n" not in str(caught.value)
    assert not (training.state.parent / "out").exists()


def test_what_does_not_fit_is_one_line(training, tmp_path):
    refused(replace(training, samples=tmp_path / "none"), TableError, "holds no table; run the stage")
    refused(
        replace(training, generator=asdict(replace(GENERATOR, num_downsamples=7))),
        ParamsError,
        r"^train_renderer\.generator: takes multiples of 128 px; the samples are 64 x 64",
    )
    refused(
        replace(training, discriminator=asdict(DISCRIMINATOR) | {"num_layers": 0}),
        ParamsError,
        r"^train_renderer\.discriminator: .*num_layers 0: must be 1 or more",
    )
    refused(
        replace(training, config=replace(training.config, num_frames=6, max_frames=6)),
        ParamsError,
        r"^train_renderer: no clip has 8 training keys in a row",
    )
    refused(replace(training, vgg=tmp_path / "vgg.pth"), SourceError, r"^train_renderer\.vgg: .*there is no such file")
    refused(
        replace(training, settings=replace(SETTINGS, held_out_share=0.0)), ParamsError, "no key is held out; hold out"
    )


def test_a_loss_that_is_not_finite_is_one_line(training):
    wild = replace(CONFIG.optimiser, learning_rate=1e30)
    refused(
        replace(training, config=replace(training.config, num_steps=8, optimiser=wild)),
        SourceError,
        r"^train_renderer: step \d: the loss is not finite .*; lower the learning rate",
    )
