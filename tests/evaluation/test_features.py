"""Feature networks: what they compute, and what is refused."""

import hashlib
import json
import pickle
import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from iddpm.errors import UserError
from iddpm.evaluation.features import FEATURE_NETWORKS, find_files, inception, lite0, open_network
from iddpm.evaluation.features.inception import Inception, resize_as_tensorflow1
from iddpm.evaluation.features.network import load_weights

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
    (tmp_path / "inception").mkdir()
    missing = r"inception/weights-inception-.*\.pth: missing; `iddpm download inception` fetches it"
    for use in (lambda: open_network("inception", tmp_path, CPU), lambda: find_files("inception", tmp_path)):
        with pytest.raises(UserError, match=missing):
            use()
    for name in inception.FILES:
        torch.save({}, tmp_path / "inception" / name)
        find_files("inception", tmp_path)
        with pytest.raises(UserError, match=rf"{name}: sha256 [0-9a-f]{{64}} is not the published 6726825d"):
            open_network("inception", tmp_path, CPU)
        (tmp_path / "inception" / name).unlink()


def test_the_published_inception() -> None:
    folder = ROOT / FEATURE_NETWORKS
    if not any((folder / "inception" / name).is_file() for name in inception.FILES):
        pytest.skip("no published Inception weights in the project; `iddpm download inception` fetches them")
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


LITE0 = {
    32: ([2.27085, 4.39723, 11.75726, -16.54694], [-169.3187, 151.03159, 46.52208, -171.08752]),
    256: ([11.20048, 11.40351, 17.53063, -6.35519], [-188.30241, 186.02281, 46.59922, -175.66422]),
}
"""What lite0 makes of `image`, which it enlarges or reduces: features and log probabilities along four directions."""


@pytest.mark.parametrize("size", LITE0)
def test_lite0_is_what_it_was(size: int) -> None:
    features, probabilities = open_network("lite0", Path("unused"), CPU)(image(size).permute(0, 2, 3, 1).numpy())
    assert probabilities is not None
    along = features @ uniform("features", (1280, 4)).numpy()
    np.testing.assert_allclose(along[0], LITE0[size][0], atol=2e-3)  # of features whose norm is 14 and 18
    of_classes = np.log(probabilities) @ uniform("classes", (1000, 4)).numpy()
    np.testing.assert_allclose(of_classes[0], LITE0[size][1], atol=2e-2)


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


def test_weights_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Malicious()}, "w.pth")
    sha256 = hashlib.sha256(Path("w.pth").read_bytes()).hexdigest()
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_weights(Path("w.pth"), sha256, "")
    assert not Path("should-not-exist").exists()
    torch.save({"weight": torch.ones(2)}, "w.pth")
    assert load_weights(Path("w.pth"), hashlib.sha256(Path("w.pth").read_bytes()).hexdigest(), "")["weight"].sum() == 2


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("should-not-exist"),))


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


def write(folder: Path, code: str, **files: str) -> Path:
    """The network module/mine in `folder`, and the files beside its code."""
    mine = folder / "module" / "mine"
    mine.mkdir(parents=True, exist_ok=True)
    for name, text in {"network": HEAD + code, **files}.items():
        (mine / f"{name}.py").write_text(text)
    return mine


def test_a_network_of_the_users_own(tmp_path: Path) -> None:
    mine = write(tmp_path, MEANS)
    (mine / "gain.txt").write_text("2")
    network = open_network("module/mine", tmp_path, CPU)
    features, probabilities = network(IMAGES)
    assert (
        features.dtype == np.float32 and features.tolist() == [[2, 4, 6], [2, 4, 6]] and network.distance == "fd-mine"
    )
    assert probabilities is not None and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, 1 / 3, rtol=1e-6)
    (mine / "__pycache__").mkdir()
    (mine / "__pycache__" / "x.pyc").write_bytes(b"left behind")
    assert open_network("module/mine", tmp_path, CPU).identity == network.identity
    (mine / "gain.txt").write_text("3")
    assert open_network("module/mine", tmp_path, CPU).identity != network.identity
    assert sorted(path.name for path in mine.iterdir()) == ["__pycache__", "gain.txt", "network.py"]


IMPORTING = """
from __future__ import annotations
import torch
from dataclasses import dataclass, fields
from helper import GAIN
@dataclass
class Settings:
    gain: float = GAIN
class Means(torch.nn.Module):
    def forward(self, images):
        from late import OFFSET
        return images.float().mean((2, 3)) * Settings().gain + OFFSET
def build(folder):
    assert [field.type for field in fields(Settings)] == ["float"]
    return Means()
"""


def test_files_beside_the_code_are_imported_and_clash_with_nothing(tmp_path: Path) -> None:
    before, known, bytecode = sys.path[:], set(sys.modules), sys.dont_write_bytecode
    networks = []
    for gain in (2, 3):
        root = tmp_path / str(gain)
        write(root, "", network=IMPORTING, helper=f"GAIN = {gain}\n", late=f"OFFSET = {gain * 10}\n")
        networks.append(open_network("module/mine", root, CPU))
    for _ in range(2):
        for gain, network in zip((2, 3), networks, strict=True):
            assert network(IMAGES).features[0].tolist() == [gain * k + gain * 10 for k in (1, 2, 3)]
    assert sys.path == before and not {"helper", "late", "network"} & (set(sys.modules) - known)
    assert not list(tmp_path.rglob("__pycache__")) and sys.dont_write_bytecode == bytecode


def test_a_module_of_that_name_elsewhere_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = ModuleType("helper")
    monkeypatch.setitem(sys.modules, "helper", elsewhere)
    code = "from helper import build\n"
    write(tmp_path, code, helper="import torch\ndef build(folder):\n    return torch.nn.Flatten().double()\n")
    open_network("module/mine", tmp_path, CPU)
    assert sys.modules["helper"] is elsewhere


def test_features_are_computed_without_tf32(tmp_path: Path) -> None:
    """Which would make those of a GPU others than those of a CPU."""
    write(tmp_path, returning("torch.full((len(x), 1), float(torch.backends.cudnn.allow_tf32))"))
    assert torch.backends.cudnn.allow_tf32
    assert open_network("module/mine", tmp_path, CPU)(IMAGES).features.tolist() == [[0], [0]]
    assert torch.backends.cudnn.allow_tf32


def returning(expression: str) -> str:
    return (
        f"class M(torch.nn.Module):\n    def forward(self, x):\n        return {expression}\ndef build(_): return M()"
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def build(folder:\n", r"network\.py: line 2: SyntaxError: .+"),
        ("import broken\n", r"broken\.py: line 2: ZeroDivisionError: division by zero"),
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
    write(tmp_path, code, broken="\n1 / 0\n")
    with pytest.raises(UserError) as error:
        open_network("module/mine", tmp_path, CPU)(IMAGES)
    assert error.match(rf"mine/{message}$") and "\n" not in str(error.value)


def test_no_network_of_that_name(tmp_path: Path) -> None:
    for use in (lambda: open_network("module/mine", tmp_path, CPU), lambda: find_files("module/mine", tmp_path)):
        with pytest.raises(UserError, match=r"module/mine/network\.py: missing; features: module/mine needs it$"):
            use()
    for name in ("pixels", "lite0"):
        find_files(name, tmp_path)
