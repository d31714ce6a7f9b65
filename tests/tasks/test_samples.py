import dataclasses
import shutil

import cv2
import datasets
import numpy as np
import pyarrow as pa
import pytest

from models.renderer.chooser import load_chooser
from models.renderer.flow import FlowPair
from models.renderer.methods import KeyPair
from models.renderer.samples import RendererSamples, SampleSettings
from models.renderer.warp import WarpPair
from models.skeleton import torso_length
from tasks.errors import ParamsError, TableError
from tasks.items import ItemStore, item_key
from tasks.sample_tables import read_training_set
from tasks.samples import (
    SamplesSettings,
    choose_clips,
    clean_pieces,
    make_samples,
    plan_samples,
    read_tested_frames,
    write_samples,
)
from tasks.tables import BACKGROUND_SCHEMA, CLIP_SCHEMA, POSE_SCHEMA, Table, decode_png, encode_png, write_table

HEIGHT, WIDTH, STEP, NUM_KEYS = 96, 64, 4, 6
BASE = SamplesSettings(STEP, "base", "flow", 48, 32)
FIGURE = (
    (0, 10), (0, 20), (-8, 22), (-10, 34), (-11, 44), (8, 22), (10, 34), (11, 44), (0, 48), (-4, 48), (-5, 64),
    (-5, 80), (4, 48), (5, 64), (5, 80), (6, 84), (-6, 84), (12, 47), (-12, 47),
)  # fmt: skip


def joints_at(row):
    joints = np.ones((19, 3))
    joints[:, :2] = np.add(FIGURE, (20 + row, 2))
    return joints


def picture_at(row, seed=0):
    image = cv2.resize(np.random.default_rng(seed).integers(60, 200, (12, 8, 3), np.uint8), (WIDTH, HEIGHT))
    for x, y, _ in joints_at(row):
        cv2.circle(image, (int(x), int(y)), 4, (30, 60, 250), -1)
    return image


def matte_at(row):
    matte = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(matte, (20 + row, 50), (14, 42), 0, 0, 360, 255, -1)
    return matte


def write_tables(folder, clip="walk", video="video", split="train", row_picture=picture_at, num_rows=23):
    """23 rows: keys 0, 4, .. 20, and two rows after the last key. Frames count from 100."""
    facts = {"clip": clip, "batch": "b", "video": video, "split": split, "subject": "s", "source_sha256": "0" * 64}
    facts |= {"height": str(HEIGHT), "width": str(WIDTH), "fps": "30"}
    rows = [
        {"frame": 100 + r, "time": r / 30, "image": {"bytes": encode_png(row_picture(r)), "path": ""}}
        for r in range(num_rows)
    ]
    write_table("clip", folder / f"clips/{clip}.parquet", [pa.Table.from_pylist(rows, CLIP_SCHEMA)], facts)
    keys = range(0, num_rows, STEP)
    observed = np.stack([joints_at(r) for r in keys])
    observed[2, 4] = 0  # a wrist that one key misses: rendering carries it over
    poses = [
        {"frame": 100 + r, "pass": which, "joints": joints.ravel().tolist(), "keypoints": None, "matte": matte}
        for which, values in ((f"observed-{STEP}", observed), ("truth", observed * 0))
        for r, joints, matte in zip(keys, values, (encode_png(matte_at(r)) for r in keys), strict=True)
    ]
    write_table("pose", folder / f"poses/{clip}.parquet", [pa.Table.from_pylist(poses, POSE_SCHEMA)], facts)
    behind = [
        {"frame": 100 + r, "use": use, "image": {"bytes": encode_png(picture_at(r + shift, 1)), "path": ""}}
        for r in range(num_rows)
        for use, shift in (("train", 3), ("render", 9))
        if (use == "train") == (r in keys)
    ]
    write_table(
        "background", folder / f"backgrounds/{clip}.parquet", [pa.Table.from_pylist(behind, BACKGROUND_SCHEMA)], facts
    )
    return observed


def plan_of(folder, settings=BASE, clip="walk"):
    return plan_samples(
        folder / f"clips/{clip}.parquet", folder / "poses", folder / "backgrounds", settings, lambda _, *p: item_key(*p)
    )


def make_set(folder, settings=BASE, clip="walk", out="samples"):
    plan, store = plan_of(folder, settings, clip), ItemStore(folder / "items")
    for item in plan.items:
        store.put(item.key, make_samples(item.args))
    write_samples(plan, store, folder / out)
    return folder / out / f"{clip}.parquet"


def test_a_row_a_key_at_model_size_with_the_poses_that_rendering_has(tmp_path):
    write_tables(tmp_path)
    table = Table("samples", make_set(tmp_path))
    assert table.frames.tolist() == [100, 104, 108, 112, 116, 120]
    joints = table.column("joints").reshape(-1, 19, 3)
    expected = np.stack([joints_at(r) for r in range(0, 21, STEP)])
    expected[..., :2] /= 2  # 96 x 64 to 48 x 32; the missed wrist moved straight on, so it is where it really was
    np.testing.assert_allclose(joints[..., :2], expected[..., :2], atol=1e-4)
    for number in range(NUM_KEYS):
        blocks = picture_at(number * STEP).reshape(48, 2, 32, 2, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(table.read_image(number), blocks, atol=0.51)
        matte = decode_png(table.read_cell("matte", number), grey=True)
        np.testing.assert_allclose(matte, matte_at(number * STEP).reshape(48, 2, 32, 2).mean(axis=(1, 3)), atol=0.51)
        cell = table.read_cell("background", number)
        if number in (0, NUM_KEYS - 1):
            assert cell is None
        else:
            blocks = picture_at(number * STEP + 3, 1).reshape(48, 2, 32, 2, 3).mean(axis=(1, 3))
            np.testing.assert_allclose(decode_png(cell["bytes"]), blocks, atol=0.51)
    assert table.metadata == {
        "clip": "walk", "batch": "b", "video": "video", "split": "train", "subject": "s", "source_sha256": "0" * 64,
        "key_step": "4", "background": "base", "height": "48", "width": "32",
    }  # fmt: skip


def test_warp_backgrounds_are_made_from_the_keys_around_told_the_keys_joints(tmp_path):
    observed = write_tables(tmp_path)
    settings = dataclasses.replace(BASE, background="warp", height=HEIGHT, width=WIDTH)
    table = Table("samples", make_set(tmp_path, settings))
    pair = WarpPair(
        KeyPair(
            picture_at(4),
            picture_at(12),
            (matte_at(4), matte_at(12)),
            observed[1],
            observed[3],
            torso_length(observed),
        ),
        FlowPair,
        load_chooser("flow"),
    )
    expected = pair.at(0.5, joints_at(8)).image
    found = decode_png(table.read_cell("background", 2)["bytes"])
    np.testing.assert_array_equal(found, expected)
    assert table.read_cell("background", 0) is table.read_cell("background", 5) is None
    # A key's own picture has no part in its background.
    other = tmp_path / "other"
    write_tables(other, row_picture=lambda row: picture_at(row, 7) if row == 8 else picture_at(row))
    changed = Table("samples", make_set(other, settings))
    assert changed.read_cell("background", 2)["bytes"] == table.read_cell("background", 2)["bytes"]
    assert changed.read_cell("background", 3)["bytes"] != table.read_cell("background", 3)["bytes"]


def test_frames_between_the_keys_have_no_part_in_it_and_bytes_are_the_same(tmp_path):
    write_tables(tmp_path)
    write_tables(tmp_path / "other", row_picture=lambda row: picture_at(row, 0 if row % STEP == 0 else 9))
    first = make_set(tmp_path).read_bytes()
    assert make_set(tmp_path, out="again").read_bytes() == first
    assert make_set(tmp_path / "other").read_bytes() == first
    keys = [[item.key for item in plan_of(folder).items] for folder in (tmp_path, tmp_path / "other")]
    assert keys[0] == keys[1]
    write_tables(tmp_path / "third", row_picture=lambda row: picture_at(row, 9 if row == 8 else 0))
    assert [item.key for item in plan_of(tmp_path / "third").items] != keys[0]


@pytest.mark.parametrize("background", ["base", "warp"])
def test_a_clip_in_pieces_is_the_clip(tmp_path, background):
    write_tables(tmp_path)
    (item,) = plan_of(tmp_path, dataclasses.replace(BASE, background=background)).items
    whole = make_samples(item.args)
    pieces = [
        make_samples(dataclasses.replace(item.args, first_key=first, last_key=last))
        for first, last in ((0, 1), (1, 4), (4, 6))
    ]
    assert pa.concat_tables(pieces).equals(whole)


def test_training_reads_the_tables(tmp_path):
    for clip in ("walk", "again"):
        write_tables(tmp_path, clip)
        make_set(tmp_path, clip=clip)
    found = read_training_set(tmp_path / "samples")
    assert [clip.name for clip in found.clips] == ["again", "walk"]
    assert (found.height, found.width) == (48, 32)
    assert found.frames[0] == [100, 104, 108, 112, 116, 120]
    assert found.facts[1]["clip"] == "walk"
    assert found.mattes[0][0] is not None
    settings = SampleSettings(
        rotation_deg=0.0, scale_share=0.0, shift_share=0.0, joint_drop_share=0.0, limb_drop_share=0.0,
        sigmas_px=(5.0,), blur_share=0.0, blur_sigma_px=10.0, held_out_share=0.25, cache_mb=1,
    )  # fmt: skip
    source = RendererSamples(found.clips, settings, found.height, found.width)
    assert len(source.places(2)) == 2  # keys 0..3 of each: of 4 inner keys the last is held out
    ((place, _),) = source.choose(0, 0, 1, 2)
    batch = source.draw(0, 0, 1, 2)
    table = Table("samples", tmp_path / f"samples/{found.clips[place.clip].name}.parquet")
    shown = ((batch.pictures_BSCHW[0, 0] + 1) * 127.5).round().numpy().transpose(1, 2, 0)[..., ::-1]
    np.testing.assert_array_equal(shown, table.read_image(place.first + 1))


def test_datasets_reads_it_without_our_code(tmp_path):
    write_tables(tmp_path)
    path = make_set(tmp_path)
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert isinstance(rows.features["background"], datasets.Image)
    assert rows[1]["background"].size == rows[1]["image"].size == (32, 48)
    assert rows[0]["background"] is None
    assert len(rows[0]["joints"]) == 57


def test_clips_are_those_of_the_videos_and_the_split(tmp_path):
    for clip, video, split in (("a", "x", "train"), ("b", "y", "train"), ("c", "y", "test")):
        write_tables(tmp_path, clip, video, split)
    paths = sorted((tmp_path / "clips").glob("*.parquet"))
    assert list(choose_clips("r", paths, "train", [])) == ["a", "b"]
    assert list(choose_clips("r", paths, "train", ["y"])) == ["b"]
    with pytest.raises(ParamsError, match=r"renderers.r in params.yaml: video z has no clip of split train .*: x, y$"):
        choose_clips("r", paths, "train", ["y", "z"])
    with pytest.raises(
        ParamsError, match=r"renderers.r in params.yaml: there is no clip of split test in .*clips; .*: none$"
    ):
        choose_clips("r", paths[:2], "test", [])


def test_the_split_clean_leaves_out_what_test_clips_show(tmp_path):
    write_tables(tmp_path, num_rows=41)  # keys 100, 104, .. 140
    write_tables(tmp_path, clip="shown", split="test", num_rows=18)  # frames 100..117 of the same video
    clips = [tmp_path / f"clips/{clip}.parquet" for clip in ("shown", "walk")]
    assert list(choose_clips("r", clips, "clean", [])) == ["walk"]
    tested = read_tested_frames(clips)
    assert tested == {"0" * 64: frozenset(range(100, 118))}
    assert clean_pieces(clips[1], STEP, tested) == [range(5, 11)]
    # A hole in the middle leaves two pieces; a rest of two keys goes, and another video's frames mean nothing.
    assert clean_pieces(clips[1], STEP, {"0" * 64: frozenset({116})}) == [range(4), range(5, 11)]
    assert clean_pieces(clips[1], STEP, {"0" * 64: frozenset({108, 124})}) == [range(3, 6), range(7, 11)]
    assert clean_pieces(clips[1], STEP, {"1" * 64: frozenset({116})}) == [range(11)]


def test_a_piece_holds_its_keys_and_nothing_made_from_others(tmp_path):
    def changed(row):  # what the piece must not depend on
        return picture_at(row) if row >= 12 else picture_at(row, 5)

    tables = []
    for folder, pictures in ((tmp_path / "one", picture_at), (tmp_path / "other", changed)):
        write_tables(folder, row_picture=pictures)
        plan = plan_samples(
            folder / "clips/walk.parquet", folder / "poses", folder / "backgrounds",
            dataclasses.replace(BASE, background="warp"), lambda _, *p: item_key(*p), range(3, 6), "walk+2",
        )  # fmt: skip
        store = ItemStore(folder / "items")
        for item in plan.items:
            store.put(item.key, make_samples(item.args))
        write_samples(plan, store, folder / "samples")
        tables.append(folder / "samples/walk+2.parquet")
    assert tables[0].read_bytes() == tables[1].read_bytes()
    table = Table("samples", tables[0])
    assert table.frames.tolist() == [112, 116, 120]
    assert [table.read_cell("background", n) is None for n in range(3)] == [True, False, True]
    assert table.metadata["clip"] == "walk"
    assert read_training_set(tables[0].parent).frames == [[112, 116, 120]]


def test_tables_that_do_not_fit_are_named(tmp_path):
    write_tables(tmp_path)
    with pytest.raises(TableError, match=r"walk.parquet: has no pass 'observed-8'"):
        plan_of(tmp_path, dataclasses.replace(BASE, key_step=8))
    shutil.copytree(tmp_path / "poses", tmp_path / "long")
    write_tables(tmp_path, num_rows=19)
    shutil.copytree(tmp_path / "long", tmp_path / "poses", dirs_exist_ok=True)
    with pytest.raises(TableError, match=r"walk.parquet: has 6 poses for 5 keys of walk; run pose again"):
        plan_of(tmp_path)
    write_tables(tmp_path)
    (item,) = plan_of(tmp_path).items
    write_table("background", tmp_path / "backgrounds/walk.parquet", [], {"clip": "walk"})
    with pytest.raises(TableError, match=r"walk.parquet: lacks frame 104; run background again"):
        make_samples(item.args)
    write_tables(tmp_path, "other")
    make_set(tmp_path, dataclasses.replace(BASE, height=64), "other")
    write_tables(tmp_path)
    make_set(tmp_path)
    with pytest.raises(TableError, match=r"walk.parquet: pictures of \(48, 32\), where .*other.parquet has \(64, 32\)"):
        read_training_set(tmp_path / "samples")
