"""report: every result of the pipeline -> runs/report: one page as HTML and Markdown, scores.csv and figures."""

from pathlib import Path

from iddpm.stages.context import Stage, running, say
from iddpm.stages.report.beside import beside_published
from iddpm.stages.report.blocks import Page, Section, write_page
from iddpm.stages.report.figures import draw_distances, draw_training
from iddpm.stages.report.gather import Results, gather
from iddpm.stages.report.gradient_noise import FIGURE, gradient_noise_blocks
from iddpm.stages.report.reconstructions import reconstruction_blocks
from iddpm.stages.report.scaling import CSV_FILE, scaling_blocks
from iddpm.stages.report.scores import score_blocks, summary, write_csv
from iddpm.stages.report.sections import (
    gallery,
    likelihood_blocks,
    nearest_pictures,
    provenance,
    sample_pictures,
    training_blocks,
)

OUTPUT = "runs/report"
PRODUCED = ("distance_*.png", "scaling_*.png", f"{FIGURE}.png", CSV_FILE)
"""Files of the folder that a pipeline may have."""
TRACKED = ("frechet_distance", "precision", "recall", "label_accuracy")


def run(stage: Stage) -> None:
    """Gather the results of params.yaml into a page that needs no network and nothing beside it."""
    results = gather(stage)
    with running(stage):
        with stage.output_folder(OUTPUT) as folder:
            write_report(stage, results, folder)
            produced = sorted(path.name for kind in PRODUCED for path in folder.glob(kind))
        for one in results.evaluations:
            stage.scores |= {f"{one.name}.{key}": one.scores[key] for key in TRACKED if key in one.scores}
        stage.scores |= {f"{one.name}.bits_per_dim": one.values["bits_per_dim"] for one in results.likelihoods}
        stage.artifacts = [(f"{OUTPUT}/{name}", "") for name in ("report.html", "report.md", "scores.csv", *produced)]
        say(f"report: {OUTPUT}/report.html")


def write_report(stage: Stage, results: Results, folder: Path) -> None:
    """The page, its figures and pictures, and scores.csv."""
    write_csv(folder / "scores.csv", results.evaluations)
    write_page(_page(stage, results, folder), folder)


def _page(stage: Stage, results: Results, folder: Path) -> Page:
    """Draws the figures and copies the pictures into `folder` on the way."""
    grids, strips, paths, pairs = (
        sample_pictures(stage, results, f"{kind}.png", folder)
        for kind in ("grid", "denoising", "interpolations", "pairs")
    )
    sections = [
        Section("Summary", summary(results)),
        Section("Scores", score_blocks(results, draw_distances(results.groups, folder))),
        Section("Beside published results", beside_published(results)),
        Section("Samples", gallery("The first images of each set, those with the best scores first.", grids)),
        Section(
            "Denoising",
            gallery(
                "The first images on their way from noise: x_t, and beside it the x_start predicted from it.", strips
            ),
        ),
        Section("Interpolations", gallery("Between the starting noise of two samples, by DDIM.", paths)),
        Section("Cascades", gallery("Samples of the smaller model, each beside what the upsampler made of it.", pairs)),
        Section("Reconstructions", reconstruction_blocks(stage, results, folder)),
        Section(
            "Nearest training images",
            gallery(
                "The most suspicious samples and what lies nearest to them in the reference: copies would show here.",
                nearest_pictures(stage, results, folder),
            ),
        ),
        Section("Likelihood", likelihood_blocks(stage, results, folder)),
        Section("Gradient noise", gradient_noise_blocks(results, folder)),
        Section("Scaling", scaling_blocks(stage, results, folder)),
        Section("Training", training_blocks(results, *draw_training(results, folder))),
        Section("Provenance", provenance(stage, results)),
    ]
    return Page(results.params.report.title, _subtitle(results), sections)


def _subtitle(results: Results) -> str:
    counts = {
        "dataset": len(results.cards),
        "model": len(results.models),
        "surrogate": len(results.surrogates),
        "set of samples": len(results.samples),
        "evaluation": len(results.evaluations),
        "likelihood": len(results.likelihoods),
        "reconstruction": len(results.reconstructions),
        "gradient noise scale": len(results.gradient_noises),
    }
    return ", ".join(
        f"{count} {name if count == 1 else 'sets of samples' if name == 'set of samples' else name + 's'}"
        for name, count in counts.items()
        if count
    )
