"""Sets of images: the same wherever they are kept, read as a stream, refused by name when something is wrong."""

import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from iddpm.data import ShardFolder, open_source, write_shards
from iddpm.errors import UserError
from iddpm.evaluation.images import ArrayImages, FolderImages, ImageSet, NpzImages, ShardImages, open_images
from iddpm.params import DigitsDataset


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the digits in data/shards."""
    root = tmp_path_factory.mktemp("project")
    dataset = DigitsDataset(source="digits", images_per_block=64, images_per_shard=130)
    list(write_shards(open_source(dataset, root), dataset, root / "data" / "shards" / "digits"))
    return root


@pytest.fixture(scope="module")
def shards(project: Path) -> ShardFolder:
    return ShardFolder(project / "data" / "shards" / "digits")


def write_pngs(images: np.ndarray, folder: Path) -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        PIL.Image.fromarray(image.squeeze()).save(folder / f"{i:04d}.png")


def test_the_same_images_are_the_same_set_wherever_they_are_kept(shards: ShardFolder, tmp_path: Path) -> None:
    images, labels = shards.read_split("test")
    np.savez(tmp_path / "stored.npz", images, labels)
    np.savez_compressed(tmp_path / "deflated.npz", arr_0=images[..., 0], arr_1=labels.astype(np.uint8))
    write_pngs(images, tmp_path / "pngs")
    rows = "".join(f"{i:04d}.png,{label}\n" for i, label in enumerate(labels))
    (tmp_path / "pngs" / "labels.csv").write_text("file,label\n" + rows)
    sets: list[ImageSet] = [
        ShardImages(shards, "test"),
        NpzImages(tmp_path / "stored.npz"),
        NpzImages(tmp_path / "deflated.npz"),
        FolderImages(tmp_path / "pngs"),
        ArrayImages(images, labels),
    ]
    for found in sets:
        assert (found.count, found.shape) == (299, (8, 8, 1))
        assert found.labels is not None and found.labels.dtype == np.int64 and (found.labels == labels).all()
        for size in (100, 128, 1000):  # shards hold 130 images
            batches = list(found.batches(size))
            assert {len(batch) for batch in batches[:-1]} <= {size} and np.array_equal(np.concatenate(batches), images)
        assert np.array_equal(found.take([298, 3, 3]), images[[298, 3, 3]]) and found.take([]).shape == (0, 8, 8, 1)
    assert len({found.sha256 for found in sets}) == 1
    others = (images[::-1], images[:-1], images.reshape(299, 4, 16, 1))
    assert len({sets[0].sha256, *(ArrayImages(other).sha256 for other in others)}) == 4
    for found in (sets[0], sets[1]):
        with pytest.raises(IndexError):
            found.take([299])


def test_images_of_an_npz_are_read_in_bounded_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "large.npz", np.zeros((4096, 64, 64, 3), np.uint8))
    tracemalloc.start()
    images = NpzImages(tmp_path / "large.npz")
    assert sum(len(batch) for batch in images.batches(16)) == images.count == 4096
    assert images.sha256 and tracemalloc.get_traced_memory()[1] < 15e6  # of 50 MB
    tracemalloc.stop()


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("should-not-exist"),))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(4), "sigma": np.eye(4)}, "holds the statistics mu and sigma of features, and no images"),
        ({"images": noise(2, 8, 8, 3), "names": np.zeros(2)}, r"has no array arr_0, .* \(images, names\)$"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.float32)}, r"arr_0 is float32 \[2, 8, 8, 3\]; images are uint8"),
        ({"arr_0": noise(2, 3, 8, 8)}, r"arr_0 is uint8 \[2, 3, 8, 8\]; images are uint8 \[N, height, width, 3\]"),
        ({"arr_0": noise(2, 8, 8, 4)}, r"arr_0 is uint8 \[2, 8, 8, 4\]"),
        ({"arr_0": noise(64, 64)}, r"arr_0 is uint8 \[64, 64\]"),
        ({"arr_0": noise(0, 8, 8, 3)}, r"arr_0 \[0, 8, 8, 3\] holds no image"),
        (
            {"arr_0": np.asfortranarray(noise(2, 8, 8, 3))},
            "arr_0 is stored column by column; save np.ascontiguousarray",
        ),
        ({"arr_0": np.array([Malicious()])}, r"arr_0 is object \[1\]"),
        ({"arr_0": noise(2, 8, 8, 3), "arr_1": np.arange(3)}, r"arr_1 holds 3 labels for the 2 images of arr_0"),
    ],
)
def test_an_npz_without_usable_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=rf"x\.npz: {message}") as error:
        NpzImages(tmp_path / "x.npz")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "should-not-exist").exists()


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float16, np.float64])
def test_labels_are_whole_numbers_of_any_type(tmp_path: Path, kind: type) -> None:
    np.savez(tmp_path / "x.npz", noise(3, 8, 8, 3), np.array([7, 0, 9], kind))
    images = NpzImages(tmp_path / "x.npz")
    assert images.labels is not None and images.labels.dtype == np.int64 and images.labels.tolist() == [7, 0, 9]
    assert images.notes == ()


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (np.array([0.5, 1]), r"float64 \[2\]"),
        (np.array([np.nan, 1]), r"float64 \[2\]"),
        (np.eye(2, 10), r"float64 \[2, 10\]"),
        (np.array(["ant", "bee"]), r"<U3 \[2\]"),
        (np.array([Malicious()] * 2), r"object \[2\]"),
    ],
)
def test_other_labels_are_ignored_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: np.ndarray, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", noise(2, 8, 8, 3), labels)
    images = NpzImages(Path("x.npz"))
    assert images.labels is None and len(images.notes) == 1
    assert re.fullmatch(rf"x\.npz: arr_1, {shown}, is ignored: labels are whole numbers \[2\]", images.notes[0])
    assert not Path("should-not-exist").exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_npz_is_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, noise(200, 8, 8, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"x\.npz: not a readable npz file \(File is not a zip file\)"):
        NpzImages(path)
    path.write_bytes(whole[:20_000] + bytes([whole[20_000] ^ 1]) + whole[20_001:])
    images = NpzImages(path)
    with pytest.raises(UserError, match=r"x\.npz: not a readable npz file \("):
        list(images.batches(50))
    with pytest.raises(UserError, match=r"x\.npz: not a readable npz file \(No such file or directory\)"):
        path.unlink()
        NpzImages(path)


def test_an_array_that_is_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "arr_0.npy", noise(20, 8, 8, 3))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("arr_0.npy", (tmp_path / "arr_0.npy").read_bytes()[:-5])
    with pytest.raises(UserError, match=r"arr_0 has 3963 bytes, its header says 3968"):
        NpzImages(tmp_path / "x.npz")


def test_a_folder_with_any_colour_is_colour(tmp_path: Path) -> None:
    grey, colour = noise(8, 6), noise(8, 6, 3)
    write_pngs(grey[None], tmp_path / "x")
    assert FolderImages(tmp_path / "x").shape == (8, 6, 1)
    (tmp_path / "x" / "deep").mkdir()
    PIL.Image.fromarray(colour).save(tmp_path / "x" / "deep" / "a.webp", lossless=True)
    PIL.Image.fromarray(grey).convert("1").save(tmp_path / "x" / "z.png")
    images = FolderImages(tmp_path / "x")
    assert images.shape == (8, 6, 3) and images.labels is None
    first, second, third = next(images.batches(9))
    assert (first == grey[..., None]).all() and (second == colour).all() and set(third.flatten().tolist()) <= {0, 255}


def test_hidden_files_are_no_images_of_a_folder(tmp_path: Path) -> None:
    """.x is what a file manager keeps, ._a.png what macOS adds to an archive."""
    write_pngs(noise(3, 8, 8), tmp_path / "x")
    write_pngs(noise(2, 8, 8), tmp_path / "x" / ".thumbnails")
    (tmp_path / "x" / ".b.png").write_bytes((tmp_path / "x" / "0000.png").read_bytes())
    (tmp_path / "x" / "._0000.png").write_bytes(b"attributes")
    (tmp_path / "x" / ".c.tiff").touch()
    images = FolderImages(tmp_path / "x")
    assert images.files == ["0000.png", "0001.png", "0002.png"] and images.labels is None


def test_class_subfolders_are_labels(tmp_path: Path) -> None:
    for name in ("bee", "ant"):
        write_pngs(noise(2, 8, 8), tmp_path / "x" / name)
    images = FolderImages(tmp_path / "x")
    assert images.labels is not None and images.labels.tolist() == [0, 0, 1, 1]
    (note,) = images.notes
    assert note.endswith("numbered in the order of their names: ant is 0, bee is 1")
    write_pngs(noise(2, 8, 8), tmp_path / "y" / "all")
    assert FolderImages(tmp_path / "y").labels is None


def test_a_file_that_does_not_fit_in_its_folder_is_named(tmp_path: Path) -> None:
    write_pngs(noise(3, 64, 64), tmp_path / "x")
    file = tmp_path / "x" / "0002.png"
    content = file.read_bytes()
    file.write_bytes(content[:2000])
    images = FolderImages(tmp_path / "x")  # its header is whole
    with pytest.raises(UserError, match=r"x/0002\.png: cannot be used \(.+\)$"):
        list(images.batches(2))
    file.write_bytes(b"text")
    with pytest.raises(UserError, match=r"x/0002\.png: cannot be used \(not a JPEG, PNG or WebP image\)$"):
        FolderImages(tmp_path / "x")
    PIL.Image.fromarray(noise(64, 32)).save(file)
    with pytest.raises(UserError, match=r"x/0002\.png: 64x32 pixels, but 0000\.png has 64x64; images that are"):
        FolderImages(tmp_path / "x")
    (tmp_path / "x" / "labels.csv").write_text("file,label\n0000.png,1\n")
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"labels\.csv: has no row for 0001\.png"):
        FolderImages(tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no PNG, JPEG or WebP file in this folder"):
        FolderImages(tmp_path / "empty")


@pytest.mark.parametrize("name", ["z.bmp", "deep/A.TIFF", "a.gif"])
def test_images_of_another_format_are_not_left_out_of_a_score(tmp_path: Path, name: str) -> None:
    write_pngs(noise(3, 8, 8), tmp_path / "x" / "deep")
    (tmp_path / "x" / "about.txt").write_text("no image")
    assert FolderImages(tmp_path / "x").count == 3
    PIL.Image.fromarray(noise(8, 8)).save(tmp_path / "x" / name)
    with pytest.raises(UserError, match=rf"x/{name}: is not read; convert it to PNG, or move it elsewhere$"):
        FolderImages(tmp_path / "x")


def test_shards_are_averaged_to_a_smaller_size(shards: ShardFolder) -> None:
    small = ShardImages(shards, "train", 4)
    images = shards.read_split("train")[0].reshape(-1, 4, 2, 4, 2, 1).astype(float)
    assert small.shape == (4, 4, 1) and small.count == 1498
    found = np.concatenate(list(small.batches(1000)))
    assert np.abs(found - images.mean((2, 4))).max() <= 0.5
    assert small.sha256 != ShardImages(shards, "train").sha256
    with pytest.raises(UserError, match="digits/train: 8 pixels cannot be averaged to 3"):
        ShardImages(shards, "train", 3)


def test_what_a_user_names(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pngs(noise(3, 8, 8), tmp_path / "pngs")
    (tmp_path / "runs" / "ours").mkdir(parents=True)
    np.savez(tmp_path / "runs" / "ours" / "samples.npz", noise(5, 8, 8, 1))
    PIL.Image.fromarray(noise(80, 80)).save(tmp_path / "runs" / "ours" / "grid.png")
    counts = {
        "pngs": 3,
        "runs/ours": 5,
        "runs/ours/samples.npz": 5,
        "digits": 1498,
        "digits/test": 299,
        str(project / "data/shards/digits"): 1498,
        str(project / "data/shards/digits/test"): 299,
    }
    assert {text: open_images(text, project).count for text in counts} == counts
    assert open_images("digits", project, "test").count == 299
    with pytest.raises(UserError, match=r"digits: has no split valid \(train, test\)$"):
        open_images("digits/valid", project)
    with pytest.raises(UserError, match=r"nosuch: no .npz file, folder of images, or dataset .* \(digits\)$"):
        open_images("nosuch", project)
    with pytest.raises(UserError, match=r"nosuch\.npz: not a readable npz file \(No such file"):
        open_images("nosuch.npz", project)


COVARIANCE = np.cov(np.random.default_rng(0).normal(size=(3, 50)))


def test_statistics_of_a_whole_dataset_come_with_its_images(tmp_path: Path) -> None:
    """As in OpenAI's reference files."""
    images, mean = noise(2, 4, 4, 3), np.arange(3.0)
    np.savez(tmp_path / "plain.npz", images)
    np.savez(tmp_path / "virtual.npz", arr_0=images, mu=mean, sigma=COVARIANCE, mu_s=mean, sigma_s=COVARIANCE)
    np.savez(tmp_path / "single.npz", arr_0=images, mu=mean.astype("f4"), sigma=COVARIANCE.astype("f4"))
    assert NpzImages(tmp_path / "plain.npz").statistics is None
    assert [NpzImages(tmp_path / f"{name}.npz").has_statistics for name in ("plain", "virtual")] == [False, True]
    virtual, single = (NpzImages(tmp_path / f"{name}.npz").statistics for name in ("virtual", "single"))
    assert virtual is not None and single is not None and virtual.sha256 != single.sha256
    np.testing.assert_array_equal(virtual.mean, mean)
    np.testing.assert_array_equal(virtual.covariance, COVARIANCE)
    assert single.mean.dtype == single.covariance.dtype == np.float64
    assert NpzImages(tmp_path / "virtual.npz").sha256 == NpzImages(tmp_path / "plain.npz").sha256


def test_a_covariance_of_few_images_is_one_but_for_rounding(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(20, 50))
    sigma = np.cov(features, rowvar=False).astype(np.float32)
    assert np.linalg.eigvalsh(sigma.astype(float))[0] < 0
    np.savez(tmp_path / "x.npz", arr_0=noise(2, 4, 4, 3), mu=features.mean(0), sigma=sigma)
    assert NpzImages(tmp_path / "x.npz").statistics is not None


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (
            np.zeros(3),
            np.eye(4),
            r"mu is float64 \[3\] and sigma float64 \[4, 4\]; statistics of D features are floats",
        ),
        (np.zeros((1, 3)), np.eye(3), r"mu is float64 \[1, 3\] and sigma"),
        (np.zeros(3), np.ones(3), r"mu is float64 \[3\] and sigma float64 \[3\]"),
        (np.zeros(0), np.eye(0), r"mu is float64 \[0\] and"),
        (np.zeros(3, int), np.eye(3), r"mu is int64 \[3\] and"),
        (np.array([0, 0, np.nan]), np.eye(3), "mu and sigma are not all finite"),
        (np.zeros(3), np.full((3, 3), np.inf), "mu and sigma are not all finite"),
        (np.zeros(3), np.eye(3) + np.triu(np.ones((3, 3)), 1), "sigma is not symmetric, so it is no covariance"),
        (np.zeros(3), np.diag([2.0, 1.0, -0.1]), "sigma has the negative eigenvalue -0.1, so it is no covariance"),
        (np.array([Malicious()]), np.eye(1), "not a readable npz file .*allow_pickle"),
    ],
)
def test_statistics_that_are_none_are_refused(
    tmp_path: Path, mean: np.ndarray, covariance: np.ndarray, message: str
) -> None:
    np.savez(tmp_path / "x.npz", arr_0=noise(2, 4, 4, 3), mu=mean, sigma=covariance)
    with pytest.raises(UserError, match=rf"x\.npz: {message}"):
        NpzImages(tmp_path / "x.npz").statistics  # noqa: B018
