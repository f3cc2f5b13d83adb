"""report: every metric of the pipeline -> runs/report: report.md, scores.csv and figures."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from iddpm.evaluation.figures import DIFFUSION_CURVES, GAN_CURVES, scatter_lines, training_curves
from iddpm.params import Params, Sampling, SnganSurrogate, SurrogateSampling
from iddpm.stages.context import Stage, running, say
from iddpm.training.metrics_log import read_csv

OUTPUT = "runs/report"
COLUMNS = {
    "evaluation": "evaluation",
    "model": "model",
    "start": "start",
    "sampler": "sampler",
    "network_evaluations": "network evaluations",
    "surrogate_evaluations": "surrogate evaluations",
    "seconds_per_image": "seconds per image",
    "frechet_distance": "Frechet distance",
    "kid": "KID",
    "inception_score": "IS",
    "precision": "precision",
    "recall": "recall",
    "label_accuracy": "label accuracy",
}


def run(stage: Stage) -> None:
    """Gather the scores of the evaluations and likelihoods of params.yaml."""
    params = stage.params
    rows = [_evaluation_row(stage, name) for name in params.evaluations]
    likelihoods = {name: _read(stage, f"runs/likelihoods/{name}/bits_per_dim.json") for name in params.likelihoods}
    with running(stage):
        with stage.output_folder(OUTPUT) as folder:
            _write_csv(folder / "scores.csv", rows)
            figures = _figures(folder, rows)
            for path in _pictures(params):
                shutil.copyfile(stage.root / path, folder / _flat(path))
            for path, names in _logs(params).items():
                training_curves(read_csv(stage.root / path), names, folder / _flat(path))
            (folder / "report.md").write_text(_markdown(stage, rows, likelihoods, figures))
        for row in rows:
            stage.scores |= {
                f"{row['evaluation']}.{name}": row[name]
                for name in ("frechet_distance", "precision", "recall", "label_accuracy")
                if isinstance(row.get(name), float)
            }
        stage.scores |= {f"{name}.bits_per_dim": value["bits_per_dim"] for name, value in likelihoods.items()}
        produced = ["report.md", "scores.csv", *(f"{name}.png" for name, _ in figures)]
        stage.artifacts = [(f"{OUTPUT}/{name}", "") for name in produced]
        say(f"report: {OUTPUT}/report.md")


def _read(stage: Stage, path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(stage.input(path).read_text())
    return content


def _evaluation_row(stage: Stage, name: str) -> dict[str, Any]:
    """One line of the table: what was sampled and how it scored."""
    metrics = _read(stage, f"runs/metrics/{name}.json")
    made = _read(stage, f"runs/metrics/{name}.protocol.json")["samples"]
    sampling = _sampling(stage.params, stage.params.evaluations[name].samples)
    start = f"{sampling.surrogate}, t_mid {sampling.t_mid}" if isinstance(sampling, SurrogateSampling) else "noise"
    eta = f", eta {sampling.eta:g}" if sampling.sampler == "ddim" else ""
    return {
        "evaluation": name,
        "model": sampling.model,
        "start": start,
        "sampler": f"{sampling.sampler}{eta}",
        "network_evaluations": made["network_evaluations"],
        "surrogate_evaluations": made["surrogate_evaluations"],
        "seconds_per_image": made["sampling_seconds"] / made["images"],
        **{key: value for key, value in metrics.items() if key in COLUMNS},
    }


def _sampling(params: Params, name: str) -> Sampling:
    return params.samplings.get(name) or params.surrogate_samplings[name]


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(COLUMNS), restval="")
        writer.writeheader()
        writer.writerows(rows)


def _figures(folder: Path, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Draw what there is data for; (file stem, caption) of each figure."""
    figures = []
    from_noise = [row for row in rows if row["start"] == "noise"]
    if from_noise:
        series: dict[str, list[tuple[float, float, str]]] = {}
        for row in from_noise:
            point = (row["network_evaluations"], row["frechet_distance"], "")
            series.setdefault(f"{row['model']}, {row['sampler']}", []).append(point)
        scatter_lines(
            series,
            folder / "distance_against_steps",
            xlabel="network evaluations per image",
            ylabel="Frechet distance",
            title="Distance against sampling steps",
        )
        figures.append(("distance_against_steps", "Distance to the training images against sampling steps"))
    if any(row["start"] != "noise" for row in rows):
        series = {}
        for row in rows:
            where = row["start"].split(", ")
            label = where[1] if len(where) > 1 else f"{row['network_evaluations']}"
            name = f"{row['model']}, {'from ' + where[0]}" + (f", {row['sampler']}" if where[0] == "noise" else "")
            point = (row["seconds_per_image"], row["frechet_distance"], label)
            series.setdefault(name, []).append(point)
        scatter_lines(
            series,
            folder / "distance_against_time",
            xlabel="seconds per image",
            ylabel="Frechet distance",
            title="Distance against sampling time",
        )
        figures.append(("distance_against_time", "Speed against quality; labels are steps from noise, or t_mid"))
    return figures


def _pictures(params: Params) -> list[str]:
    grids = [f"runs/samples/{name}/grid.png" for name in (*params.samplings, *params.surrogate_samplings)]
    terms = [f"runs/likelihoods/{name}/terms.png" for name in params.likelihoods]
    return [*grids, *terms]


def _logs(params: Params) -> dict[str, tuple[str, ...]]:
    """Each training's log and the metrics to draw from it."""
    logs: dict[str, tuple[str, ...]] = {f"runs/models/{name}/metrics.csv": DIFFUSION_CURVES for name in params.models}
    for name, surrogate in params.surrogates.items():
        gan = isinstance(surrogate, SnganSurrogate)
        logs[f"runs/surrogates/{name}/metrics.csv"] = GAN_CURVES if gan else DIFFUSION_CURVES
    return logs


def _flat(path: str) -> str:
    return "-".join(path.split("/")[1:])


def _markdown(
    stage: Stage, rows: list[dict[str, Any]], likelihoods: dict[str, Any], figures: list[tuple[str, str]]
) -> str:
    parts = ["# Report\n"]
    if rows:
        columns = [key for key in COLUMNS if any(key in row for row in rows)]
        if not any(row["surrogate_evaluations"] for row in rows):
            columns.remove("surrogate_evaluations")
        parts += [
            "## Samples\n",
            _table([COLUMNS[key] for key in columns], [[row.get(key, "") for key in columns] for row in rows]),
        ]
        parts += [
            "The Frechet distance and KID are computed in pixel space: compare them within this table, never with a "
            "published FID. Each evaluation's full protocol is in `runs/metrics/NAME.protocol.json`.\n"
        ]
    if likelihoods:
        lines = [
            [
                name,
                value["bits_per_dim"],
                value["bits_per_dim_standard_error"],
                value["protocol"]["images"],
                value["protocol"]["split"],
            ]
            for name, value in likelihoods.items()
        ]
        parts += ["## Likelihood\n", _table(["likelihood", "bits/dim", "standard error", "images", "split"], lines)]
    parts += [f"## {caption}\n\n![{caption}]({name}.png)\n" for name, caption in figures]
    pictures = {path: _flat(path) for path in _pictures(stage.params)}
    pictures |= {path: _flat(path).replace(".csv", ".png") for path in _logs(stage.params)}
    parts += [f"## {path}\n\n![{path}]({picture})\n" for path, picture in pictures.items()]
    record = stage.record()
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts += ["## Provenance\n", f"git commit `{record['git_commit'] or 'none'}`; {versions}\n"]
    return "\n".join(parts)


def _table(header: list[str], rows: list[list[Any]]) -> str:
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [" | ".join(header), " | ".join("---" for _ in header), *(" | ".join(row) for row in cells)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
