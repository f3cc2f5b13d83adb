"""Following names from one section of the parameters to another."""

from collections.abc import Iterator
from typing import NamedTuple

from iddpm.data import Card, known_card
from iddpm.diffusion import GaussianDiffusion
from iddpm.errors import UserError
from iddpm.exchange import architecture_from_flags
from iddpm.params import Architecture, Conditioning, Params
from iddpm.training.build import build_process

MODEL_GROUPS = ("models", "imports", "mixtures")
SAMPLE_GROUPS = ("samplings", "surrogate_samplings", "cascades")


class Named(NamedTuple):
    """What a name in `model:` stands for; the card as far as it is known without reading images."""

    architecture: Architecture
    dataset: str | None
    card: Card
    process: GaussianDiffusion

    @property
    def size(self) -> int:
        return self.architecture.size or self.card.size

    @property
    def classes(self) -> int:
        """0 for a model that is not told the class."""
        return self.card.classes if self.architecture.network.conditioning is Conditioning.CLASS else 0


def reference(path: str, name: str, params: Params, *groups: str) -> Iterator[str]:
    """A complaint when `name` is in none of the groups."""
    known = [key for group in groups for key in getattr(params, group)]
    if name not in known:
        yield f"{path}: {name!r} is not in {' or '.join(groups)} ({', '.join(sorted(known)) or 'which are empty'})"


def named_model(name: str, params: Params) -> Named | None:
    """The model, import or mixture of that name; None when it is missing or unsound, which is reported elsewhere."""
    try:
        if model := params.models.get(name):
            card = known_card(params.datasets[model.dataset])
            return Named(model, model.dataset, card, build_process(model.diffusion))
        if entry := params.imports.get(name):
            architecture, card = architecture_from_flags(entry.flags)
            return Named(architecture, None, card, build_process(architecture.diffusion))
        if mixture := params.mixtures.get(name):
            return None if mixture.middle in params.mixtures else named_model(mixture.middle, params)
    except (KeyError, ValueError, UserError):
        pass
    return None


class SampleSet(NamedTuple):
    """What runs/samples/NAME will hold: how many images, whose they are, and whose labels they carry."""

    images: int
    model: Named | None
    labelled_by: Named | None
    """In a cascade the first model: its labels are carried through."""


def sample_set(name: str, params: Params, above: tuple[str, ...] = ()) -> SampleSet | None:
    """The sampling or cascade of that name; None when it, or one below it, is missing or rests on itself."""
    if sampling := params.samplings.get(name) or params.surrogate_samplings.get(name):
        model = named_model(sampling.model, params)
        return SampleSet(sampling.count, model, model)
    cascade = params.cascades.get(name)
    if cascade is None or name in above:
        return None
    base = sample_set(cascade.samples, params, (*above, name))
    return base and base._replace(model=named_model(cascade.upsampler, params))
