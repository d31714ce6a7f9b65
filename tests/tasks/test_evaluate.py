import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.lpips import Lpips, load_lpips, lpips
from models.skeleton import NUM_JOINTS, Joint
from tasks.errors import TableError, ToolError
from tasks.evaluate import (
    EvaluateSpec,
    KeyCheck,
    RenderFacts,
    check_keys_exact,
    measure_chunk,
    measure_joints,
    place_in_gaps,
    plot_rows,
    read_evaluation,
    summarise,
)
from tasks.tables import (
    CLIP_SCHEMA,
    EVALUATION_SCHEMA,
    POSE_SCHEMA,
    RENDER_SCHEMA,
    Table,
    decode_png,
    encode_png,
    picture_column,
    write_table,
)

HEIGHT, WIDTH, KEY_STEP, NUM_FRAMES = 40, 36, 4, 9
FACTS = RenderFacts("warp-4", "sample", KEY_STEP, "linear", "warp", "halfway")


def true_image(frame):
    return np.random.default_rng(frame).integers(40, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def true_joints():
    joints = np.zeros((NUM_JOINTS, 3), np.float32)
    joints[Joint.NECK] = (12, 6, 1)
    joints[Joint.MID_HIP] = (12, 16, 1)
    return joints


def matte():
    picture = np.zeros((HEIGHT, WIDTH), np.uint8)
    picture[4:20, 8:16] = 255
    return picture


def write_clip(path, frames=range(NUM_FRAMES)):
    pictures = [encode_png(true_image(frame)) for frame in frames]
    names = [f"{frame:06d}.png" for frame in frames]
    columns = [list(frames), [frame / 60 for frame in frames], picture_column(pictures, names)]
    table = pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, CLIP_SCHEMA, strict=True)], schema=CLIP_SCHEMA
    )
    write_table("clip", path, [table], {"clip": "kick", "fps": "60"})


def write_poses(path, frames=range(NUM_FRAMES), which="truth"):
    rows = [
        {
            "frame": frame,
            "pass": which,
            "joints": true_joints().ravel().tolist(),
            "keypoints": None,
            "matte": encode_png(matte()),
        }
        for frame in frames
    ]
    write_table("pose", path, [pa.Table.from_pylist(rows, schema=POSE_SCHEMA)], {"clip": "kick"})


def write_render(path, change=lambda frame, image: image, frames=range(NUM_FRAMES)):
    rows = []
    for frame in frames:
        before = frame - frame % KEY_STEP
        is_key = frame == before
        rows.append(
            {
                "frame": frame,
                "time": frame / 60,
                "origin": "original" if is_key else "generated",
                "method": None if is_key else "warp",
                "key_before": before,
                "key_after": before if is_key else before + KEY_STEP,
                "image": {"bytes": encode_png(change(frame, true_image(frame))), "path": f"{frame:06d}.png"},
            }
        )
    table = pa.Table.from_pylist(rows, schema=RENDER_SCHEMA)
    write_table("render", path, [table.slice(0, 4), table.slice(4)], {"clip": "kick"})


@pytest.fixture
def spec(tmp_path):
    """A render whose generated pictures are 10 grey levels too bright on the person of frame 2, and exact elsewhere."""

    def brighten(frame, image):
        if frame == 2:
            image[matte() > 0] += 10
        return image

    write_clip(tmp_path / "clip.parquet")
    write_poses(tmp_path / "poses.parquet")
    write_render(tmp_path / "render.parquet", brighten)
    return EvaluateSpec(
        render=tmp_path / "render.parquet",
        clip=tmp_path / "clip.parquet",
        poses=tmp_path / "poses.parquet",
        start=0,
        stop=NUM_FRAMES,
        margin_torso_share=0.06,
        lpips="none",
    )


def test_only_generated_frames_are_measured_and_placed_in_their_gap(spec):
    table = measure_chunk(spec)
    assert table.schema == EVALUATION_SCHEMA
    assert table["frame"].to_pylist() == [1, 2, 3, 5, 6, 7]
    assert table["gap_position"].to_pylist() == [0.25, 0.5, 0.75] * 2
    assert table["is_halfway"].to_pylist() == [False, True, False] * 2
    assert table["key_after"].to_pylist() == [4, 4, 4, 8, 8, 8]


def test_measures_on_the_person_and_on_the_frame(spec):
    row = measure_chunk(spec).to_pylist()[1]
    is_person = decode_png(row["mask"], grey=True) > 0
    share = (matte() > 0).sum() / is_person.sum()
    assert row["person_psnr"] == pytest.approx(10 * math.log10(255**2 / (100 * share)))
    assert row["full_psnr"] == pytest.approx(10 * math.log10(255**2 / (100 * (matte() > 0).mean())))
    assert row["person_ssim"] < row["full_ssim"] < 1


def test_exact_frames_count_100_db(spec):
    row = measure_chunk(spec).to_pylist()[0]
    assert [row[n] for n in ("full_psnr", "full_ssim", "person_psnr", "person_ssim")] == [100, 1, 100, 1]


def test_chunks_give_the_rows_of_the_whole(spec):
    whole = measure_chunk(spec)
    parts = [measure_chunk(replace(spec, start=a, stop=b)) for a, b in ((0, 3), (3, 5), (5, 9))]
    assert pa.concat_tables(parts).equals(whole)


def test_found_joints_are_compared_with_the_truth_pose(spec):
    found = true_joints()
    found[Joint.NECK, 0] += 1.5
    found[Joint.MID_HIP, 0] += 2.5  # torso 10 px, share 0.2: 2 px is the limit
    rows = measure_joints(measure_chunk(spec), Table("pose", spec.poses), {1: found, 2: np.zeros_like(found)}, 0.2)
    assert rows.schema == EVALUATION_SCHEMA
    rows = rows.to_pylist()
    assert (rows[0]["joint_error_px"], rows[0]["pck"]) == (2.0, 0.5)
    assert (rows[1]["joint_error_px"], rows[1]["pck"]) == (None, 0.0)
    assert (rows[2]["joint_error_px"], rows[2]["pck"]) == (None, None)


def test_frames_without_a_true_picture_are_left_out(spec):
    write_clip(spec.clip, frames=[0, 1, 4, 6, 8])
    assert measure_chunk(spec)["frame"].to_pylist() == [1, 6]


def test_a_frame_without_a_truth_pose_has_no_person_measures(spec):
    write_poses(spec.poses, frames=[2])
    rows = measure_chunk(spec).to_pylist()
    assert rows[0]["person_psnr"] is None
    assert rows[1]["person_psnr"] is not None


def test_a_pose_table_without_truth_is_refused(spec):
    write_poses(spec.poses, which="observed-4")
    with pytest.raises(TableError, match="has no pass truth; run the pose stage again"):
        measure_chunk(spec)


def test_pictures_of_another_size_are_refused(spec):
    write_render(spec.render, lambda frame, image: image[:-1])
    with pytest.raises(TableError, match=r"frame 1 is of shape \(39, 36, 3\)"):
        measure_chunk(spec)


def test_a_gap_with_an_odd_number_of_steps_has_two_halfway_frames():
    frames = np.array([0, 1, 2, 3, 5], np.int32)
    gaps = place_in_gaps(frames, np.array([0, 0, 0, 3, 3], np.int32), np.array([0, 3, 3, 3, 6], np.int32))
    assert gaps.is_halfway.tolist() == [False, True, True, False, True]
    assert gaps.position.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 0, 2 / 3])


def test_keys_are_checked_pixel_by_pixel(spec):
    assert check_keys_exact(spec.render, spec.clip) == KeyCheck(num_keys=3, num_exact=3)

    def damage(frame, image):
        image[0, 0, 0] ^= frame == 4
        return image

    write_render(spec.render, damage)
    assert check_keys_exact(spec.render, spec.clip) == KeyCheck(num_keys=3, num_exact=2)


def test_a_key_that_the_clip_lacks_is_refused(spec):
    write_clip(spec.clip, frames=[0, 1, 2, 3])
    with pytest.raises(TableError, match="key frame 4 is not in"):
        check_keys_exact(spec.render, spec.clip)


def small_table(values, halfway):
    rows = [
        {"frame": i, "is_halfway": h, "gap_position": 0.5, "person_psnr": v, "full_psnr": 30.0}
        for i, (v, h) in enumerate(zip(values, halfway, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=EVALUATION_SCHEMA)


def test_summary_means_frames_within_a_clip_and_clips_within_a_render():
    clips = {
        "b": small_table([20.0, None, 30.0, 1 / 3], [True, True, False, False]),
        "a": small_table([10.0], [True]),
    }
    metrics = summarise(FACTS, clips, {"a": KeyCheck(3, 3), "b": KeyCheck(2, 1)})
    assert list(metrics["clips"]) == ["a", "b"]
    worst = {"person_psnr_worst_tenth": 20.0, "worst_frame": 0}
    assert metrics["clips"]["b"]["halfway"] == {"num_frames": 2, "person_psnr": 20.0, "full_psnr": 30.0, **worst}
    assert metrics["clips"]["b"]["all"]["person_psnr"] == 16.777778
    assert metrics["clips"]["b"]["all"]["worst_frame"] == 3
    mean = {"num_frames": 3, "person_psnr": 15.0, "full_psnr": 30.0, "person_psnr_worst_tenth": 15.0}
    assert metrics["mean"]["halfway"] == mean
    assert metrics["keys"] == {"count": 5, "exact": 4}
    assert (metrics["render"], metrics["key_step"], metrics["method"]) == ("warp-4", 4, "warp")
    json.dumps(metrics, allow_nan=False)


def test_what_only_halfway_frames_have_is_no_mean_of_all_frames():
    rows = [
        {"frame": 0, "is_halfway": False, "person_psnr": 20.0},
        {"frame": 1, "is_halfway": True, "person_psnr": 10.0, "pck": 0.5},
    ]
    table = pa.Table.from_pylist(rows, schema=EVALUATION_SCHEMA)
    clip = summarise(FACTS, {"a": table}, {})["clips"]["a"]
    worst = {"person_psnr_worst_tenth": 10.0, "worst_frame": 1}
    assert clip["halfway"] == {"num_frames": 1, "person_psnr": 10.0, "pck": 0.5, **worst}
    assert clip["all"] == {"num_frames": 2, "person_psnr": 15.0, **worst}
    clip = summarise(FACTS, {"a": table.slice(1)}, {})["clips"]["a"]  # a key step of 2: every frame is half-way
    assert clip["all"] == clip["halfway"]


def test_the_worst_tenth_is_rounded_up_and_its_first_frame_named():
    """Of 11 frames the 2 worst, 3 and 5 dB; of two equally bad the first is the worst."""
    table = small_table([20.0, 3.0, None, 5.0, *[9.0] * 8], [True] * 12)
    summary = summarise(FACTS, {"a": table}, {})["clips"]["a"]["halfway"]
    assert (summary["person_psnr_worst_tenth"], summary["worst_frame"]) == (4.0, 1)
    summary = summarise(FACTS, {"a": small_table([7.0, 7.0], [True] * 2)}, {})["clips"]["a"]["halfway"]
    assert (summary["person_psnr_worst_tenth"], summary["worst_frame"]) == (7.0, 0)


def test_lpips_is_measured_where_it_is_wanted_in_the_person_mask(spec, monkeypatch):
    """With weights of ours in the package's place; frame 2 is too bright on the person, the others are exact."""
    torch.manual_seed(0)
    network = Lpips().eval()
    for linear in network.linears:
        linear.weight.data.abs_()
    monkeypatch.setattr("models.lpips.load_lpips", lambda: network)
    found = {}
    for lpips_frames in ("none", "halfway", "all"):
        rows = measure_chunk(replace(spec, lpips=lpips_frames)).to_pylist()
        found[lpips_frames] = [(row["full_lpips"], row["person_lpips"]) for row in rows]
    is_person = decode_png(rows[1]["mask"], grey=True) > 0
    image, truth = Table("render", spec.render).read_image(2), Table("clip", spec.clip).read_image(2)
    with torch.inference_mode():
        bright = lpips(image, truth, is_person, network)
    expected = pytest.approx(bright, rel=1e-5)
    assert min(bright) > 0
    assert found["none"] == [(None, None)] * 6
    assert found["halfway"] == [(None, None), expected, (None, None), (None, None), (0, 0), (None, None)]
    assert found["all"] == [(0, 0), expected, *[(0, 0)] * 4]


def test_pictures_too_small_for_lpips_go_without(spec, monkeypatch):
    monkeypatch.setattr("models.lpips.MIN_SIDE_PX", WIDTH + 1)
    table = measure_chunk(replace(spec, lpips="all"))
    assert table["full_lpips"].null_count == table.num_rows == 6


def test_damaged_weights_of_lpips_are_one_line(spec, tmp_path, monkeypatch):
    (tmp_path / "alexnet.ckpt").write_bytes(b"nothing")
    monkeypatch.setattr("models.lpips.find_weights", lambda: tmp_path / "alexnet.ckpt")
    load_lpips.cache_clear()
    with pytest.raises(ToolError, match=r"\A[^\n]*alexnet.ckpt: not LPIPS's AlexNet weights[^\n]*run `make env`\Z"):
        measure_chunk(replace(spec, lpips="halfway"))


def test_summary_of_a_written_table_is_the_same(spec, tmp_path):
    table = measure_chunk(spec)
    write_table("evaluation", tmp_path / "kick.parquet", [table], {"clip": "kick"})
    read = read_evaluation(tmp_path / "kick.parquet")
    assert "mask" not in read.column_names
    check = {"kick": KeyCheck(3, 3)}
    assert summarise(FACTS, {"kick": read}, check) == summarise(FACTS, {"kick": table}, check)


def test_plot_rows_have_the_same_keys_and_null_where_a_measure_is_missing():
    rows = plot_rows(FACTS, {"a": small_table([20.0, None], [True, False])})
    common = {
        "clip": "a",
        "method": "warp",
        "gap_position": 0.5,
        "person_ssim": None,
        "person_lpips": None,
        "full_psnr": 30.0,
        "full_ssim": None,
        "full_lpips": None,
    }
    assert rows == [
        {"frame": 0, "person_psnr": 20.0, **common},
        {"frame": 1, "person_psnr": None, **common},
    ]
    json.dumps(rows, allow_nan=False)
