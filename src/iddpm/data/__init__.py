"""Sources of images, webdataset shards, and the exact training stream."""

from iddpm.data.resizing import area_average, to_tensor, to_uint8
from iddpm.data.shards import ShardFolder, write_shards
from iddpm.data.sources import Card, known_card, open_source
from iddpm.data.stream import TrainingStream

__all__ = [
    "Card",
    "ShardFolder",
    "TrainingStream",
    "area_average",
    "known_card",
    "open_source",
    "to_tensor",
    "to_uint8",
    "write_shards",
]
