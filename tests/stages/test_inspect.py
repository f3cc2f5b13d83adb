"""`iddpm inspect`: the coursework's table from params.yaml alone, and every network block by block."""

import json
import re
from collections.abc import Callable

import pytest
import yaml
from typer.testing import CliRunner

from iddpm.cli import app

from ..conftest import Project

PARAMS = """
datasets:
  cifar10: {source: cifar10}
surrogates:
  sngan: {kind: sngan, dataset: cifar10, steps: 1}
  ddpm-16:
    kind: low_resolution
    dataset: cifar10
    size: 16
    network: &network {width: 64, channel_mult: [1, 2, 2, 2], blocks: 2, attention_sizes: [16], heads: 1,
                       scale_shift: false}
    diffusion: &diffusion {timesteps: 1000, schedule: linear, variance: fixed_large}
    training: &training {steps: 1, batch_size: 1, learning_rate: 2.0e-4, objective: simple}
models:
  mbconv64: {dataset: cifar10, network: {<<: *network, block: mbconv}, diffusion: *diffusion, training: *training}
  upsampler: {dataset: cifar10, network: *network, diffusion: *diffusion, training: *training,
              upsampling: {low_size: 8, noise_augmentation: 0.1}}
imports:
  imagenet64: {weights: x.pt, flags: --image_size 64 --num_channels 192 --num_res_blocks 3 --learn_sigma True
               --class_cond True}
  super: {weights: x.pt, flags: --large_size 256 --small_size 64 --num_channels 192 --num_res_blocks 2
          --learn_sigma True --class_cond True}
mixtures: {}
samplings: {}
surrogate_samplings: {}
evaluations: {}
cascades: {}
reconstructions: {}
likelihoods: {}
gradient_noises: {}
report: {}
"""
Inspect = Callable[..., str]


@pytest.fixture
def inspect(project: Project, monkeypatch: pytest.MonkeyPatch) -> Inspect:
    project.write(yaml.safe_load(PARAMS))
    monkeypatch.chdir(project.root)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, ["inspect", *arguments], catch_exceptions=False).stdout

    return run


def row(table: str, start: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(start)]
    return re.split(r" {2,}", line)


def test_all_networks(inspect: Inspect) -> None:
    table = inspect()
    assert row(table, "network ") == ["network", "image", "parameters", "G multiply-adds", "all numbers", "/ 2^20"]
    assert row(table, "models.mbconv64") == [
        "models.mbconv64", "3 x 32 x 32", "12,001,859", "1.3920", "12,065,859", "11.51",
    ]  # fmt: skip
    assert row(table, "surrogates.sngan (generator)")[2] == "4,276,739"
    assert row(table, "surrogates.sngan (discriminator)")[2] == "1,053,824"
    assert row(table, "surrogates.ddpm-16")[1] == "3 x 16 x 16"
    assert row(table, "models.upsampler")[1] == "3 x 32 x 32"
    assert row(table, "imports.imagenet64")[1:4] == ["3 x 64 x 64", "273,049,350", "89.0856"]
    assert row(table, "imports.super")[1:4] == ["3 x 256 x 256", "279,792,390", "560.0388"]
    assert "multiply-adds of one forward pass of one image; the paper calls them FLOPs" in table


def test_blocks_of_one_network(inspect: Inspect) -> None:
    table = inspect("mbconv64")
    assert row(table, "input_blocks.3") == ["input_blocks.3", "64 x 16 x 16", "36,928", "0.0094", "0.7%"]
    assert row(table, "total")[-3:] == ["12,001,859", "1.3920", "100.0%"]
    assert "multiply-adds of one forward pass" in table
    assert row(inspect("upsampler"), "noise_embed")[:3] == ["noise_embed", "256", f"{64 * 256 + 256 * 256 + 512:,}"]
    assert re.findall(r"^surrogates.sngan \((\w+)\)", inspect("sngan"), re.MULTILINE) == ["generator", "discriminator"]


def test_json_holds_whole_numbers(inspect: Inspect) -> None:
    (network,) = json.loads(inspect("mbconv64", "--json"))
    assert network["path"] == "models.mbconv64" and network["image"] == [3, 32, 32]
    assert (network["parameters"], network["all_numbers"]) == (12_001_859, 12_065_859)
    for total in ("parameters", "multiply_adds"):
        assert network[total] == sum(block[total] for block in network["blocks"])
    assert len(json.loads(inspect("--json"))) == 7


def test_a_preset_is_read_without_being_chosen(inspect: Inspect, project: Project) -> None:
    before = (project.root / "params.yaml").read_bytes()
    by_name = inspect("--preset", "digits")
    assert row(by_name, "models.digits")[1] == "1 x 8 x 8" and "mbconv64" not in by_name
    assert inspect("--preset", "presets/digits.yaml") == by_name
    assert (project.root / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nobody"],
            "params.yaml: 'nobody' is not in models, surrogates, imports (mbconv64, upsampler, sngan, ",
        ),
        (["--preset", "nobody"], "presets/nobody.yaml: no such file"),
    ],
)
def test_unknown_names_are_one_line(inspect: Inspect, project: Project, arguments: list[str], message: str) -> None:
    said = project.mistake("inspect", *arguments)
    assert message in said and len(said.splitlines()) == 1
