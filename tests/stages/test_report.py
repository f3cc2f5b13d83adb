"""The report: what stands on the page, and that it needs nothing beside it."""

import base64
import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from iddpm.checks import load_params
from iddpm.data import known_card
from iddpm.errors import UserError
from iddpm.evaluation.grid import image_grid
from iddpm.evaluation.manifold import compare
from iddpm.params import Architecture
from iddpm.stages.context import Stage
from iddpm.stages.inspect import inspect
from iddpm.stages.report import run, write_report
from iddpm.stages.report.gather import gather
from iddpm.stages.report.scores import coverage_ceiling

from ..conftest import ROOT, tiny_params, write_tiny_params

VERSIONS = {"iddpm": "0.1.0", "torch": "2.13.0"}


class Results:
    """A project folder with results made up for each entry of its parameters."""

    def __init__(self, root: Path, card: dict[str, Any] | None = None, **changes: Any) -> None:
        self.root = root
        root.mkdir(parents=True)
        shutil.copy(ROOT / "dvc.yaml", root / "dvc.yaml")
        (root / "src").symlink_to(ROOT / "src")
        write_tiny_params(root, changes)
        self.params = load_params(root / "params.yaml")
        self.card = {"source": "digits", "description": "Digits", "channels": 1, "size": 8, "classes": 10} | (
            card or {}
        )
        self.card |= {"counts": {"train": 1498, "test": 299}, "source_sha256": "5" * 64, "skipped": {}}
        for name in self.params.datasets:
            self.json(f"data/shards/{name}/card.json", self.card)
            self.json(f"data/shards/{name}/index.json", {})
        for name, model in self.params.models.items():
            about = {"architecture": model.model_dump(mode="json", include=set(Architecture.model_fields))}
            about |= {"card": known_card(self.params.datasets[model.dataset]).as_json(), "kind": "diffusion"}
            self.trained(f"runs/models/{name}", about | {"params": model.model_dump(mode="json")})
        for name in self.params.surrogates:
            self.trained(f"runs/surrogates/{name}", {"kind": "sngan", "params": {"steps": 2, "batch_size": 16}})
        for name in (*self.params.samplings, *self.params.surrogate_samplings):
            self.sampled(name)
        for number, name in enumerate(self.params.evaluations):
            self.evaluated(name, {"frechet_distance": 0.25 + number / 4, "precision": 0.5, "label_accuracy": 0.75})
        for name in self.params.likelihoods:
            self.likelihood(name)

    def json(self, path: str, content: dict[str, Any]) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(json.dumps(content))

    def picture(self, path: str, images: int = 4) -> None:
        image_grid(np.random.default_rng(0).integers(0, 256, (images, 8, 8, 1), np.uint8), self.root / path)

    def trained(self, folder: str, about: dict[str, Any]) -> None:
        self.json(f"{folder}/checkpoint.json", about)
        self.json(f"{folder}/manifest.json", {})
        self.timed(folder, 0.5)
        names = ("loss", "mse", "vb", "discriminator_loss", "generator_loss")
        rows = [",".join(("step", *names)), *(f"{step},1.5,1.25,0.5,1,2" for step in (2, 4))]
        (self.root / folder / "metrics.csv").write_text("\n".join(rows) + "\n")

    def timed(self, folder: str, seconds_per_step: float | None) -> None:
        time = {"seconds_per_step": seconds_per_step, "record": self.record(f"train@{folder.split('/')[-1]}")}
        self.json(f"{folder.replace('runs/', 'runs/times/')}.json", time)

    def record(self, stage: str) -> dict[str, Any]:
        return {"stage": stage, "git_commit": "c" * 40, "versions": VERSIONS, "seconds": 1.5}

    def sampled(self, name: str) -> None:
        sampling = self.params.samplings.get(name) or self.params.surrogate_samplings[name]
        made = {"images": sampling.count, "sampling_seconds": 2.0, "device": "cpu", "surrogate_evaluations": 0}
        made |= {"network_evaluations": sampling.steps, "params": sampling.model_dump(mode="json")}
        made["rounding"] = "nearest"
        made["surrogate_evaluations"] = int(name in self.params.surrogate_samplings)
        self.json(f"runs/samples/{name}/record.json", self.record(f"sample@{name}") | made)
        self.picture(f"runs/samples/{name}/grid.png")

    def evaluated(
        self, name: str, values: dict[str, float], distance: str = "fd-pixels", images: int = 20, **about: Any
    ) -> None:
        entry = self.params.evaluations[name]
        samples = json.loads((self.root / f"runs/samples/{entry.samples}/record.json").read_text())
        protocol = entry.model_dump(mode="json", exclude={"samples", "dataset", "split", "features", "bootstrap"})
        protocol |= {"features": {"name": entry.features}, "images": images}
        protocol["reference"] = {"images": 1498, "sha256": "7" * 64}
        protocol["class_probabilities"] = "SVC on pixels (RBF)" if distance == "fd-pixels" else "feature network"
        intervals = {"frechet_distance": [values["frechet_distance"] - 0.0625, values["frechet_distance"] + 0.0625]}
        content = {
            "distance": distance,
            "protocol": protocol,
            "intervals": intervals,
            "bootstrap": entry.bootstrap,
            "samples_sha256": entry.samples,
            "warnings": [],
            "samples": samples,
        }
        content["reference"] = {"dataset": entry.dataset, "split": entry.split.value, "averaged_to": None}
        content["record"] = self.record(f"evaluate@{name}") | {"params": {"samples": entry.samples}}
        self.json(f"runs/evaluations/{name}/protocol.json", content | about)
        self.json(f"runs/metrics/{name}.json", values)

    def likelihood(self, name: str, **values: Any) -> None:
        entry = self.params.likelihoods[name]
        protocol = {"images": 10, "split": entry.split.value, "timesteps": 20, "steps": entry.steps, "clip": True}
        protocol |= {"evaluated_timesteps": entry.steps or 20, "weights": "ema", "record": self.record("likelihood@x")}
        scores = {"bits_per_dim": 4.5, "bits_per_dim_standard_error": 0.125, "prior_bits_per_dim": 1e-9}
        self.json(f"runs/likelihoods/{name}/bits_per_dim.json", scores | values | {"protocol": protocol})
        self.picture(f"runs/likelihoods/{name}/terms.png")

    def report(self, whole_stage: bool = False) -> "Report":
        """Written without the stage's surroundings, unless asked for."""
        stage, folder = Stage("report", "", self.root), self.root / "runs" / "report"
        if whole_stage:
            run(stage)
        else:
            results = gather(stage)
            folder.mkdir(parents=True)
            write_report(stage, results, folder)
        return Report(folder, stage.scores)


class Report:
    """What the stage wrote."""

    def __init__(self, folder: Path, scores: dict[str, float]) -> None:
        self.folder, self.scores = folder, scores
        self.html = (folder / "report.html").read_text()
        self.markdown = (folder / "report.md").read_text()

    def tables(self) -> list[list[list[str]]]:
        """Those of the Markdown page, as rows of cells."""
        blocks = re.findall(r"(?:^\|.*\n)+", self.markdown, re.MULTILINE)
        split = [
            [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in block.splitlines()] for block in blocks
        ]
        return [[header, *rows] for header, _, *rows in split]

    def row(self, start: str) -> dict[str, str]:
        """The first row that begins so, by the titles of its table."""
        for header, *rows in self.tables():
            for row in rows:
                if row[0].startswith(start):
                    return dict(zip(header, row, strict=True))
        raise AssertionError(f"no row {start} in\n{self.markdown}")


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., Results]:
    return lambda card=None, **changes: Results(tmp_path / "project", card, **changes)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    more = {"model": "digits", "steps": 10, "count": 20}
    made = Results(tmp_path_factory.mktemp("report") / "project", **{"report.title": "Tiny", "samplings.more": more})
    return made.report(whole_stage=True)


def test_numbers_stand_with_their_intervals_and_origin(report: Report) -> None:
    assert report.markdown.startswith("# Tiny\n") and "<h1>Tiny</h1>" in report.html
    row = report.row("`ancestral`")
    assert row["evaluation"] == "`ancestral` (from noise, ancestral)" and row["network evaluations"] == "5"
    assert (
        row["fd-pixels"] == "**0.25** (0.188 to 0.312)"
        and row["precision"] == "0.5"
        and row["seconds per image"] == "0.1"
    )
    assert "from sngan, t_mid 10" in report.row("`sngan-10`")["evaluation"]
    assert [report.row(name)["surrogate evaluations"] for name in ("`ancestral`", "`sngan-10`")] == ["0", "1"]
    assert report.row("`digits`")["bits/dim"] == "4.5 (± 0.12)"
    for text in ("0.188 to 0.312", "from sngan, t_mid 10", "not an FID", "c" * 40, "5" * 12):
        assert text in report.html and text in report.markdown
    assert report.scores == {
        "ancestral.frechet_distance": 0.25, "ancestral.precision": 0.5, "ancestral.label_accuracy": 0.75,
        "sngan-10.frechet_distance": 0.5, "sngan-10.precision": 0.5, "sngan-10.label_accuracy": 0.75,
        "digits.bits_per_dim": 4.5,
    }  # fmt: skip
    with open(report.folder / "scores.csv", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["distance"] == "fd-pixels" and float(second["frechet_distance"]) == 0.5 and first["recall"] == ""


class References(HTMLParser):
    """What a browser would load, and every address of a link."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {name: value or "" for name, value in attributes}
        self.loaded += [given[name] for name in ("src", "srcset", "data", "poster", "background") if name in given]
        self.links += [given["href"]] if "href" in given else []
        self.anchors |= {f"#{given['id']}"} if "id" in given else set()


def test_the_page_loads_nothing_and_holds_its_pictures(report: Report) -> None:
    page = References(report.html)
    assert set(page.links) == page.anchors and len(page.links) >= 5
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"@import|url\(", report.html)
    assert len(page.loaded) == 3 + 1 + 1 + 2  # grids, distance against time, terms, curves of two trainings
    for address in page.loaded:
        kind, content = re.fullmatch(r"data:image/(png|svg\+xml);base64,(.+)", address).groups()  # type: ignore[union-attr]
        data = base64.b64decode(content, validate=True)
        if kind == "png":
            Image.open(io.BytesIO(data)).verify()
        else:
            assert data.startswith(b"<?xml") and not re.search(rb'(href|src)="(?!#)', data)


def test_pictures_lie_beside_the_markdown(report: Report) -> None:
    pictures = re.findall(r"^!\[.+\]\((.+)\)$", report.markdown, re.MULTILINE)
    assert {"samples-ancestral-grid.png", "models-digits-metrics.png", "distance_against_time.png"} <= set(pictures)
    for name in pictures:
        assert (report.folder / name).stat().st_size > 100
    assert (report.folder / "distance_against_time.svg").exists()


def test_a_picture_of_another_stage_has_its_place(report: Report, results: Callable[..., Results]) -> None:
    assert "Denoising" not in report.markdown
    made = results()
    for path in ("samples/ancestral/denoising", "samples/ancestral/interpolations", "evaluations/ancestral/nearest"):
        made.picture(f"runs/{path}.png")
    report = made.report()
    for title in ("Denoising", "Interpolations", "Nearest training images"):
        assert f"## {title}\n" in report.markdown and f"<h2>{title}</h2>" in report.html
    assert (report.folder / "evaluations-ancestral-nearest.png").exists()


EVALUATION = {
    "samples": "ancestral", "dataset": "digits", "features": "pixels", "kid_subset_size": 10, "inception_splits": 2,
}  # fmt: skip


def test_other_protocols_share_no_table_figure_or_rank(results: Callable[..., Results]) -> None:
    lite = EVALUATION | {"features": "lite0"}
    made = results(**{"evaluations.lite": lite, "evaluations.lite-sngan": lite | {"samples": "sngan-10"}})
    made.evaluated("lite", {"frechet_distance": 9.0}, "fd-lite0")
    made.evaluated("lite-sngan", {"frechet_distance": 10.0}, "fd-lite0")
    report = made.report()
    headers = [header for header, *_ in report.tables() if header[0] == "evaluation"]
    assert [[name for name in header if name.startswith("fd-")] for header in headers] == [["fd-pixels"], ["fd-lite0"]]
    assert report.row("`ancestral`")["fd-pixels"].startswith("**") and report.row("`lite`")["fd-lite0"].startswith("**")
    assert (
        "- Lowest fd-pixels, 20 images against the 1,498 train images of digits: **0.25** (`ancestral`"
        in report.markdown
    )
    assert "- Lowest fd-lite0, 20 images against the 1,498 train images of digits: **9** (`lite`" in report.markdown
    for number, distance in (("", "fd-pixels"), ("_2", "fd-lite0")):
        drawn = (report.folder / f"distance_against_time{number}.svg").read_text()
        assert [name for name in ("fd-pixels", "fd-lite0") if f"<!-- {name} -->" in drawn] == [distance]


def test_what_the_best_is_not_told_apart_from_is_marked_with_it(results: Callable[..., Results]) -> None:
    sampling = {"model": "digits", "steps": 4, "count": 20}
    made = results(**{"samplings.fewer": sampling, "evaluations.fewer": EVALUATION | {"samples": "fewer"}})
    values = {
        "ancestral": {"frechet_distance": 1.0, "frechet_distance_infinity": 0.5, "recall": 0.75, "authenticity": 0.5},
        "sngan-10": {"frechet_distance": 1.1, "frechet_distance_infinity": 0.4, "recall": 0.5, "authenticity": 0.9},
        "fewer": {"frechet_distance": 2.0, "frechet_distance_infinity": 0.9, "recall": 0.7, "authenticity": 0.1},
    }
    for name, scores in values.items():
        intervals = {key: [value - 0.06, value + 0.06] for key, value in scores.items() if not key.endswith("infinity")}
        intervals["kid"] = [-0.002, 0.003]
        made.evaluated(name, scores | {"kid": scores["recall"] / 1000 - 0.0006}, intervals=intervals)
    report = made.report()
    marked = {
        column: [report.row(f"`{name}`")[column].startswith("**") for name in values]
        for column in ("fd-pixels", "recall", "fd-pixels ∞", "authenticity", "KID (pixels) × 1,000")
    }
    assert marked["fd-pixels"] == [True, True, False] and marked["recall"] == [True, False, True]
    assert marked["fd-pixels ∞"] == [False] * 3  # has no intervals
    assert marked["authenticity"] == [False] * 3  # no merit
    assert marked["KID (pixels) × 1,000"] == [False] * 3  # nothing is told apart


@pytest.mark.parametrize(
    ("distance", "names"),
    [
        ("fd-pixels", ["KID (pixels) × 1,000", "IS (SVC on pixels)"]),
        ("fd-lite0", ["KID (lite0) × 1,000", "IS (lite0)"]),
        ("fd-mine", ["KID (mine) × 1,000", "IS (mine)"]),
        ("FID", ["KID × 1,000", "IS"]),
    ],
)
def test_kid_and_is_of_other_networks_carry_their_name(
    results: Callable[..., Results], distance: str, names: list[str]
) -> None:
    pair = {"ancestral": "coursework-steps/50K"}
    made = results(
        {"source": "cifar10", "size": 32}, evaluations={"ancestral": EVALUATION}, **{"report.published": pair}
    )
    made.evaluated("ancestral", {"frechet_distance": 1.0, "kid": 0.001, "inception_score": 2.5}, distance)
    report = made.report()
    titles = ["evaluation", "network evaluations", distance, *names, "seconds per image"]
    assert list(report.row("`ancestral` (from")) == titles
    beside = report.row("`ancestral` (ours")["IS"]
    assert beside == ("≠ 2.5" if distance == "FID" else f"≠ 2.5 ({names[1]})")  # 2 splits are not 10
    with open(report.folder / "scores.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["distance"] == distance and row["class_probabilities"].startswith("SVC") == (distance == "fd-pixels")


def test_a_table_has_its_protocol(results: Callable[..., Results]) -> None:
    sampling = {"model": "digits", "steps": 4, "count": 20, "weights": "raw"}
    made = results(**{"samplings.raw": sampling, "evaluations.raw": EVALUATION | {"samples": "raw", "bootstrap": 500}})
    report = made.report()
    (table,) = (table for table in report.tables() if table[0] == ["what", "value"])
    shown = dict(table[1:])
    assert shown["feature network"] == "pixels" and shown["images generated"] == "20"
    assert shown["reference"] == "digits" and shown["its images"] == "1,498" and "averaged to pixels" not in shown
    assert shown["sha256 of these images"] == f"`{'7' * 64}`" and f"<code>{'7' * 64}</code>" in report.html
    assert shown["reference images of precision, recall, density and coverage"] == "all"
    assert shown["k of nearest neighbours"] == "3" and shown["images in a subset of KID"] == "10"
    assert shown["class probabilities of IS"] == "SVC on pixels (RBF)" and shown["seed of scoring"] == "0"
    assert shown["weights that drew them"] == "ema (`ancestral` and `sngan-10`); raw (`raw`)"
    assert shown["their rounding to grey levels"] == "nearest" and "500 (`raw`)" in shown["resamples of the intervals"]


@pytest.mark.parametrize(("samples", "reference", "neighbours"), [(12, 30, 3), (40, 25, 2)])
def test_the_ceiling_of_coverage_is_what_perfect_samples_reach(samples: int, reference: int, neighbours: int) -> None:
    random, reached = np.random.default_rng(0), []
    for _ in range(300):
        drawn, real = (torch.from_numpy(random.normal(size=(count, 2))) for count in (samples, reference))
        reached.append(float(compare(drawn, real, neighbours, None, 0).coverage.mean()))
    error = np.std(reached) / np.sqrt(len(reached))
    assert np.mean(reached) == pytest.approx(coverage_ceiling(samples, reference, neighbours), abs=4 * error)


def test_the_ceiling_of_coverage_stands_below_the_table(results: Callable[..., Results]) -> None:
    made = results(**{"evaluations.sngan-10.manifold_reference": 100})
    for name in ("ancestral", "sngan-10"):
        made.evaluated(name, {"frechet_distance": 1.0, "coverage": 0.03})
    report = made.report()
    for ceiling in (0.039, 0.43):  # of all 1,498, and of 100
        assert f"a perfect generator would reach a coverage of {ceiling} on average." in report.markdown


def test_a_heading_says_in_which_setting_protocols_differ(results: Callable[..., Results]) -> None:
    made = results(**{"evaluations.sngan-10.neighbours": 5})
    report = made.report()
    for neighbours in (3, 5):
        assert f"1,498 train images of digits, neighbours {neighbours}" in report.markdown
    assert len([header for header, *_ in report.tables() if header[0] == "evaluation"]) == 2


def test_sampling_seeds_are_shown_as_mean_and_spread(results: Callable[..., Results]) -> None:
    sampling = {"model": "digits", "steps": 5, "count": 20}
    made = results(
        **{
            "samplings.second": sampling | {"seed": 1, "batch_size": 7},
            "samplings.fewer": sampling | {"seed": 2, "steps": 4},
            "evaluations.second": EVALUATION | {"samples": "second"},
            "evaluations.fewer": EVALUATION | {"samples": "fewer"},
            "evaluations.again": EVALUATION,
        }
    )
    for name, value in (("ancestral", 0.25), ("second", 0.5), ("again", 0.25), ("fewer", 8.0)):
        made.evaluated(name, {"frechet_distance": value, "precision": 0.5})
    report = made.report()
    row = report.row("ancestral (2 seeds)")
    assert (
        row["fd-pixels"] == "0.375 (0.00459 to 30.7)" and row["precision"] == "0.5"
    )  # a factor of exp(12.7 * log(2) / 2)
    assert "(mean, standard deviation of fd-pixels 0.18; from noise" in row["evaluation"]
    best = "**0.375** (ancestral (2 seeds), 95 % 0.00459 to 30.7; not told apart from `sngan-10` and `fewer`)"
    assert f"- Lowest fd-pixels, 20 images against the 1,498 train images of digits: {best}" in report.markdown
    assert "`ancestral`, fd-pixels 0.25\n" in report.markdown and "`second`, fd-pixels 0.5\n" in report.markdown
    assert "no chance moves two rows together" in report.markdown  # rows without these seeds stand beside
    assert "the same seeds, whose chance" not in report.markdown


@pytest.fixture(scope="module", params=["objectives-small", "architectures-small"])
def seeded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Report]:
    """Of presets with two trainings of each model: distances 0.1 and 0.12, 0.2 and 0.22, ..., without their curves."""
    preset = yaml.safe_load((ROOT / f"presets/{request.param}.yaml").read_text())
    made = Results(tmp_path_factory.mktemp("seeded") / "project", **preset)
    for number, name in enumerate(made.params.evaluations):
        place, seed = divmod(number, 2)
        made.evaluated(
            name, {"frechet_distance": (place + 1) / 10 + seed / 50, "inception_score": 8 + place + seed / 4}
        )
        made.timed(f"runs/models/{name}", (place + 1) * (1 + seed / 5) / 1000)
        (made.root / f"runs/models/{name}/metrics.csv").write_text("step,loss\n")
    return made, made.report()


def test_training_seeds_are_one_row_by_their_mean(seeded: tuple[Results, Report]) -> None:
    made, report = seeded
    names = [name.removesuffix("-0") for name in made.params.evaluations if name.endswith("-0")]
    assert len(names) == 6
    steps = [math.log(1 + 0.02 / ((place + 1) / 10)) for place in range(6)]  # from seed 0 to seed 1
    squares = [(step - sum(steps) / 6) ** 2 / 2 for step in steps]
    factor = math.exp(2.57058 * math.sqrt(sum(squares) / 5 / 2))  # t of 5 degrees of freedom
    for place, name in enumerate(names):
        row = report.row(f"{name} (2 training seeds)")
        mean = (place + 1) / 10 + 0.01
        assert row["fd-pixels"].replace("**", "") == f"{mean:.4g} ({mean / factor:.3g} to {mean * factor:.3g})"
        assert f"{name}, from noise, ancestral" in row["evaluation"]
    assert report.row(f"{names[0]} (2 training seeds)")["fd-pixels"].startswith("**")
    assert not report.row(f"{names[1]} (2 training seeds)")["fd-pixels"].startswith(
        "**"
    )  # told apart, by their differences
    assert (
        "All rows have the same seeds" in report.markdown and "no chance moves two rows together" not in report.markdown
    )
    tile = (
        f"({names[0]} (2 training seeds), 95 % {0.11 / factor:.3g} to {0.11 * factor:.3g}, without the shift that all"
    )
    assert tile in report.markdown


def test_the_mean_stands_beside_the_published_row_with_its_times(seeded: tuple[Results, Report]) -> None:
    made, report = seeded
    table = next(table for table in report.tables() if table[0][0] == "result")
    rows = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    published, ours = rows[::2], rows[1::2]
    assert len(published) == len(ours) == len(made.params.report.published)
    assert all(row["result"].endswith("(published)") for row in published)
    for place, (key, row) in enumerate(zip(made.params.report.published, ours, strict=True)):
        name = key.removesuffix("-0")
        assert row["result"] == f"{name} (2 training seeds) (ours, mean of `{name}-0` and `{name}-1`)"
        assert row["FID"] == f"≠ {(place + 1) / 10 + 0.01:.4g} (fd-pixels, sd 0.014)"
        assert "not comparable" in row["verdict"]
        seconds = (place + 1) * 1.1 / 1000 * made.params.models[key].training.steps
        if "DDPM-0" in made.params.models:
            spread = f"seeds {(place + 1) / 1.2:.3g} to {(place + 1) * 1.2:.3g}, " if place else ""
            assert row["training time, relative"] == f"≠ {place + 1} ({spread}{seconds:.3g} s)"
        else:
            spread = f", seeds {(place + 1) / 1.2:.3g} to {(place + 1) * 1.2:.3g}" if place else ""
            assert row["training hours"] == f"≠ {seconds / 3600:.3g} (× {place + 1}{spread})"
            assert row["sampling speed, relative"].startswith("≠ 1 (")
    relative = "coursework-objectives/DDPM" if "DDPM-0" in made.params.models else "coursework-networks/Default"
    assert f"are ratios to {relative}, ours to what params.yaml sets beside that row" in report.markdown
    timed = "training" if "DDPM-0" in made.params.models else "sampling and training"
    assert f"Our times of {timed} are as they ran: what shared a machine slowed each other." in report.markdown
    assert "Seconds are as the trainings ran: those that ran side by side on one machine slowed" in report.markdown


def test_multiply_adds_stand_beside_the_pace_where_networks_differ(seeded: tuple[Results, Report]) -> None:
    made, report = seeded
    table = next(table for table in report.tables() if table[0][0] == "model")
    rows = {row[0].strip("`"): dict(zip(table[0], row, strict=True)) for row in table[1:]}
    if "DDPM-0" in rows:
        assert "10⁹ multiply-adds" not in table[0] and rows["IWDiff-1"]["seconds per step"] == "0.0048"
        return
    counts = {one["path"]: one["multiply_adds"] for one in json.loads(inspect(made.root, None, None, as_json=True))}
    first = counts["models.Default-0"]
    for name, row in rows.items():
        count = counts[f"models.{name}"]
        assert row["10⁹ multiply-adds"] == f"{count / 1e9:.3g} (× {count / first:.3g})"
    assert rows["MBConv12-0"]["seconds per step"] == "0.005"


def test_speeds_are_relative_to_the_published_row_that_is_1(tmp_path: Path) -> None:
    preset = yaml.safe_load((ROOT / "presets/surrogates-small.yaml").read_text())
    made = Results(tmp_path / "project", **preset)
    for name, seconds in (("noise", 8.0), ("SNGAN-250", 2.0), ("SNGAN-0", 0.125)):
        record = json.loads((made.root / f"runs/samples/{name}/record.json").read_text())
        made.json(f"runs/samples/{name}/record.json", record | {"sampling_seconds": seconds})
        made.evaluated(name, {"frechet_distance": 0.5})
    report = made.report()
    rows = {row[0]: row for table in report.tables() if table[0][0] == "result" for row in table[1:]}
    speeds = [rows[f"`{name}` (ours, evaluation)"] for name in ("noise", "SNGAN-250", "SNGAN-0")]
    assert speeds[0][3] == "≠ 1 (188 a second, cpu)"  # of 1,500 images
    assert [row[3] for row in speeds[1:]] == ["≠ 4 (750 a second, cpu)", "≠ 64 (12,000 a second, cpu)"]


def test_models_that_differ_in_more_than_their_seed_are_no_seeds(results: Callable[..., Results]) -> None:
    model = tiny_params()["models"]["digits"]
    training = model["training"] | {"seed": 1, "log_every": 1}
    models = {"digits-0": model, "digits-1": model | {"training": training}}
    models["digits-2"] = model | {"training": training | {"seed": 2, "learning_rate": 1e-4}}
    models["digits-3"] = models["digits-1"] | {"network": model["network"] | {"width": 16}}
    samplings = {name: {"model": name, "steps": 5, "count": 20} for name in models}
    samplings |= {f"few-{seed}": {"model": f"digits-{seed}", "steps": 4, "count": 20} for seed in (0, 1)}
    evaluations = {name: EVALUATION | {"samples": name} for name in samplings}
    nothing = {"surrogates": {}, "surrogate_samplings": {}, "likelihoods": {}}
    pairs = {name: "coursework-steps/50K" for name in ("digits-1", "digits-0", "digits-3")}
    report = results(
        models=models, samplings=samplings, evaluations=evaluations, **nothing, **{"report.published": pairs}
    ).report()
    scores = next(table for table in report.tables() if table[0][0] == "evaluation")
    assert [row[0].split(" (")[0] for row in scores[1:]] == [
        "`few-0`", "`few-1`", "few", "`digits-0`", "`digits-1`", "digits", "`digits-2`", "`digits-3`",
    ]  # fmt: skip
    beside = next(table for table in report.tables() if table[0][0] == "result")
    assert [row[0] for row in beside[2:]] == [
        "digits (2 training seeds) (ours, mean of `digits-0` and `digits-1`)", "`digits-3` (ours, evaluation)",
    ]  # fmt: skip


def test_mixtures_of_trainings_are_seeds_too(results: Callable[..., Results]) -> None:
    model = tiny_params()["models"]["digits"]
    seeds = {
        f"{name}-{n}": model | {"training": model["training"] | more | {"seed": n}}
        for n in (0, 1)
        for name, more in (("a", {}), ("b", {"objective": "vlb"}))
    }
    mixtures = {f"mix-{n}": {"middle": f"a-{n}", "ends": f"b-{n}", "within": 5} for n in (0, 1)}
    mixtures["other-2"] = {"middle": "b-0", "ends": "a-0", "within": 5}
    samplings = {name: {"model": name, "steps": 5, "count": 20} for name in mixtures}
    evaluations = {name: EVALUATION | {"samples": name} for name in mixtures}
    nothing = {"surrogates": {}, "surrogate_samplings": {}, "likelihoods": {}}
    made = results(models=seeds, mixtures=mixtures, samplings=samplings, evaluations=evaluations, **nothing)
    for name, mixture in mixtures.items():
        part = json.loads((made.root / f"runs/models/{mixture['middle']}/checkpoint.json").read_text())
        about = {"kind": "mixture", "params": mixture, "card": part["card"]}
        about["architectures"] = {"middle": part["architecture"], "ends": part["architecture"]}
        made.json(f"runs/models/{name}/checkpoint.json", about)
    report = made.report()
    means = {row[0].split(" (mean")[0] for table in report.tables() for row in table if "(mean, " in row[0]}
    assert means == {"mix (2 training seeds)"}


def test_seeds_that_gave_the_same_images_stay_apart_with_a_warning(results: Callable[..., Results]) -> None:
    second = {"model": "digits", "steps": 5, "count": 20, "seed": 1}
    made = results(**{"samplings.second": second, "evaluations.second": EVALUATION | {"samples": "second"}})
    made.evaluated("second", {"frechet_distance": 0.5}, samples_sha256="ancestral")
    report = made.report()
    assert "2 seeds" not in report.markdown
    assert "- the same images from different seeds (`ancestral` and `second`)\n" in report.markdown


def test_beside_a_published_number_stand_the_differences(results: Callable[..., Results]) -> None:
    pairs = {"ancestral": "paper-cifar10/T4000-cosine-hybrid", "digits": "paper-cifar10/T4000-cosine-hybrid"}
    report = results(**{"report.published": pairs}).report()
    table = next(table for table in report.tables() if table[0][0] == "result")
    assert table[0] == ["result", "FID", "bits/dim", "verdict"]
    assert [row[0] for row in table[1:]] == [
        "T4000-cosine-hybrid (published)", "`ancestral` (ours, evaluation)", "`digits` (ours, likelihood)",
    ]  # fmt: skip
    assert (
        table[1][1:3] == ["3.19", "3.17"]
        and table[2][1].startswith("≠ 0.25 (fd-pixels, 0.188")
        and table[3][2].startswith("≠ 4.5")
    )
    assert table[2][3].startswith("not comparable (differs: dataset, image size, feature network, images generated")
    assert "Nichol &amp; Dhariwal 2021, table 2" in report.html
    differences = {row[0]: row[1:3] for table in report.tables() if "published" in table[0] for row in table[1:]}
    assert differences["dataset"] == ["CIFAR-10", "digits"] and differences["image size"] == ["32", "8"]
    assert differences["rounding to grey levels"] == ["not stated", "nearest"]
    assert differences["images generated"] == ["50,000", "20"]
    assert differences["feature network"] == ["not stated, but some Inception", "pixels"]
    assert differences["T"] == ["4,000", "20"] and differences["training steps"] == ["500,000", "4"]


def test_silence_of_a_source_is_called_uncertain(results: Callable[..., Results]) -> None:
    pairs = {"ancestral": "paper-cifar10/T4000-cosine-hybrid", "sngan-10": "coursework-surrogates/SNGAN-250"}
    made = results({"source": "cifar10", "size": 32}, **{"report.published": pairs})
    for name in pairs:
        about = {"reference": {"dataset": "digits", "split": "train", "averaged_to": None}}
        made.evaluated(name, {"frechet_distance": 3.0}, "FID", 50_000, **about)
        path = made.root / f"runs/evaluations/{name}/protocol.json"
        content = json.loads(path.read_text())
        content["protocol"]["reference"]["images"] = 50_000
        path.write_text(json.dumps(content))
    report = made.report()
    rows = {row[0].split(" ")[0]: row for table in report.tables() if table[0][0] == "result" for row in table[1:]}
    assert rows["`ancestral`"][1] == "? 3 (2.94 to 3.06)"
    assert rows["`ancestral`"][-1] == "not certain (not known: feature network and rounding to grey levels)"
    assert rows["`sngan-10`"][1].startswith("? 3") and rows["`sngan-10`"][-1].startswith(
        "not certain (not known: feature network, images generated"
    )
    assert "not an FID" not in report.html


def test_what_others_wrote_is_escaped(results: Callable[..., Results]) -> None:
    made = results({"description": "a|b <i>c</i>"}, **{"report.title": "<b>\"Fish\" & 'chips'</b>"})
    made.evaluated("ancestral", {"frechet_distance": 1.0}, warnings=["<script>alert(1)</script> *x* [y](http://z)"])
    report = made.report()
    assert not References(report.html).tags & {"b", "i", "script"}
    assert "&lt;b&gt;&#34;Fish&#34; &amp; &#39;chips&#39;&lt;/b&gt;" in report.html
    assert "&lt;script>alert(1)&lt;/script> \\*x\\* \\[y\\](http://z)" in report.markdown
    assert report.row("`digits` (digits)")["what"] == "a\\|b &lt;i>c&lt;/i>"


def test_likelihoods_of_both_splits_and_all_checkpoints(results: Callable[..., Results]) -> None:
    made = results(**{"likelihoods.both": {"model": "digits", "dataset": "digits", "split": "both", "images": 10}})
    both = {"train_bits_per_dim": 4.25, "train_bits_per_dim_standard_error": 0.1, "gap_bits_per_dim": 0.25}
    made.likelihood("both", **both, gap_bits_per_dim_standard_error=0.05)
    lines = ["step,split,bits_per_dim,standard_error", "2,train,5.5,0.1", "2,test,5.75,0.2", "4,train,4.25,0.1"]
    (made.root / "runs/likelihoods/both/checkpoints.csv").write_text("\n".join([*lines, "4,test,4.5,nan"]) + "\n")
    made.picture("runs/likelihoods/both/checkpoints.png")
    report = made.report()
    row = report.row("`both`")
    assert row["of train"] == "4.25 (± 0.1)" and row["test minus train"] == "0.25 (± 0.05)" and row["split"] == "both"
    steps = next(table for table in report.tables() if table[0][0] == "training step")
    assert steps[1:] == [["2", "5.5 (± 0.1)", "5.75 (± 0.2)"], ["4", "4.25 (± 0.1)", "4.5"]]
    assert "likelihoods-both-checkpoints.png" in report.markdown
    assert "Bits/dim of test images minus those of training images: **0.25**" in report.markdown


def test_an_empty_pipeline_has_a_page(tmp_path: Path) -> None:
    groups = ("surrogates", "models", "samplings", "surrogate_samplings", "evaluations", "likelihoods", "datasets")
    report = Results(tmp_path / "project", **{group: {} for group in groups}).report()
    assert re.findall(r"^## (.+)", report.markdown, re.MULTILINE) == ["Provenance"]


def test_a_missing_result_is_named(results: Callable[..., Results]) -> None:
    made = results()
    (made.root / "runs/evaluations/ancestral/protocol.json").unlink()
    with pytest.raises(UserError, match=r"^runs/evaluations/ancestral/protocol.json: missing; `dvc repro report`"):
        made.report(whole_stage=True)
    assert not (made.root / "runs/report").exists()


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [Results(tmp_path / name).report().folder for name in ("first", "second")]
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1] and len(contents[0]) > 8


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            ("ancestral", "paper-cifar10/best"),
            "'paper-cifar10/best' is no published result; choose paper-cifar10/T1000-",
        ),
        (("ancestral", "T4000"), "'T4000' is no published result; choose TABLE/ROW of coursework-T100, "),
        (
            ("none", "paper-cifar10/T4000-cosine-vlb"),
            "'none' is not in evaluations or likelihoods (ancestral, digits, ",
        ),
        (("digits", "coursework-steps/50K"), "coursework-steps/50K has no bits/dim to compare a likelihood with"),
    ],
)
def test_unknown_pairs_are_refused_before_anything_runs(tmp_path: Path, pair: tuple[str, str], message: str) -> None:
    name, result = pair
    path = write_tiny_params(tmp_path, {"report.published": {name: result}})
    with pytest.raises(UserError, match=re.escape(f"report.published.{name}: {message}")):
        load_params(path)


def test_the_row_of_1_takes_one_result_or_its_seeds(tmp_path: Path) -> None:
    preset = yaml.safe_load((ROOT / "presets/objectives-small.yaml").read_text())
    path, published = tmp_path / "params.yaml", preset["report"]["published"]
    published["DDPM-1"] = "coursework-objectives/DDPM"
    path.write_text(yaml.safe_dump(preset))
    load_params(path)
    published["both-1"] = "coursework-objectives/DDPM"
    path.write_text(yaml.safe_dump(preset))
    with pytest.raises(UserError, match=r"DDPM-0 and both-1 stand beside coursework-objectives/DDPM, .*; leave one"):
        load_params(path)


def test_known_pairs_are_sound(tmp_path: Path) -> None:
    pairs = {"ancestral": "coursework-steps/50K", "digits": "paper-cifar10/T4000-cosine-vlb"}
    assert load_params(write_tiny_params(tmp_path, {"report.published": pairs})).report.published == pairs
    assert "report" in tiny_params()
