"""Results beside published ones, and what keeps them from being compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from iddpm.evaluation.published import (
    Difference,
    Protocol,
    PublishedResult,
    Score,
    comparable,
    published_result,
)
from iddpm.stages.evaluated import Evaluated, Json
from iddpm.stages.report.blocks import Block, Cell, Column, Fold, Table, Text, joined, number
from iddpm.stages.report.gather import Likelihood, Results
from iddpm.stages.report.protocol import network_name, score_name
from iddpm.stages.report.scores import quoted
from iddpm.stages.report.times import UNSTEADY, Times, ratio, sampling_times, seeds_range, training_times
from iddpm.training.checkpoint import architecture_of

TITLES: dict[Score, str] = {
    "fid": "FID",
    "is": "IS",
    "precision": "precision",
    "recall": "recall",
    "nll": "bits/dim",
    "relative_speed": "sampling speed, relative",
    "training_hours": "training hours",
    "relative_time": "training time, relative",
}
OF_VALUES: dict[Score, str] = {
    "fid": "frechet_distance",
    "is": "inception_score",
    "precision": "precision",
    "recall": "recall",
}
VERDICTS = {
    True: ("comparable", "good", ""),
    False: ("not comparable", "bad", "≠ "),
    None: ("not certain", "unsure", "? "),
}
LEGEND = (
    "≠ marks what cannot be compared with the published number, ? what may not be: the source is silent. "
    "In small print 95 % intervals, of means over seeds their standard deviation (sd); of bits/dim, the standard error."
)
TIMES: dict[Score, str] = {"relative_speed": "sampling", "training_hours": "training", "relative_time": "training"}
"""Scores that are times, and of what."""
OPEN = 2
"""Lists of differences that are open at first; the reader opens more of them at will."""


@dataclass(frozen=True)
class Pair:
    """One of our results and the published one that params.yaml sets beside it."""

    name: str
    kind: str
    about: str
    published: PublishedResult
    scores: dict[Score, Cell]
    differences: list[Difference]
    unsteady: tuple[str, ...] = ()
    """Times of which there is no ratio."""


def beside_published(results: Results) -> list[Block]:
    """A table for each published one: its rows, ours below them, and every difference of protocol."""
    pairs = list(_pairs(results))
    if not pairs:
        return []
    blocks: list[Block] = [
        Text(
            "Two numbers are comparable when nothing that bears on them differs: the images, their size, the feature "
            "network, how many images were scored against which. Steps, objective and the like are what one compares."
        )
    ]
    tables: dict[str, list[Pair]] = {}
    for pair in pairs:
        tables.setdefault(pair.published.source, []).append(pair)
    for source, members in tables.items():
        blocks += [_table(source, members), *(_differences(pair, len(pairs) <= OPEN) for pair in members)]
    return blocks


def _pairs(results: Results) -> Iterator[Pair]:
    """Of evaluations that are seeds of one thing their mean, whichever of them params.yaml names."""
    evaluations = {one.name: one for one in results.evaluations}
    evaluations |= {one.name: mean for group in results.groups for mean in group.samplings for one in mean.sets}
    likelihoods = {likelihood.name: likelihood for likelihood in results.likelihoods}
    rows = results.params.report.published
    beside = {row: evaluations[name] for name, row in rows.items() if name in evaluations}
    shown: set[tuple[str, str]] = set()
    for name, row in rows.items():
        published = published_result(row)
        if name in evaluations and (evaluations[name].name, row) not in shown:
            one = evaluations[name]
            shown.add((one.name, row))
            cells = _score_cells(one, published)
            times, unsteady = _time_cells(results, one, published, beside.get(published.relative_to or ""))
            cells |= times
            of = f"mean of {joined([f'`{seed.name}`' for seed in one.sets], 8)}" if one.seeds else "evaluation"
            differences = published.differences(_of_evaluation(results, one), cells)
            yield Pair(quoted(one), "evaluation", of, published, cells, differences, unsteady)
        if name in likelihoods and "nll" in published.scores:
            likelihood = likelihoods[name]
            error = likelihood.values["bits_per_dim_standard_error"]
            note = "" if error is None else f"± {number(error, 2)}"
            cells = {"nll": Cell(number(likelihood.values["bits_per_dim"]), note)}
            differences = published.differences(_of_likelihood(results, likelihood), cells)
            yield Pair(f"`{name}`", "likelihood", "likelihood", published, cells, differences)


def _score_cells(evaluated: Evaluated, published: PublishedResult) -> dict[Score, Cell]:
    """Those of its scores that the published result has too."""
    cells: dict[Score, Cell] = {}
    for score in published.scores:
        key = OF_VALUES.get(score)
        if key in evaluated.scores:
            name, interval = score_name(key, evaluated.about), evaluated.intervals.get(key)
            notes = [name] if name != TITLES[score] else []
            if evaluated.seeds:  # its interval may be for comparisons within its table alone
                notes += [f"sd {number(evaluated.deviations[key], 2)}"]
            elif interval:
                notes += [f"{number(interval[0], 3)} to {number(interval[1], 3)}"]
            cells[score] = Cell(number(evaluated.scores[key]), ", ".join(notes))
    return cells


def _time_cells(
    results: Results, evaluated: Evaluated, published: PublishedResult, first: Evaluated | None
) -> tuple[dict[Score, Cell], tuple[str, ...]]:
    """Likewise of its times, and which are so unsteady that there is no ratio; relative ones are ratios to `first`."""
    cells: dict[Score, Cell] = {}
    unsteady: list[Times] = []

    def compared(over: Times, under: Times) -> tuple[str, list[str]] | None:
        unsteady.extend(times for times in (over, under) if times.unsteady)
        return ratio(over, under)

    trained, of_first = training_times(results, evaluated), first and training_times(results, first)
    if trained and "training_hours" in published.scores:
        hours = [pace * trained.count / 3600 for pace in trained.paces]
        relative = compared(trained, of_first) if of_first else None
        notes = [f"× {relative[0]}", *relative[1]] if relative else []
        notes = [f"seeds {seeds_range(hours)}"] if trained.unsteady else notes
        cells["training_hours"] = Cell(number(fmean(hours), 3), ", ".join(notes))
    if trained and of_first and "relative_time" in published.scores and (relative := compared(trained, of_first)):
        cells["relative_time"] = Cell(relative[0], ", ".join([*relative[1], f"{number(trained.seconds, 3)} s"]))
    if first and "relative_speed" in published.scores and first.made["device"] == evaluated.made["device"]:
        drawn = sampling_times(evaluated)
        if relative := compared(sampling_times(first), drawn):
            speed = f"{number(1 / drawn.seconds, 3)} a second, {evaluated.made['device']}"
            cells["relative_speed"] = Cell(relative[0], ", ".join([*relative[1], speed]))
    return cells, tuple(map(str, unsteady))


def _of_evaluation(results: Results, evaluated: Evaluated) -> Protocol:
    protocol, reference = evaluated.about["protocol"], evaluated.about["reference"]
    card = results.cards[reference["dataset"]]
    return Protocol(
        dataset=card["source"],
        size=reference.get("averaged_to") or card["size"],
        features=network_name(evaluated.about),
        images=protocol["images"],
        rounding=evaluated.made["rounding"],
        reference_split=reference["split"],
        reference_images=protocol["reference"]["images"],
        manifold_reference=protocol["manifold_reference"] or protocol["reference"]["images"],
        neighbours=protocol["neighbours"],
        inception_splits=protocol["inception_splits"],
        hardware=evaluated.made["device"],
        weights=evaluated.sampling["weights"],
        start=evaluated.start,
        sampler=evaluated.sampler,
        steps=evaluated.made["network_evaluations"],
        **_of_model(results.models[evaluated.network]) | _of_snapshot(evaluated),
    )


def _of_snapshot(evaluated: Evaluated) -> Json:
    step = evaluated.sampling.get("checkpoint")
    return {} if step is None else {"iterations": step}


def _of_likelihood(results: Results, likelihood: Likelihood) -> Protocol:
    card, about = results.cards[likelihood.dataset], results.models[likelihood.model]
    return Protocol(
        dataset=card["source"],
        size=architecture_of(about).get("size") or card["size"],
        likelihood_split=likelihood.shown_split,
        likelihood_terms=likelihood.terms,
        weights=likelihood.protocol["weights"],
        **_of_model(about),
    )


def _of_model(about: Json) -> Json:
    """What a checkpoint knows of the keys of a protocol."""
    architecture, params = architecture_of(about), about["params"]
    known = {
        "timesteps": architecture["diffusion"]["timesteps"],
        "schedule": architecture["diffusion"]["schedule"],
        "conditioning": architecture["network"]["conditioning"],
    }
    if training := params.get("training"):
        known |= {"objective": objective_of(training), "iterations": training["steps"]}
    elif "within" in params:
        known["objective"] = f"{params['middle']}, {params['ends']} within {params['within']} steps of both ends"
    return known


def objective_of(training: Json) -> str:
    """The objective of a training and how its timesteps were drawn, in one phrase."""
    parts = [training["objective"]]
    if training["timestep_sampling"] != "uniform":
        parts.append("importance-sampled")
    if training["extra_measurements"]:
        parts.append(f"+{training['extra_measurements']}")
    return ", ".join(parts)


def _table(source: str, pairs: list[Pair]) -> Table:
    scores = [score for score in TITLES if any(score in pair.published.scores for pair in pairs)]
    rows: list[list[Cell]] = []
    ours: set[int] = set()
    for published in dict.fromkeys(pair.published.name for pair in pairs):
        members = [pair for pair in pairs if pair.published.name == published]
        known = members[0].published.scores
        values = [Cell(number(known[score]) if score in known else "") for score in scores]
        rows.append([Cell(published.partition("/")[2], "published"), *values, Cell("")])
        for pair in members:
            ours.add(len(rows))
            cells = [_our_cell(pair, score) for score in scores]
            rows.append([Cell(pair.name, f"ours, {pair.about}"), *cells, _verdict(pair)])
    columns = [Column("result", False), *(Column(TITLES[score]) for score in scores), Column("verdict", False)]
    legend = LEGEND
    if (first := pairs[0].published.relative_to) is not None:
        legend += f" Relative numbers and × are ratios to {first}, ours to what params.yaml sets beside that row."
    if timed := dict.fromkeys(TIMES[score] for score in scores if score in TIMES):
        legend += f" Our times of {' and '.join(timed)} are as they ran: what shared a machine slowed each other."
    if unsteady := dict.fromkeys(times for pair in pairs for times in pair.unsteady):
        legend += (
            f" Ratios to and of these times are left out, since one seed took more than {UNSTEADY:g} times as long as "
            f"another for the same work, which is not the method's doing: {joined(list(unsteady), len(unsteady))}."
        )
    return Table(columns, rows, f"Published: {source}. {legend}", frozenset(ours))


def _our_cell(pair: Pair, score: Score) -> Cell:
    if score not in pair.scores:
        return Cell("")
    _, _, sign = VERDICTS[comparable(score, pair.differences)]
    return Cell(sign + pair.scores[score].text, pair.scores[score].note)


def _verdict(pair: Pair) -> Cell:
    """Of all scores together: comparable only if each is."""
    verdicts = [comparable(score, pair.differences) for score in pair.scores]
    worst = False if False in verdicts else None if None in verdicts else True
    text, mark, _ = VERDICTS[worst]
    bearing = [one.aspect.name for one in pair.differences if one.aspect.bears_on and one.same is worst]
    note = ("differs: " if worst is False else "not known: ") + joined(bearing, 8) if bearing else ""
    return Cell(text, note, mark)


def _differences(pair: Pair, unfolded: bool) -> Fold:
    rows = []
    for one in sorted(pair.differences, key=lambda one: not one.aspect.bears_on):
        concerned = [TITLES[score] for score in TITLES if score in one.aspect.bears_on and score in pair.scores]
        mark = ("unsure" if one.same is None else "bad") if concerned else ""
        bears = Cell(joined(concerned, 8), mark=mark) if concerned else Cell("how it was made")
        rows.append([Cell(one.aspect.name), Cell(one.published), Cell(one.ours), bears])
    columns = [Column(title, False) for title in ("aspect", "published", "ours", "bears on")]
    title = f"{pair.kind.capitalize()} {pair.name} and {pair.published.name}: {len(rows)} differences"
    return Fold(title, [Table(columns, rows)] if rows else [Text("None.")], unfolded)
