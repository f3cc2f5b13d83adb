"""shard: a dataset's source -> data/shards/NAME."""

from iddpm.data import ShardFolder, open_source, write_shards
from iddpm.data.shards import SKIPPED
from iddpm.stages.context import Stage, running, say
from iddpm.stages.progress import track


def run(stage: Stage) -> None:
    """Write the dataset's shards."""
    output = f"data/shards/{stage.name}"
    with running(stage), stage.output_folder(output) as folder:
        source = open_source(stage.entry, stage.root / "data" / "raw")
        total = sum(source.card.counts.values())
        for _ in track(write_shards(source, stage.entry, folder), stage.address, total, "images"):
            pass
        card = ShardFolder(folder).card
        stage.scores = {f"{split}_images": float(count) for split, count in card.counts.items()}
        say(f"{stage.address}: {card.description}")
        stage.artifacts = [(f"{output}/{name}", "") for name in ("card.json", "index.json")]
        if card.skipped:
            stage.artifacts.append((f"{output}/{SKIPPED}", ""))
            say(f"{stage.address}: {sum(card.skipped.values())} images skipped; {output}/{SKIPPED} names them")
