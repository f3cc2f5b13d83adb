"""Contradictions within datasets."""

from collections.abc import Iterator

from iddpm.params import Dataset, ImagesDataset, Labels


def check_dataset(path: str, dataset: Dataset) -> Iterator[str]:
    """Of an image folder: the number of classes goes with the labels."""
    if not isinstance(dataset, ImagesDataset):
        return
    if dataset.labels is Labels.NONE and dataset.classes:
        yield f"{path}.classes: {dataset.classes} classes need labels: folders or file"
    if dataset.labels is not Labels.NONE and not dataset.classes:
        yield f"{path}.classes: labels: {dataset.labels} needs the number of classes"
