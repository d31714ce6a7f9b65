import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from models.checkpoint import CheckpointError, save
from models.motion import inbetween, inbetween_clips, inference, predict_motions
from models.motion.inference import measure_units
from models.motion.tangents import LEGS_SWAPPED, TangentConfig, TangentNetwork
from models.motion.transformer import MotionTransformer, TransformerConfig, from_authors_state
from models.motion.views import Normalisation
from models.skeleton import Joint
from tests.models.motion.reference import MOTION, authors_state, load_arrays, needs_reference

KEY_STEP = 8


def figure():
    """(19, 2) a standing person in projected units."""
    upright = {
        "NOSE": (0, -0.6), "NECK": (0, -0.5),
        "RIGHT_SHOULDER": (-0.16, -0.42), "RIGHT_ELBOW": (-0.21, -0.2), "RIGHT_WRIST": (-0.25, -0.05),
        "LEFT_SHOULDER": (0.16, -0.42), "LEFT_ELBOW": (0.21, -0.2), "LEFT_WRIST": (0.25, -0.05),
        "MID_HIP": (0, 0),
        "RIGHT_HIP": (-0.05, 0.09), "RIGHT_KNEE": (-0.11, 0.45), "RIGHT_ANKLE": (-0.09, 0.82),
        "LEFT_HIP": (0.05, 0.09), "LEFT_KNEE": (0.11, 0.45), "LEFT_ANKLE": (0.09, 0.82),
        "LEFT_BIG_TOE": (0.13, 0.9), "RIGHT_BIG_TOE": (-0.13, 0.9),
        "LEFT_HAND": (0.24, 0.03), "RIGHT_HAND": (-0.24, 0.03),
    }  # fmt: skip
    return np.array([upright[joint.name] for joint in Joint])


def moving(num_keys, seed=0):
    """(K, 19, 2) float64 projected units: the figure walks to and fro and every joint sways."""
    generator = np.random.default_rng(seed)
    t = np.arange(num_keys)[:, None, None]
    sway = sum(0.04 * np.sin(f * t + generator.uniform(0, 6, (1, 19, 2))) for f in (0.2, 0.53, 0.9))
    return figure() + sway + 0.5 * np.sin(0.05 * t) * np.array([1.0, 0.1])


def usual():
    """What the rows of a network trained on such figures are measured by."""
    mean_J2 = figure()
    order = [joint for joint in Joint if joint is not Joint.MID_HIP]
    mean_E2 = np.concatenate([mean_J2[order], np.zeros((1, 2))])
    return Normalisation(mean_E2, np.full((19, 2), 0.1))


def tangents(seed=0, *, finds_faults=True):
    """Random weights whose outputs do not start at 0, as if trained. It finds faults, or nearly none."""
    torch.manual_seed(seed)
    made = TangentNetwork(
        TangentConfig(width=32, num_heads=2, num_detector_blocks=2, num_tangent_blocks=2, reach=8)
    ).eval()
    made.rows.set(usual())
    for stack in (made.detector, made.second_detector, made.tangents):
        torch.nn.init.normal_(stack.unembed.weight, std=0.1)
    for points in (made.points, made.second_points):
        torch.nn.init.normal_(points.contract.weight, std=0.3)
        torch.nn.init.constant_(points.contract.bias, -0.5 if finds_faults else -20.0)
    for detector in (made.detector, made.second_detector):
        torch.nn.init.constant_(detector.unembed.bias, 0.0 if finds_faults else -20.0)
    return made


def transformer(seed=0):
    torch.manual_seed(seed)
    config = TransformerConfig(
        width=16, num_heads=2, feedforward=24, num_encoder_layers=1, num_decoder_layers=1, dropout=0.1,
        encoder_mask="plus-one",
    )  # fmt: skip
    made = MotionTransformer(config).eval()
    made.rows.set(usual())
    return made


NETWORKS = {"tangents": tangents, "transformer": transformer}


def spline(points_KJ2, times_T):
    return CubicSpline(np.arange(len(points_KJ2)), points_KJ2)(times_T)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("num_keys", [1, 2, 3, 9])
@pytest.mark.parametrize("rate", [1, 5, 8])
def test_every_frame_is_filled_and_exact_keys_pass_bit_for_bit(make, num_keys, rate):
    points = moving(num_keys) * 417.3 + 211.7
    found = inbetween(points, rate, make(), keep_keys="exact")
    assert found.shape == ((num_keys - 1) * rate + 1, 19, 2)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[::rate], points)
    assert inbetween(points.astype(np.float32), rate, make(), keep_keys="exact").dtype == np.float32
    np.testing.assert_array_equal(
        inbetween(points.astype(np.float32), rate, make(), keep_keys="exact")[::rate], points.astype(np.float32)
    )


def test_the_answer_is_the_networks_own():
    network, points = tangents(), moving(7)
    tensor, is_seen = torch.from_numpy(points)[None].float(), torch.ones(1, 7, 19, dtype=torch.bool)
    own = network.predict(tensor, is_seen, KEY_STEP)
    assert own.is_bad_BKJ.any()
    expected = network.decode(own.keys_BKJ2, own.slopes_BKJ2, KEY_STEP)[0].detach().numpy()
    np.testing.assert_allclose(inbetween(points, KEY_STEP, network), expected, atol=2e-6)
    exact = network.predict(tensor, is_seen, KEY_STEP, trust_seen=True)
    expected = network.decode(exact.keys_BKJ2, exact.slopes_BKJ2, KEY_STEP)[0].detach().numpy()
    np.testing.assert_allclose(inbetween(points, KEY_STEP, network, keep_keys="exact"), expected, atol=2e-6)


@needs_reference
@pytest.mark.parametrize(("encoder_mask", "suffix"), [("exclude", ""), ("plus-one", "_diagonal_plus_one")])
def test_the_papers_network_gives_the_fixtures_through_it(encoder_mask, suffix):
    io = load_arrays("motion_io.npz")
    rows = Normalisation(np.load(MOTION / "mean_pose.npy"), np.load(MOTION / "std_pose.npy"))
    network = from_authors_state(authors_state(), num_heads=8, encoder_mask=encoder_mask, normalisation=rows)
    for case, rate in (("a", 8), ("b", 16)):
        num_frames = int((~io[f"{case}_pad_mask"]).sum(axis=1).max())
        row = int((~io[f"{case}_pad_mask"]).sum(axis=1).argmax())
        points = rows.to_points(io[f"{case}_source"][row])[::rate]
        is_seen = np.ones(points.shape[:2], bool)
        found = inbetween(points[: (num_frames - 1) // rate + 1], rate, network, is_seen_KJ=is_seen)
        pred = rows.to_points(io[f"{case}_pred{suffix}"][row])[:num_frames]
        reco = rows.to_points(io[f"{case}_reco{suffix}"][row])[:num_frames:rate]
        is_between = np.arange(num_frames) % rate != 0
        np.testing.assert_allclose(found[is_between], pred[is_between], atol=1e-5)
        np.testing.assert_allclose(found[::rate], reco, atol=1e-5)


def test_denoise_repairs_what_the_network_finds_and_passes_the_rest_bit_for_bit():
    points = moving(30) * 300 + 100
    network = tangents(2)
    [motion] = predict_motions([points], KEY_STEP / 60, network)
    assert motion.is_made_KJ.any()
    assert not motion.is_made_KJ.all()
    assert motion.is_swapped_K.any()
    assert not motion.is_swapped_K.all()
    restored = np.where(motion.is_swapped_K[:, None, None], points[:, LEGS_SWAPPED], points)
    np.testing.assert_array_equal(motion.keys[~motion.is_made_KJ], restored[~motion.is_made_KJ])
    assert (motion.keys[motion.is_made_KJ] != restored[motion.is_made_KJ]).any(axis=1).all()
    assert (motion.gap_KJ[~motion.is_made_KJ] == 0).all()
    assert (motion.gap_KJ[motion.is_made_KJ] > 0).all()
    np.testing.assert_array_equal(inbetween(points, KEY_STEP, network)[::KEY_STEP], motion.keys)
    clean = tangents(finds_faults=False)
    np.testing.assert_array_equal(inbetween(points, KEY_STEP, clean)[::KEY_STEP], points)


def test_the_transformers_keys_are_cleaned_or_exact_and_the_frames_between_go_along():
    points, network = moving(12), transformer()
    clean, exact = (inbetween(points, KEY_STEP, network, keep_keys=keep) for keep in ("denoise", "exact"))
    assert np.abs(clean[::KEY_STEP] - points).max() > 1e-3
    np.testing.assert_array_equal(exact[::KEY_STEP], points)
    moved = points - clean[::KEY_STEP]
    half_way = exact[4::KEY_STEP] - clean[4::KEY_STEP]
    np.testing.assert_allclose(half_way, (moved[:-1] + moved[1:]) / 2, atol=1e-12)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_any_times_are_points_of_the_same_curve(make):
    points, network = moving(9), make()
    frames = inbetween(points, 8, network)
    times = np.array([3.0, 0.125, 7.75, 8.0, 0.0])
    found = inbetween(points, 8, network, times=times)
    np.testing.assert_allclose(found, frames[(times * 8).astype(int)], atol=1e-12)
    dense = inbetween(points, 8, network, times=np.linspace(0, 8, 8001), keep_keys="exact")
    step, bend = (np.abs(np.diff(dense, n=order, axis=0)).max() for order in (1, 2))
    assert step < 0.01
    assert bend < 0.05 * step  # where the speed jumps they are alike
    thirds = inbetween(points, 3, network, key_step_s=8 / 60)
    np.testing.assert_allclose(
        thirds[1::3], inbetween(points, None, network, times=np.arange(8) + 1 / 3, key_step_s=8 / 60)
    )


def test_the_time_between_keys_counts_not_the_number_of_frames():
    points, network = moving(9), tangents()
    eight = inbetween(points, 8, network)
    np.testing.assert_array_equal(inbetween(points, 4, network, key_step_s=8 / 60), eight[::2])
    assert np.abs(inbetween(points, 4, network) - eight[::2]).max() > 1e-4
    between = inbetween(points, 4, network, key_step_s=8.5 / 60)
    assert np.abs(between - eight[::2]).max() > 1e-6
    far, border = (inbetween(points, 4, network, key_step_s=s / 60) for s in (500, 32))
    np.testing.assert_array_equal(far, border)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("keep_keys", ["denoise", "exact"])
def test_pixels_of_any_picture_give_the_same_motion(make, keep_keys):
    points, network = moving(20), make()
    points[4, Joint.LEFT_WRIST] = points[11] = np.nan
    unit = inbetween(points, 8, network, keep_keys=keep_keys)
    large, small = (inbetween(points * s + o, 8, network, keep_keys=keep_keys) for s, o in ((900, 700), (25.0, -3.0)))
    np.testing.assert_allclose((large - 700) / 900, (small + 3) / 25, atol=1e-5)
    # Where the person stands and the last tenth of its size do not matter to it, but for what a random detector finds.
    if make is tangents and keep_keys == "exact":
        np.testing.assert_allclose((large - 700) / 900, unit, atol=0.02)


def test_units_by_hand():
    seen = np.ones((5, 19), bool)
    points = np.repeat(figure()[None], 5, axis=0)
    still = Normalisation(usual().mean_E2, np.full((19, 2), 1e-9))
    for factor in (0.5, 1, 2.4):
        assert measure_units(points * factor + 3, seen, still).scale == 1
        assert (measure_units(points * factor + 3, seen, still).offset_2 == 0).all()
    found = measure_units(points * 250 + [320, 240], seen, still)
    assert found.scale == pytest.approx(250)
    np.testing.assert_allclose(found.offset_2, [320, 240], atol=1e-6)
    # Foreshortened in one key, half hidden in all, one joint far off: still the same body.
    points[0, :, 1] = 0.1
    seen[:, [joint for joint in Joint if joint >= Joint.MID_HIP]] = False
    points[1, Joint.NOSE] = 5
    assert measure_units(points * 250, seen, still).scale == pytest.approx(250)
    spread = measure_units(np.zeros((3, 19, 2)) + 7, seen[:3], still)
    assert spread.scale == 1


def test_the_papers_scale_is_an_option():
    points, network = moving(9) * 0.6, transformer()
    frames = inbetween(points * 512 + 256, 8, network, scale="paper")
    np.testing.assert_allclose((frames - 256) / 512, inbetween(points, 8, network), atol=1e-5)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_what_is_not_seen_is_not_read_and_is_filled(make):
    points, network = moving(20) * 300 + 400, make()
    is_seen = np.ones((20, 19), bool)
    is_seen[6] = is_seen[3:5, Joint.RIGHT_KNEE] = is_seen[8, Joint.MID_HIP] = is_seen[:, Joint.LEFT_HAND] = False
    expected = inbetween(np.where(is_seen[..., None], points, 0.0), 8, network)
    assert np.isfinite(expected).all()
    for hidden in (np.nan, np.inf, 12345.0):
        other = np.where(is_seen[..., None], points, hidden)
        np.testing.assert_array_equal(inbetween(other, 8, network, is_seen_KJ=is_seen), expected)
    np.testing.assert_array_equal(inbetween(np.where(is_seen[..., None], points, np.nan), 8, network), expected)
    # One coordinate alone may be 0.
    edge = points.copy()
    edge[0, 0, 0] = 0
    np.testing.assert_array_equal(inbetween(edge, 8, network, keep_keys="exact")[0, 0], edge[0, 0])
    [motion] = predict_motions([points], 8 / 60, network, is_seen=[is_seen], keep_keys="exact")
    np.testing.assert_array_equal(motion.is_made_KJ, ~is_seen)
    np.testing.assert_array_equal(motion.keys[is_seen], points[is_seen])
    assert motion.gap_KJ[6, Joint.NECK] == 1
    assert motion.gap_KJ[4, Joint.RIGHT_KNEE] == 1
    assert (motion.gap_KJ[:, Joint.LEFT_HAND] == 20).all()


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_clips_of_many_lengths_at_once_are_each_as_alone(make):
    network = make()
    clips = [moving(k, seed) * 200 for seed, k in enumerate((9, 1, 70, 9, 2, 130))]
    is_seen = [None, None, np.random.default_rng(0).random((70, 19)) > 0.1, None, None, None]
    together = inbetween_clips(clips, 4, network, is_seen=is_seen)
    for clip, seen, found in zip(clips, is_seen, together, strict=True):
        np.testing.assert_allclose(found, inbetween(clip, 4, network, is_seen_KJ=seen), atol=1e-3)  # px
    at = inbetween_clips(clips[:2], 4, network, times=[[0.5, 2.25], [0.0]])
    np.testing.assert_allclose(at[0], together[0][[2, 9]], atol=1e-3)
    assert at[1].shape == (1, 19, 2)
    assert inbetween_clips([], 4, network) == []


@pytest.mark.parametrize("keep_keys", ["denoise", "exact"])
def test_a_long_clip_has_no_seams_and_is_near_the_answer_of_one_window(keep_keys, monkeypatch):
    points, network = moving(3000), tangents(finds_faults=False)
    points[200:290, Joint.RIGHT_WRIST] = np.nan  # longer than a window
    windows = inbetween(points, 8, network, keep_keys=keep_keys)
    monkeypatch.setattr(inference, "TANGENT_WINDOW", 3000)
    whole = inbetween(points, 8, network, keep_keys=keep_keys)
    by_spline = spline(windows[::8], np.arange(len(windows)) / 8)
    learnt = np.abs(whole - by_spline).mean()
    assert learnt > 1e-4  # what the network adds to the spline, of which the windows may change a little
    assert np.abs(windows - whole).mean() < 0.15 * learnt
    starts = inference._window_starts(3000, 64, 16)
    at_seams = np.unique([8 * (start + offset) + i for start in starts[1:] for offset in range(16) for i in range(8)])
    for order in (1, 2, 3):
        ours, theirs = (np.abs(np.diff(frames, n=order, axis=0)) for frames in (windows, whole))
        assert ours[at_seams].max() < 1.1 * theirs.max()
        assert ours[at_seams].mean() < 1.05 * theirs[at_seams].mean()


def test_a_long_clip_through_the_transformer_has_no_seams():
    points, network = moving(150), transformer()
    frames = inbetween(points, 8, network)
    starts = inference._window_starts(150, 41, 10)
    assert len(starts) > 3
    is_key = np.arange(len(frames)) % 8 == 0
    by_window = [inbetween(points[s : s + 41], 8, network) for s in starts]
    for start, part in zip(starts, by_window, strict=True):
        middle = slice(8 * 16, 8 * 25)  # no other window reaches here
        np.testing.assert_allclose(frames[8 * start :][middle], part[middle], atol=1e-5)
    # Between two windows every frame lies between their answers.
    for (a, first), (b, second) in zip(
        zip(starts, by_window, strict=True), list(zip(starts, by_window, strict=True))[1:], strict=False
    ):
        shared = slice(8 * b, 8 * (a + 40) + 1)
        both = np.stack([first[8 * (b - a) :], second[: 8 * (a + 40 - b) + 1]])
        assert (frames[shared] >= both.min(axis=0) - 1e-6).all()
        assert (frames[shared] <= both.max(axis=0) + 1e-6).all()
    jump = np.abs(np.diff(frames, axis=0))[~is_key[1:] & ~is_key[:-1]]
    alone = np.abs(np.diff(np.concatenate(by_window), axis=0))
    assert jump.max() <= alone.max()


@pytest.mark.parametrize(
    ("num_all", "num_keys", "overlap"), [(65, 64, 16), (113, 64, 16), (3000, 64, 16), (5, 2, 1), (7, 3, 1)]
)
def test_windows_cover_all_keys_and_overlap_enough(num_all, num_keys, overlap):
    starts = inference._window_starts(num_all, num_keys, overlap)
    assert starts[0] == 0
    assert starts[-1] == num_all - num_keys
    assert max(np.diff(starts)) <= num_keys - overlap


def test_memory_and_time_grow_with_length_alone():
    network = tangents()

    def cost(num_keys):
        points = moving(num_keys)
        start = time.process_time()
        inbetween(points, 8, network)
        seconds = time.process_time() - start
        tracemalloc.start()
        inbetween(points, 8, network)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return seconds, peak

    cost(500)
    (short_s, short_bytes), (long_s, long_bytes) = cost(1500), cost(12000)
    assert long_bytes < 9 * short_bytes  # NumPy's; a dense matrix would take 64 times
    assert long_s < 16 * short_s


def test_the_network_is_left_as_it_was_and_dropout_is_off():
    network, points = transformer().train(), moving(5)
    np.testing.assert_array_equal(inbetween(points, 8, network), inbetween(points, 8, network))
    assert network.training


def test_a_checkpoint_folder_is_read_again_when_it_changes(tmp_path):
    points = moving(5)
    first, second = tangents(1), tangents(2)
    save(tmp_path / "m", first, first.config, {})
    np.testing.assert_array_equal(inbetween(points, 8, tmp_path / "m"), inbetween(points, 8, first))
    save(tmp_path / "m", second, second.config, {})
    np.testing.assert_array_equal(inbetween(points, 8, str(tmp_path / "m")), inbetween(points, 8, second))


def test_the_embedded_checkpoint_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "EMBEDDED", tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"m: there is no such checkpoint; run `inbetween data`$"):
        inbetween(moving(3), 8)
    network = tangents()
    save(tmp_path / "m", network, network.config, {})
    np.testing.assert_array_equal(inbetween(moving(3), 8), inbetween(moving(3), 8, network))


def broken(key, joint, value):
    points = moving(5)
    points[key, joint] = value
    return points


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (np.zeros((5, 17, 2)), {}, r"points: shape \(5, 17, 2\); \(keys, 19, 2\) is needed"),
        (np.zeros((5, 19, 3)), {}, r"points: shape \(5, 19, 3\)"),
        (np.zeros((0, 19, 2)), {}, r"points: shape \(0, 19, 2\).*at least one key"),
        (np.zeros((2, 19, 2), complex), {}, r"points: values of type complex128; numbers"),
        (broken(3, 7, np.inf), {}, r"points: key 3, LEFT_WRIST is \(inf, inf\)"),
        (broken(1, 0, np.nan), {"is_seen_KJ": np.ones((5, 19), bool)}, r"points: key 1, NOSE is \(nan, nan\)"),
        (moving(5), {"is_seen_KJ": np.ones((4, 19), bool)}, r"is_seen is bool \(4, 19\); bool \(5, 19\) is needed"),
        (moving(5), {"is_seen_KJ": np.ones((5, 19))}, r"is_seen is float64 \(5, 19\)"),
        (np.zeros((5, 19, 2)), {}, r"points: no joint is seen in any of 5 keys"),
        (moving(5), {"rate": 0}, "rate 0: a whole number of frames"),
        (moving(5), {"rate": 2.5}, r"rate 2\.5: a whole number"),
        (moving(5), {"rate": None}, "rate is None; give it, or times"),
        (moving(5), {"rate": None, "times": [1.0]}, "key_step_s are None"),
        (moving(5), {"times": [1.0, 4.1]}, r"time 4\.1 is outside the clip's keys, 0 to 4"),
        (moving(5), {"times": [np.nan]}, "time nan is outside"),
        (moving(5), {"times": [[1.0]]}, r"times has shape \(1, 1\)"),
        (moving(5), {"key_step_s": 0.0}, r"key_step_s 0\.0: seconds above 0"),
        (moving(5), {"keep_keys": "clean"}, "keep_keys 'clean': must be one of denoise, exact"),
        (moving(5), {"scale": "fixed"}, "scale 'fixed': must be one of skeleton, paper"),
        (moving(5), {"checkpoint": torch.nn.Linear(1, 1)}, "checkpoint is a Linear; a motion network is needed"),
        (moving(5), {"checkpoint": "none"}, r"none/config\.json: there is no such file"),
    ],
)
def test_bad_input_is_refused_by_name(points, options, message):
    with pytest.raises(ValueError, match=message):
        inbetween(points, **{"rate": 8, "checkpoint": tangents(), **options})


def test_of_many_clips_the_bad_one_is_named():
    with pytest.raises(ValueError, match=r"clip 1: shape \(5, 2\)"):
        inbetween_clips([moving(3), np.zeros((5, 2))], 8, tangents())
    for options in ({"is_seen": [None]}, {"times": [[0.0]]}):
        with pytest.raises(ValueError, match=r"has 1 entries for 2 clips"):
            inbetween_clips([moving(3), moving(3)], 8, tangents(), **options)


def test_importing_the_package_imports_no_torch():
    code = "import sys, models.motion; sys.exit('torch' in sys.modules or not models.motion.__all__)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from models.motion import nothing  # noqa: F401
