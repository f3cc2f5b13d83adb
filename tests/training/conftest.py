"""Digits in shards, shared by the tests of training."""

from pathlib import Path

import pytest

from iddpm.data import open_source, write_shards
from iddpm.params import DigitsDataset, Source


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    dataset = DigitsDataset(source=Source.DIGITS, images_per_shard=500)
    list(write_shards(open_source(dataset, Path("data/raw")), dataset, folder))
    return folder
