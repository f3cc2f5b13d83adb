"""What stands behind the names of parameters: networks, counted once each, stages, and numbers of images."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from iddpm.checks.references import named_model
from iddpm.data import Card, known_card, open_source
from iddpm.errors import UserError
from iddpm.evaluation.features import FEATURE_NETWORKS
from iddpm.nets import count_blocks
from iddpm.params import Architecture, Dataset, ImagesDataset, Params, Sampling, SnganSurrogate
from iddpm.stages.context import GROUPS
from iddpm.stages.inspect import count_gan
from iddpm.stages.plan.features import FeatureCost, feature_cost
from iddpm.stages.plan.memory import Parts, memory_of
from iddpm.stages.plan.operations import GanPass, GanStep, NetworkPass, Operation, PlannedNetwork, TrainingStep
from iddpm.training.build import build_network

Repeated = list[tuple[Operation, float]]
"""Operations, each with how often a stage does it."""


@dataclass
class Demand:
    """What one stage needs. `work` is its size in words; `parameters` and `multiply_adds` are of its network.

    `workers` is the number of GPUs that it takes, 0 for a stage that has no use for one. `paper_flops` is the compute
    of a training as the paper counts it: multiply-adds x 2 x 3 x images. `host_memory` is what it holds outside of a
    GPU, where that is much. `running_disk` is given back at the end.
    """

    address: str
    needs: list[str] = field(default_factory=list)
    workers: int = 0
    parameters: int = 0
    multiply_adds: int = 0
    work: str = ""
    operations: Repeated = field(default_factory=list)
    paper_flops: float = 0.0
    memory: Parts = field(default_factory=dict)
    host_memory: int = 0
    disk: int = 0
    running_disk: int = 0

    @property
    def flops(self) -> float:
        """Everything it computes."""
        return sum(operation.flops * times for operation, times in self.operations)


class Known:
    """Looks up and counts; what is equal is counted and measured once. `notes` says what cannot be known yet.

    `images` tells how many files are, or will be, in folders of data/raw/images: in all, or of train and of test.
    """

    def __init__(self, params: Params, root: Path, images: Mapping[str, tuple[int, ...]] = {}) -> None:
        self.params, self.root, self._images = params, root, images
        folders = {_folder(dataset) for dataset in params.datasets.values() if isinstance(dataset, ImagesDataset)}
        for folder in images:
            if folder not in folders:
                known = f"only of {', '.join(sorted(folders))}" if folders else "no dataset is an image folder"
                raise UserError(f"--images {folder}: no dataset has the source images/{folder}; {known}")
        self.notes: list[str] = []
        self.reference_features: set[str] = set()
        """Those that an evaluation before has put into the cache."""
        self._counts: dict[str, dict[str, int]] = {}
        self._networks: dict[str, PlannedNetwork] = {}
        self._memory: dict[str, Parts] = {}
        self._feature_costs: dict[str, FeatureCost] = {}

    def stage(self, name: str, *groups: str) -> str:
        """The stage that makes the entry of this name in one of the groups."""
        kinds = {group: kind for kind, group in GROUPS.items()}
        return next(f"{kinds[group]}@{name}" for group in groups if name in getattr(self.params, group))

    def model_stage(self, name: str) -> str:
        return self.stage(name, "models", "imports", "mixtures")

    def samples_stage(self, name: str) -> str:
        return self.stage(name, "samplings", "surrogate_samplings", "cascades")

    def sampling(self, samples: str) -> Sampling:
        """The sampling that a set of samples began as, before any cascade."""
        cascade = self.params.cascades.get(samples)
        if cascade is not None:
            return self.sampling(cascade.samples)
        return self.params.samplings.get(samples) or self.params.surrogate_samplings[samples]

    def counts(self, name: str) -> dict[str, int]:
        """Images of a dataset by split; 0, with a note, as long as its folder is not there and nobody tells."""
        if name not in self._counts:
            self._counts[name] = {"train": 0, "test": 0} | self._count(name, self.params.datasets[name])
        return self._counts[name]

    def _count(self, name: str, dataset: Dataset) -> dict[str, int]:
        if not isinstance(dataset, ImagesDataset):
            return known_card(dataset).counts
        folder, raw = _folder(dataset), self.root / "data" / "raw"
        if folder in self._images:
            return _split(name, dataset, self._images[folder])
        if (raw / dataset.source).is_dir():
            return open_source(dataset, raw).card.counts
        self.notes.append(
            f"datasets.{name}: how many images there are is unknown until data/raw/{dataset.source} is there; their "
            f"shards and what is computed of all of them are left out; add --images {_asked(dataset)}"
        )
        return {}

    def unet(self, architecture: Architecture, card: Card) -> PlannedNetwork:
        """The U-Net of an architecture, without what training it or its dataset's size add."""
        bare = Architecture(**{name: getattr(architecture, name) for name in Architecture.model_fields})
        card = replace(card, source="", description="", counts={})
        key = repr((bare, card))
        if key not in self._networks:
            with torch.device("meta"), FlopCounterMode(display=False) as counter:  # without memory or arithmetic
                blocks = count_blocks(build_network(bare, card), bare.size or card.size, card.channels)
            convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] // 2
            parameters = sum(block.parameters for block in blocks)
            multiply_adds = sum(block.multiply_adds for block in blocks)
            self._networks[key] = PlannedNetwork(bare, card, parameters, multiply_adds, convolutions)
        return self._networks[key]

    def named(self, name: str) -> PlannedNetwork:
        """What `model: NAME` stands for; of a mixture the part in the middle."""
        model = named_model(name, self.params)
        assert model is not None  # iddpm.checks
        return self.unet(model.architecture, model.card)

    def parts(self, name: str) -> dict[str, float]:
        """The networks behind a name, each with its share of the timesteps."""
        mixture = self.params.mixtures.get(name)
        if mixture is None:
            return {name: 1.0}
        ends = min(1.0, 2 * mixture.within / self.named(name).architecture.diffusion.timesteps)
        return {mixture.middle: 1.0 - ends, mixture.ends: ends}

    def gan(self, surrogate: SnganSurrogate) -> tuple[GanStep, GanPass, tuple[int, int]]:
        """An SNGAN's step, a pass of its generator for a batch, and parameters of generator and discriminator."""
        card = known_card(self.params.datasets[surrogate.dataset])
        card = replace(card, source="", description="", counts={})
        generator, discriminator = count_gan("", surrogate, card)
        step = GanStep(surrogate, card, generator.multiply_adds, discriminator.multiply_adds)
        drawn = GanPass(surrogate, card, surrogate.batch_size, generator.multiply_adds)
        return step, drawn, (generator.parameters, discriminator.parameters)

    def memory(self, operation: TrainingStep | NetworkPass | GanStep, workers: int = 1) -> Parts:
        """Of one worker."""
        key = repr((operation, workers))
        if key not in self._memory:
            self._memory[key] = memory_of(operation, workers)
        return self._memory[key]

    def features(self, features: str, shape: tuple[int, int, int]) -> FeatureCost:
        """Of a feature network on images (height, width, channels)."""
        key = repr((features, shape))
        if key not in self._feature_costs:
            self._feature_costs[key] = feature_cost(features, shape, self.root / FEATURE_NETWORKS)
        return self._feature_costs[key]


def _folder(dataset: ImagesDataset) -> str:
    return dataset.source.removeprefix("images/")


def _asked(dataset: ImagesDataset) -> str:
    """What --images has to tell."""
    return f"{_folder(dataset)}={'TRAIN,TEST' if dataset.test_every is None else 'IMAGES'}"


def _split(name: str, dataset: ImagesDataset, images: tuple[int, ...]) -> dict[str, int]:
    """So many images as the shards will divide them. UserError, where one of both splits would be empty."""
    every = dataset.test_every
    if every is not None:
        test = sum(images) // every
        if not test:
            raise UserError(f"--images: datasets.{name}.test_every is {every}, so at least {every} images are needed")
        return {"train": sum(images) - test, "test": test}
    if len(images) < 2:
        raise UserError(f"--images: datasets.{name} has a folder for each split; give both: --images {_asked(dataset)}")
    return dict(zip(("train", "test"), images, strict=True))


def shown_count(images: int) -> str:
    """A number of images of a dataset; 0 stands for one that is not known yet."""
    return f"{images:,}" if images else "?"
