"""LPIPS: the formula in NumPy gives the same numbers; parts, refusals; the weights' pickle runs nothing."""

import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.lpips import MIN_SIDE_PX, PACKAGE, Lpips, LpipsTruth, find_weights, load_lpips, lpips
from models.renderer.keys import WeightsError

KERNELS = ((11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256))  # HWIO
STRIDES, PADDINGS = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)


def is_here() -> bool:
    try:
        return find_weights().is_file()
    except WeightsError:
        return False


needs_package = pytest.mark.skipif(
    not is_here(), reason="the package index lacked the weights when the environment was made"
)


def random_weights() -> dict:
    """Of the layout and the sizes of the package's file."""
    random = np.random.default_rng(0)
    convs, weights = {}, {}
    for layer, shape in enumerate(KERNELS):
        spread = np.sqrt(2 / np.prod(shape[:3]))
        convs[f"Conv_{layer}"] = {
            "kernel": random.normal(0, spread, shape).astype(np.float32),
            "bias": random.normal(0, 0.1, shape[3]).astype(np.float32),
        }
        linear = random.random((1, 1, shape[3], 1), np.float32) / shape[3]
        weights[f"NetLinLayer_{layer}"] = {"Conv_0": {"kernel": linear}}
    return {"AlexNet_0": convs, **weights}


def write(path: Path, values: object) -> Path:
    path.write_bytes(pickle.dumps(values, protocol=3))
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return load_lpips(write(tmp_path_factory.mktemp("lpips") / "alexnet.ckpt", random_weights()))


@pytest.fixture(scope="module")
def pair():
    """A picture and the truth."""
    random = np.random.default_rng(1)
    truth = random.integers(0, 256, (57, 71, 3), np.uint8)
    return np.clip(truth + random.normal(0, 30, truth.shape), 0, 255).astype(np.uint8), truth


def in_numpy(image, truth, is_counted, weights) -> tuple[float, float]:
    """The paper's equation 1 in 64 bits."""
    whole, map_HW = 0.0, np.zeros(truth.shape[:2])
    layers = zip(features_in_numpy(image, weights), features_in_numpy(truth, weights), strict=True)
    for layer, (ours, theirs) in enumerate(layers):
        linear = weights[f"NetLinLayer_{layer}"]["Conv_0"]["kernel"][0, 0, :, 0]
        places = (ours - theirs) ** 2 @ linear.astype(np.float64)
        whole += places.mean()
        rows, columns = (resizing(size, to) for size, to in zip(places.shape, truth.shape[:2], strict=True))
        map_HW += rows @ places @ columns.T
    return whole, map_HW[is_counted].mean()


def features_in_numpy(image, weights) -> list:
    x = (image[..., ::-1] / 255 * 2 - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
    found = []
    for layer, (stride, padding) in enumerate(zip(STRIDES, PADDINGS, strict=True)):
        if layer in (1, 2):
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))
            x = windows.max(axis=(-2, -1))[::2, ::2]
        conv = weights["AlexNet_0"][f"Conv_{layer}"]
        padded = np.pad(x, [(padding, padding), (padding, padding), (0, 0)])
        kernel_HWIO = conv["kernel"].astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel_HWIO.shape[:2], axis=(0, 1))
        seen = np.einsum("ywihk,hkio->ywo", windows[::stride, ::stride], kernel_HWIO, optimize=True)
        x = np.maximum(seen + conv["bias"], 0)
        found.append(x / (np.sqrt((x**2).sum(axis=-1, keepdims=True)) + 1e-10))
    return found


def resizing(size: int, to: int) -> np.ndarray:
    """(to, size): each row the two nearest centres' shares; beyond the outermost centres, theirs."""
    shares = np.zeros((to, size))
    for row in range(to):
        at = np.clip((row + 0.5) * size / to - 0.5, 0, size - 1)
        low = int(at)
        shares[row, low] += 1 - (at - low)
        shares[row, min(low + 1, size - 1)] += at - low
    return shares


@pytest.mark.parametrize("source", ["random", pytest.param("package", marks=needs_package)])
def test_numbers_are_those_of_the_formula_in_numpy(source, network, pair):
    weights = random_weights() if source == "random" else pickle.loads(find_weights().read_bytes())  # noqa: S301
    is_counted = np.zeros(pair[1].shape[:2], bool)
    is_counted[10:40, 5:33] = True
    found = lpips(*pair, is_counted, network if source == "random" else None)
    assert found == pytest.approx(in_numpy(*pair, is_counted, weights), abs=1e-5)


@needs_package
def test_published_linear_layers_and_filters_are_what_was_read():
    """Version 0.1 and not 0.0: no weight is negative. The first biases are those of torchvision's AlexNet."""
    network = load_lpips()
    assert all(bool((linear.weight >= 0).all()) for linear in network.linears)
    assert network.convs[0].bias[:3].tolist() == pytest.approx([-0.9705, -2.8070, -0.0371], abs=1e-4)


@needs_package
def test_a_blur_looks_worse_than_a_change_of_brightness():
    import cv2

    rows, columns = np.mgrid[:96, :96]
    checks = (((rows // 6 + columns // 6) % 2) * 120 + 60).astype(np.uint8)
    truth = cv2.merge([checks, checks.T, 255 - checks])
    blurred, brighter = cv2.GaussianBlur(truth, (0, 0), 3), truth + 10
    assert lpips(brighter, truth)[0] < 0.1 * lpips(blurred, truth)[0]


def test_the_same_picture_is_at_0(network, pair):
    assert lpips(pair[1], pair[1].copy(), np.ones(pair[1].shape[:2], bool), network) == (0, 0)


def test_order_does_not_matter(network, pair):
    image, truth = pair
    assert lpips(image, truth, None, network)[0] == pytest.approx(lpips(truth, image, None, network)[0], rel=1e-6)


def test_a_truth_encoded_once_serves_many(network, pair):
    image, truth = pair
    once = LpipsTruth(truth, network)
    for other in (image, truth, image[::-1]):
        assert once.compare(other)[0] == lpips(other, truth, None, network)[0]


def test_a_part_counts_its_own_pixels(network, pair):
    image, truth = pair
    half = truth.copy()
    half[:, :20] = image[:, :20]
    is_left = np.zeros(truth.shape[:2], bool)
    is_left[:, :20] = True
    _, left = lpips(half, truth, is_left, network)
    _, right = lpips(half, truth, ~is_left, network)
    assert left > right > 0  # what lies beside the part is seen too


@pytest.mark.parametrize("is_counted", [None, np.zeros((57, 71), bool)])
def test_no_pixel_counted_is_nan(is_counted, network, pair):
    whole, part = lpips(*pair, is_counted, network)
    assert whole > 0
    assert np.isnan(part)


def test_the_smallest_picture_has_a_distance(network, pair):
    small = [image[:MIN_SIDE_PX, :MIN_SIDE_PX] for image in pair]
    assert 0 < lpips(*small, None, network)[0] < 1
    with pytest.raises(ValueError, match="sides of at least 31 px"):
        lpips(*(image[:-1] for image in small), None, network)


def test_pictures_that_do_not_fit_are_refused(network, pair):
    image, truth = pair
    for wrong in (truth.astype(float), truth[..., 0]):
        with pytest.raises(ValueError, match=r"a picture is \(H, W, 3\) uint8"):
            LpipsTruth(wrong, network)
    for wrong in (image[:-1], image.astype(float)):
        with pytest.raises(ValueError, match=r"against one of \(57, 71, 3\)"):
            lpips(wrong, truth, None, network)
    with pytest.raises(ValueError, match="a mask of"):
        lpips(image, truth, np.ones((57, 70), bool), network)


def test_the_network_is_read_once_for_use_alone(tmp_path, network):
    path = write(tmp_path / "alexnet.ckpt", random_weights())
    again = load_lpips(path)
    assert load_lpips(path) is again
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in again.state_dict().items())


def test_arrays_by_numpy_1_names_are_read(tmp_path, network):
    path = write(tmp_path / "alexnet.ckpt", random_weights())
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert torch.equal(load_lpips(path).convs[0].weight, network.convs[0].weight)


class Call:
    """Pickled, a call of `function` with `arguments`."""

    def __init__(self, function, *arguments) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reading_the_weights_runs_nothing(tmp_path, protocol):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps({"AlexNet_0": Call(Path.touch, tmp_path / "ran")}, protocol))
    with pytest.raises(WeightsError, match=r"alexnet\.ckpt: not LPIPS's AlexNet weights \(it asks for"):
        load_lpips(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        Call(eval, "1"),
        Call(getattr, "", "join"),
        Call(np.frombuffer, b"1234"),
        Call(np.load, "x"),
        Call(np.memmap, "x"),
        np.float32(1),
        torch.zeros(1),
        partial(print, 1),
        np.random.default_rng,
    ],
    ids=lambda value: repr(value)[:24],
)
def test_all_but_arrays_is_refused(tmp_path, value):
    with pytest.raises(WeightsError, match="it asks for"):
        load_lpips(write(tmp_path / "alexnet.ckpt", value))


@pytest.mark.parametrize("name", [b"cos\nsystem\n", b"cnumpy\nndarray.tofile\n", b"cnumpy.core.multiarray\nscalar\n"])
def test_a_name_asked_for_is_looked_up_nowhere(tmp_path, name):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(name + b".")
    with pytest.raises(WeightsError, match="it asks for"):
        load_lpips(path)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(1), "numbers of type 'f8'"),
        (np.zeros(1, np.uint8), "numbers of type 'u1'"),
        (np.array([None]), "numbers of type 'O8'"),
        (np.zeros(1, [("a", "f4")]), "numbers of type 'V4'"),
        (np.zeros(1, ">f4"), "byte order '>'"),
    ],
)
def test_arrays_of_other_numbers_are_refused(tmp_path, array, reason):
    with pytest.raises(WeightsError, match=reason):
        load_lpips(write(tmp_path / "alexnet.ckpt", array))


def test_weights_that_are_not_lpips_are_one_line(tmp_path):
    path, good = tmp_path / "alexnet.ckpt", random_weights()
    linear = {"Conv_0": {"kernel": good["NetLinLayer_3"]["Conv_0"]["kernel"][:, :, 1:]}}
    convs = good["AlexNet_0"]
    not_finite = {"kernel": convs["Conv_2"]["kernel"], "bias": np.full(384, np.nan, np.float32)}
    cases = {
        r"a layer of shape \(1, 255, 1, 1\), not \(1, 256, 1, 1\)": good | {"NetLinLayer_3": linear},
        "not finite": good | {"AlexNet_0": convs | {"Conv_2": not_finite}},
        "no 'AlexNet_0'": {"VGG16_0": {}},
        "no 'Conv_0'": {"AlexNet_0": {}},
        "has no attribute": {"AlexNet_0": {"Conv_0": {"kernel": {}, "bias": {}}}},
        "not subscriptable": 3,
    }
    for reason, values in cases.items():
        with pytest.raises(WeightsError, match=rf"\A[^\n]*alexnet\.ckpt: [^\n]*{reason}[^\n]*run `make env`\Z"):
            load_lpips(write(path, values))


def test_a_damaged_file_is_one_line(tmp_path):
    path, good = tmp_path / "alexnet.ckpt", pickle.dumps(random_weights(), protocol=3)
    with pytest.raises(WeightsError, match="No such file"):
        load_lpips(path)
    for damaged in (b"", b"nothing", b"PK\x03\x04", good[:2], good[:150], good[: len(good) // 2], good[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"\A[^\n]*alexnet\.ckpt: not LPIPS's[^\n]*run `make env`\Z"):
            load_lpips(path)


def test_a_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setattr("models.renderer.keys.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=f"the package {PACKAGE} could not be had .* run `make env` again"):
        find_weights()


@needs_package
def test_the_package_is_not_imported():
    assert isinstance(load_lpips(), Lpips)
    assert PACKAGE not in sys.modules
