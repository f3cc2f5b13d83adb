"""shard: a dataset's source -> data/shards/NAME."""

from iddpm.data import open_source, write_shards
from iddpm.stages.context import Stage, running
from iddpm.stages.progress import track


def run(stage: Stage) -> None:
    """Write the dataset's shards."""
    with running(stage), stage.output_folder(f"data/shards/{stage.name}") as folder:
        source = open_source(stage.entry)
        total = sum(source.card.counts.values())
        for _ in track(write_shards(source, stage.entry, folder), stage.address, total, "images"):
            pass
        stage.scores = {f"{split}_images": float(count) for split, count in source.card.counts.items()}
        stage.artifacts = [(f"data/shards/{stage.name}/{name}", "") for name in ("card.json", "index.json")]
