"""Feature networks: what they compute, and what is refused."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from iddpm.errors import UserError
from iddpm.evaluation.features import inception, lite0, open_network
from iddpm.evaluation.features.inception import Inception, resize_as_tensorflow1

from ..conftest import ROOT

CPU = torch.device("cpu")
REFERENCE = json.loads((Path(__file__).parent / "data" / "inception.json").read_text())
"""Outputs of torch-fidelity 0.4.0 for the images and weights below: FeatureExtractorInceptionV3's 2048 features (every
128th) and unbiased logits (every 63rd) of one image of each size, and what interpolate_bilinear_2d_like_tensorflow1x
makes of that image at some places of channel 1. The published weights were not at hand."""


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """In [-1, 1), a function of the name alone."""
    raw = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return torch.from_numpy(((raw >> np.uint64(40)) * 2.0**-23 - 1).astype(np.float32)).reshape(shape)


def image(size: int) -> Tensor:
    return ((uniform(f"image {size}", (1, 3, size, size)) + 1) * 128).to(torch.uint8)


@pytest.fixture(scope="module")
def network() -> Inception:
    """Weights that keep the activations at one order of magnitude."""
    made = Inception()
    weights = {}
    for name, tensor in made.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        values = uniform(name, tuple(tensor.shape))
        if name.endswith("conv.weight"):
            values *= (6 / tensor[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            values = 1 + values / 2
        else:
            values /= 10
        weights[name] = values
    made.load_state_dict(weights, strict=False)
    return made.eval()


@pytest.mark.parametrize("size", sorted(map(int, REFERENCE)))
def test_inception_equals_the_reference(network: Inception, size: int) -> None:
    expected = {name: torch.tensor(values) for name, values in REFERENCE[str(size)].items()}
    at = torch.tensor([0, 100, 200, 298])
    resized = resize_as_tensorflow1(image(size).float(), 299)[0, 1][at][:, at]
    torch.testing.assert_close(resized.flatten(), expected["resized"], rtol=0, atol=1e-4)
    with torch.inference_mode():
        features, logits = network(image(size))
    torch.testing.assert_close(features[0, ::128], expected["features"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[0, ::63], expected["logits"], rtol=1e-4, atol=1e-3)


def test_inception_has_the_tensors_of_the_published_file(network: Inception) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    listing = "".join(f"{name} {shapes[name]}\n" for name in sorted(shapes))
    assert len(shapes) == 566 and zlib.crc32(listing.encode()) == 832996088  # of torch-fidelity's network


def test_other_inception_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights-inception-.*\.pth: missing; `iddpm download inception` fetches it"):
        open_network("inception", tmp_path, CPU)
    for name in inception.FILES:
        torch.save({}, tmp_path / name)
        with pytest.raises(UserError, match=rf"{name}: sha256 [0-9a-f]{{64}} is not the published 6726825d"):
            open_network("inception", tmp_path, CPU)
        (tmp_path / name).unlink()


def test_the_published_inception() -> None:
    folder = ROOT / "data" / "raw" / "features"
    if not any((folder / name).is_file() for name in inception.FILES):
        pytest.skip("no published Inception weights in data/raw/features; `iddpm download inception` fetches them")
    network = open_network("inception", folder, CPU)
    china = load_sample_images().images[0][None, :, :427]
    features, probabilities = network(china)
    assert features.shape == (1, 2048) and (features >= 0).all() and probabilities is not None
    assert probabilities.shape == (1, 1008) and probabilities.max() > 0.2
    assert network.distance == "FID"


def test_lite0_sees_what_is_in_a_photograph() -> None:
    network = open_network("lite0", Path("unused"), CPU)
    china = load_sample_images().images[0]
    features, probabilities = network(china[None, :, 106:533])
    assert features.shape == (1, 1280) and features.dtype == np.float32 and probabilities is not None
    likely = set(probabilities[0].argsort()[-3:].tolist())
    assert likely <= {442, 663, 698, 832}  # bell cote, monastery, palace, stupa of ImageNet
    assert network.distance == "fd-lite0" and json.loads(json.dumps(network.identity)) == network.identity


def test_features_do_not_depend_on_the_batch_and_grey_is_equal_channels() -> None:
    network = open_network("lite0", Path("unused"), CPU)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    together, colour = network(images), network(images.repeat(3, axis=3))
    alone = np.concatenate([network(images[i : i + 1]).features for i in range(3)])
    np.testing.assert_allclose(together.features, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(together.features, colour.features)


def test_other_lite0_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"efficientnet-lite0-.*pth: sha256 5793.* reinstall efficientnet-lite0"):
        open_network("lite0", Path("unused"), CPU)


def test_pixels() -> None:
    network = open_network("pixels", Path("unused"), CPU)
    features, probabilities = network(np.array([[[[0], [51]]], [[[255], [102]]]], np.uint8))
    np.testing.assert_array_equal(features, np.array([[0, 0.2], [1, 0.4]], np.float32))
    assert probabilities is None and network.distance == "fd-pixels"


HEAD = "import torch\n"
MEANS = """
import pathlib
class Means(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))
    def forward(self, images):
        assert images.dtype == torch.uint8 and not self.training
        features = images.double().mean((2, 3)) * self.gain
        return features, features.half() * 0
def build(folder):
    return Means(float((folder / "gain.txt").read_text()))
"""
IMAGES = np.full((2, 4, 4, 3), [1, 2, 3], np.uint8)


def write(folder: Path, code: str) -> None:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "network.py").write_text(HEAD + code)


def test_a_network_of_the_users_own(tmp_path: Path) -> None:
    write(tmp_path, MEANS)
    (tmp_path / "mine" / "gain.txt").write_text("2")
    network = open_network("module/mine", tmp_path, CPU)
    features, probabilities = network(IMAGES)
    assert (
        features.dtype == np.float32 and features.tolist() == [[2, 4, 6], [2, 4, 6]] and network.distance == "fd-mine"
    )
    assert probabilities is not None and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, 1 / 3, rtol=1e-6)
    (tmp_path / "mine" / "__pycache__").mkdir()
    (tmp_path / "mine" / "__pycache__" / "x.pyc").write_bytes(b"left behind")
    assert open_network("module/mine", tmp_path, CPU).identity == network.identity
    (tmp_path / "mine" / "gain.txt").write_text("3")
    assert open_network("module/mine", tmp_path, CPU).identity != network.identity
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["__pycache__", "gain.txt", "network.py"]


def returning(expression: str) -> str:
    return (
        f"class M(torch.nn.Module):\n    def forward(self, x):\n        return {expression}\ndef build(_): return M()"
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def build(folder:\n", r"network\.py: line 2: SyntaxError: .+"),
        ("import nosuch\n", r"network\.py: line 2: ModuleNotFoundError: No module named 'nosuch'"),
        ("", r"network\.py: defines no function build\(folder\)"),
        ("def build(folder):\n    return 1 / 0\n", r"network\.py: line 3: ZeroDivisionError: division by zero"),
        ("def build(folder):\n    open(folder / 'w.pth')\n", r"network\.py: line 3: FileNotFoundError: .*w\.pth'"),
        ("def build(folder): return len\n", r"network\.py: build returned .*, not a torch\.nn\.Module"),
        (returning("x.nosuch"), r"network\.py: line 4: AttributeError: .*nosuch.*"),
        (returning("x @ torch.ones(7)"), r"network\.py: line 4: RuntimeError: .+"),
        (returning("None"), r"network\.py: the network returned NoneType; it must return a tensor of features, or .*"),
        (returning("(x, x, x)"), r"network\.py: the network returned tuple; .*"),
        (returning("x"), r"network\.py: features of 2 images are torch\.uint8 \[2, 3, 4, 4\]; they must be .*"),
        (returning("torch.ones(3, 5)"), r"network\.py: features of 2 images are torch\.float32 \[3, 5\]; .*"),
        (returning("(torch.ones(2, 5), torch.ones(2))"), r"network\.py: logits of 2 images .* \[2, number of logits\]"),
        (returning("torch.ones(2, 5) / 0"), r"network\.py: features are not all finite"),
    ],
)
def test_an_error_of_the_users_code_is_one_line(tmp_path: Path, code: str, message: str) -> None:
    write(tmp_path, code)
    with pytest.raises(UserError) as error:
        open_network("module/mine", tmp_path, CPU)(IMAGES)
    assert error.match(rf"mine/{message}$") and "\n" not in str(error.value)


def test_no_network_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine/network\.py: missing; features: module/mine needs it$"):
        open_network("module/mine", tmp_path, CPU)
