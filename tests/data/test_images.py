"""Image folders: what is found, how it is labelled and converted, and what is refused."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from iddpm.data import ShardFolder, known_card, open_source, write_shards
from iddpm.errors import UserError
from iddpm.params import ImagesDataset, Labels, Unreadable
from iddpm.stages.run import run_stage

from ..conftest import PEAK_KIB, Project, write_tiny_params

COLOURS = [(250, 10, 20), (10, 250, 20), (10, 20, 250)]


def dataset(**fields: Any) -> ImagesDataset:
    return ImagesDataset(source="images/mine", **({"size": 8, "test_every": 3} | fields))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The empty folder mine of a data/raw that is `tmp_path`."""
    made = tmp_path / "images" / "mine"
    made.mkdir(parents=True)
    return made


def paint(path: Path, colour: Any = (100, 150, 200), mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, size, colour).save(path)


def paint_classes(folder: Path) -> None:
    """Six images of each of three classes."""
    for name, colour in zip(("bee", "ant", "cat"), COLOURS, strict=True):
        for i in range(6):
            paint(folder / name / f"{i}.png", colour)


def opened(folder: Path, **fields: Any) -> Any:
    return open_source(dataset(**fields), folder.parents[1])


def write(folder: Path, target: Path, **fields: Any) -> ShardFolder:
    list(write_shards(opened(folder, **fields), dataset(**fields), target))
    return ShardFolder(target)


def test_files_of_any_depth_and_suffix_in_sorted_order(folder: Path) -> None:
    for i, name in enumerate(("a.png", "b/deep/er/x.JPG", "b.jpeg", "c.WebP", "d.PNG", "e.jpg")):
        paint(folder / name, (40 * i, 40 * i, 40 * i))
    for other in ("notes.txt", "z.gif", "png"):
        (folder / other).write_text("not an image")
    source = opened(folder)
    assert source.card.counts == {"train": 4, "test": 2}
    level = {name: 40 * i for i, name in enumerate("abcdef")}
    # sorted: a.png, b.jpeg (80), b/deep/er/x.JPG (40), c.WebP, d.PNG, e.jpg; every third is for test
    expected = {"train": [0, 80, 120, 160], "test": [40, level["f"]]}
    for split, levels in expected.items():
        found = [int(source.read(split, i)[0][4, 4, 0]) for i in range(len(levels))]
        assert np.abs(np.array(found) - levels).max() <= 2  # JPEG and WebP lose a little
    assert known_card(dataset()).counts == {} and known_card(dataset(classes=7)).classes == 7


def test_the_whole_folder_and_single_files_may_be_links(folder: Path, tmp_path: Path) -> None:
    paint_classes(tmp_path / "elsewhere")
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "6.png").symlink_to(folder / "cat" / "0.png")
    assert opened(folder, labels=Labels.FOLDERS, classes=3).card.counts == {"train": 13, "test": 6}


@pytest.mark.parametrize("target", ["bee", "."])  # of which the second makes a loop
def test_a_link_to_a_folder_within_is_refused_by_name(folder: Path, target: str) -> None:
    paint_classes(folder)
    (folder / "ant" / "dog").symlink_to(folder / target)
    with pytest.raises(UserError, match=r"mine/ant/dog: is a link to a folder, .* make .*images/mine the link$"):
        opened(folder)


def test_labels_from_class_folders(folder: Path, tmp_path: Path) -> None:
    paint_classes(folder)
    written = write(folder, tmp_path / "out", labels=Labels.FOLDERS, classes=3)
    images, labels = written.read_split("train")
    for label, colour in enumerate((COLOURS[1], COLOURS[0], COLOURS[2])):  # ant, bee, cat
        assert (labels == label).sum() == 4 and (images[labels == label] == colour).all()
    assert written.card.counts == {"train": 12, "test": 6} and written.card.classes == 3


def test_subfolders_train_and_test(folder: Path) -> None:
    paint_classes(folder / "train")
    paint(folder / "test" / "cat" / "x.png", COLOURS[2])
    source = opened(folder, test_every=None, labels=Labels.FOLDERS, classes=3)
    assert source.card.counts == {"train": 18, "test": 1}
    assert source.read("test", 0)[1] == 2
    with pytest.raises(UserError, match=r"mine: no image for the test split .* subfolders train and test"):
        (folder / "test" / "cat" / "x.png").unlink()
        opened(folder, test_every=None)


@pytest.mark.parametrize(
    ("rows", "classes", "labels"),
    [("0 2 1 0", 3, [0, 2, 1, 0]), ("dog cat emu dog", 3, [1, 0, 2, 1]), ("7 7 x 7", 2, [0, 0, 1, 0])],
)
def test_labels_from_a_file(folder: Path, rows: str, classes: int, labels: list[int]) -> None:
    names = ["a.png", "b.png", "c.png", "deep/d,e.png"]
    for name in names:
        paint(folder / name)
    lines = [f'"{name}",{label}' for name, label in zip(names, rows.split(), strict=True)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *reversed(lines)]), encoding="utf-8-sig")
    source = opened(folder, test_every=4, labels=Labels.FILE, classes=classes)
    assert [source.read("train", i)[1] for i in range(3)] + [source.read("test", 0)[1]] == labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\na.png,1\n", r"labels\.csv: its first line must be file,label"),
        ("file,label\na.png,0\nb.png,0\n", r"labels\.csv: has no row for c\.png"),
        ("file,label\na.png,0\nx.png,0\n", r"line 3: x\.png: there is no such image"),
        ("file,label\na.png,0\na.png,0\n", r"line 3: a\.png: has a label already"),
        ("file,label\na.png\n", r"line 2: is not a file and its label"),
        ("file,label\na.png,0\nb.png,0\nc.png,4\n", r"has 5 classes \(labels up to 4\), .* classes is 2"),
        ("file,label\na.png,-1\nb.png,u\nc.png,v\n", r"has 3 classes \(-1, u, v\), .* classes is 2"),
        (b"file,label\n\xff\xfe,0\n", r"labels\.csv: is not a CSV file in UTF-8"),
        (None, r"labels\.csv: missing; labels: file needs it"),
    ],
)
def test_faults_of_a_labels_file(folder: Path, content: str | bytes | None, message: str) -> None:
    for name in "abc":
        paint(folder / f"{name}.png")
    if content is not None:
        (folder / "labels.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=message):
        opened(folder, labels=Labels.FILE, classes=2)


def test_faults_of_a_folder(folder: Path) -> None:
    with pytest.raises(UserError, match=r"mine: no image for the train split among 0 files; test_every is 3"):
        opened(folder)
    paint_classes(folder)
    with pytest.raises(UserError, match=r"mine: has 3 classes \(ant, bee, cat\), but .* classes is 4"):
        opened(folder, labels=Labels.FOLDERS, classes=4)
    paint(folder / "stray.png")
    with pytest.raises(UserError, match=r"stray\.png: lies in no class folder"):
        opened(folder, labels=Labels.FOLDERS, classes=3)
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        open_source(dataset().model_copy(update={"source": "images/nowhere"}), folder.parents[1])


def encoded(image: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def palette(**options: Any) -> bytes:
    image = PIL.Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 10, 60, 110])
    return encoded(image, **options)


SIXTEEN_BITS = np.full((8, 8), 257 * 130, np.uint16)
TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6  # orientation: a viewer would turn it by 90 degrees
HALVES = PIL.Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 4, axis=1).repeat(8, axis=0))


@pytest.mark.parametrize(
    ("content", "colour", "grey"),
    [
        (encoded(PIL.Image.new("RGB", (8, 8), (10, 60, 110))), (10, 60, 110), 51),  # 0.299 R + 0.587 G + 0.114 B
        (encoded(PIL.Image.new("L", (8, 8), 77)), (77, 77, 77), 77),
        (encoded(PIL.Image.new("1", (8, 8), 1)), (255, 255, 255), 255),
        (palette(), (10, 60, 110), 51),
        (palette(transparency=1), (255, 255, 255), 255),
        (encoded(PIL.Image.fromarray(SIXTEEN_BITS)), (130, 130, 130), 130),
        (encoded(PIL.Image.new("RGBA", (8, 8), (10, 60, 110, 255))), (10, 60, 110), 51),
        (encoded(PIL.Image.new("RGBA", (8, 8), (10, 60, 110, 0))), (255, 255, 255), 255),
        (encoded(PIL.Image.new("RGBA", (8, 8), (0, 0, 100, 51)), "WEBP", lossless=True), (204, 204, 224), 206),
        (encoded(PIL.Image.new("LA", (8, 8), (0, 51))), (204, 204, 204), 204),
        (encoded(PIL.Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100), (0, 255, 255), 179),
    ],
)  # fmt: skip
def test_odd_modes_become_grey_or_colour(folder: Path, content: bytes, colour: tuple[int, int, int], grey: int) -> None:
    for name in "abc":
        (folder / f"{name}.png").write_bytes(content)  # whatever it is: the content counts
    three, one = opened(folder).read("train", 0)[0], opened(folder, channels=1).read("train", 0)[0]
    assert three.shape == (8, 8, 3) and one.shape == (8, 8, 1)
    assert np.abs(three.astype(int) - colour).max() <= 1 and np.abs(one.astype(int) - grey).max() <= 1


def test_exif_orientation_is_ignored(folder: Path) -> None:
    for name in "abc":
        HALVES.save(folder / f"{name}.png", exif=TURNED)
    image = opened(folder, channels=1).read("train", 0)[0]
    assert np.array_equal(image[:, :, 0], np.asarray(HALVES))


def damage(folder: Path) -> None:
    """Four files of eighteen that are no images."""
    for name, kind in (("ant/0.png", "PNG"), ("bee/1.png", "JPEG"), ("cat/2.png", "WEBP")):
        content = encoded(PIL.Image.effect_noise((64, 64), 60), kind)
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "cat" / "4.png").write_bytes(b"hello")


def test_an_unreadable_file_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    paint_classes(folder)
    (folder / "bee" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"bee/3\.png: cannot be used \(not a JPEG.*\); remove it, or set .*skip"):
        write(folder, tmp_path / "out")


def test_unreadable_files_are_skipped_counted_and_named(folder: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "labels": Labels.FOLDERS, "classes": 3, "unreadable": Unreadable.SKIP, "images_per_block": 2,
        "images_per_shard": 4,
    }  # fmt: skip
    paint_classes(folder)
    whole = write(folder, tmp_path / "whole", **fields)
    assert whole.card.skipped == {} and not (whole.folder / "skipped.txt").exists()
    damage(folder)
    written, again = (write(folder, tmp_path / name, **fields) for name in ("one", "two"))
    assert written.card.counts == {"train": 9, "test": 5} and written.card.skipped == {"train": 3, "test": 1}
    lines = (written.folder / "skipped.txt").read_text().splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["train", "ant/0.png"], ["train", "bee/1.png"], ["train", "cat/4.png"], ["test", "cat/2.png"],
    ]  # fmt: skip
    assert [shard.samples for shard in written.splits["train"]] == [4, 4, 1]
    images, labels = written.read_split("train")
    assert np.bincount(labels).tolist() == [3, 3, 3]
    for label, colour in enumerate((COLOURS[1], COLOURS[0], COLOURS[2])):
        assert (images[labels == label] == colour).all()
    for path in written.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()


def test_a_split_without_any_readable_image_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in "abc":
        paint(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"hello")
    with pytest.raises(UserError, match=r"none of the 1 test images can be used: c\.png: not a JPEG"):
        write(folder, tmp_path / "out", unreadable=Unreadable.SKIP)


def test_the_hash_covers_paths_contents_and_labels(folder: Path, tmp_path: Path) -> None:
    paint_classes(folder)
    fields: dict[str, Any] = {"labels": Labels.FOLDERS, "classes": 3}
    seen = [write(folder, tmp_path / "0", **fields), write(folder, tmp_path / "1")]
    (folder / "ant" / "0.png").rename(folder / "ant" / "00.png")
    seen.append(write(folder, tmp_path / "2", **fields))
    paint(folder / "ant" / "1.png", (1, 2, 3))
    seen.append(write(folder, tmp_path / "3", **fields))
    assert len({shards.card.source_sha256 for shards in seen}) == len(seen)
    again = write(folder, tmp_path / "4", **fields | {"seed": 5})  # read in another order
    assert again.card.source_sha256 == seen[-1].card.source_sha256
    assert again.read_split("train")[0].tobytes() != seen[-1].read_split("train")[0].tobytes()


MEASURE = (
    PEAK_KIB
    + """
import sys
from pathlib import Path
from iddpm.data import open_source, write_shards
from iddpm.params import ImagesDataset
dataset = ImagesDataset(source="images/mine", size=256, images_per_block=16)
source = open_source(dataset, Path(sys.argv[1]))
before = peak_kib()
list(write_shards(source, dataset, Path(sys.argv[2])))
print((peak_kib() - before) // 1024)
"""
)


@pytest.mark.tools
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_by_a_block_of_images(folder: Path, tmp_path: Path) -> None:
    paint(folder / "0.png", size=(256, 256))
    for i in range(1, 600):
        (folder / f"{i}.png").symlink_to(folder / "0.png")
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(tmp_path / "out")]
    used_mib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar")) > 110 << 20
    assert used_mib < 50  # a block is 3 MiB


@pytest.mark.tools
def test_the_stage_says_what_was_skipped(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    folder = project.root / "data" / "raw" / "images" / "mine"
    paint_classes(folder)
    damage(folder)
    mine = {"source": "images/mine", "size": 8, "test_every": 3, "unreadable": "skip"}
    write_tiny_params(project.root, {"datasets.mine": mine})
    run_stage("shard", "mine", project.root)
    assert "shard@mine: 4 images skipped; data/shards/mine/skipped.txt names them" in capfd.readouterr().err
    assert (project.root / "data" / "shards" / "mine" / "skipped.txt").read_text().count("\n") == 4
    write_tiny_params(project.root, {"datasets.mine": mine | {"unreadable": "refuse"}})
    with pytest.raises(UserError, match="cannot be used"):
        run_stage("shard", "mine", project.root)
    assert (project.root / "data" / "shards" / "mine" / "skipped.txt").exists()  # what was there stays


@pytest.mark.tools
def test_dvc_follows_a_linked_folder_and_reruns_its_stage_alone(project: Project, tmp_path: Path) -> None:
    paint_classes(tmp_path / "elsewhere")
    images = project.root / "data" / "raw" / "images"
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    paint_classes(images / "own")
    paint(tmp_path / "single.png")
    (images / "own" / "single.png").symlink_to(tmp_path / "single.png")
    names = ("linked", "own")
    shards = {f"datasets.{name}": {"source": f"images/{name}", "size": 8, "test_every": 3} for name in names}
    write_tiny_params(project.root, shards)

    def out_of_date() -> set[str]:
        return json.loads(project.run("dvc", "status", "--json", *stages).stdout).keys()

    stages = [f"shard@{name}" for name in names]
    project.run("dvc", "repro", *stages)
    cards = [project.root / "data" / "shards" / name / "card.json" for name in names]
    before = [card.read_bytes() for card in cards]
    assert out_of_date() == set()
    paint(tmp_path / "elsewhere" / "bee" / "0.png", (1, 2, 3))
    assert out_of_date() == {"shard@linked"}
    assert re.findall(r"^Running stage '(.+)':$", project.run("dvc", "repro", *stages).stdout, re.M) == ["shard@linked"]
    assert [card.read_bytes() == old for card, old in zip(cards, before, strict=True)] == [False, True]
    paint(tmp_path / "single.png", (1, 2, 3))
    assert out_of_date() == {"shard@own"}


def test_hidden_files_are_no_part_of_a_dataset(folder: Path, tmp_path: Path) -> None:
    paint_classes(folder)
    before = opened(folder).card
    paint(folder / ".thumbnails" / "0.png")
    (folder / "ant" / "._0.png").write_bytes(b"attributes")
    (folder / ".loop").symlink_to(tmp_path)
    assert opened(folder).card == before


def test_files_of_other_kinds_are_not_left_out_in_silence(folder: Path) -> None:
    paint_classes(folder)
    for name in ("a.bmp", "ant/b.gif", "README"):
        (folder / name).touch()
    assert opened(folder).card.description.endswith("; 3 files of other kinds left aside (.bmp, .gif, README)")
