"""Draw one figure of the study from its table, curves or rows.

Writes PREFIX.pdf, PREFIX.png and PREFIX.csv (the numbers drawn), each whole or not at all and the same bytes for the
same inputs. Which inputs a figure needs:

  accuracy_vs_eps        --table robustness.csv
  certified_vs_radius    --table certified.csv
  smoothed_attack        --table smoothing.csv
  resistance             --table hints.csv
  pixels_and_words       --table pixels_and_words.csv
  image_edits                --table image_edits.csv
  chain                  --table chain.csv
  heatmap                --table robustness_by_part.csv --kind modality|question_type --eps K
  success_vs_eps         --table robustness.csv
  success_vs_steps       --sanity-rows P...
  transfer_matrix        --table transfer.csv
  sanity                 --table sanity.csv
  thoughts               --clean-rows P... --attack-rows P... --eps K              a file a model, same order
  training_curves        --models M... --curves CSV...                             a file a model, same order
  adversarial_examples   --clean-rows P... --attack-rows P... --images NPZ... --eps K   a file a model, same order
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from safemed.report.figures import plots
from safemed.report.tables import robustness


def main(argv: list[str] | None = None) -> None:
    arguments = parser()
    args = arguments.parse_args(argv)
    draw, inputs = FIGURES[args.figure]
    if missing := [name for name in inputs if getattr(args, name) in (None, [])]:
        arguments.error(f"--figure {args.figure} needs --{', --'.join(missing).replace('_', '-')}")
    if len({len(getattr(args, name)) for name in inputs if isinstance(getattr(args, name), list)}) > 1:
        arguments.error(f"--{', --'.join(inputs).replace('_', '-')} need one entry a model each")
    figure, drawn = draw(args)
    plots.save(figure, drawn, args.out)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = arguments.add_argument
    add("--figure", required=True, choices=FIGURES)
    add("--table", type=Path, metavar="CSV", help="the table the figure draws")
    add("--kind", choices=robustness.PARTS, help="the columns of the heat map")
    add("--eps", type=int, help="PGD's eps in 1/255 for heat map and examples")
    add("--models", nargs="*", metavar="MODEL", help="the model of each --curves file")
    add("--curves", nargs="*", type=Path, metavar="CSV", help="models/*/curves.csv")
    add("--clean-rows", nargs="*", type=Path, metavar="PARQUET", help="attacks/{model}/clean/rows.parquet")
    add("--attack-rows", nargs="*", type=Path, metavar="PARQUET", help="attacks/{model}/{attack}/rows.parquet")
    add("--sanity-rows", nargs="*", type=Path, metavar="PARQUET", help="sanity/{model}/rows.parquet")
    add("--images", nargs="*", type=Path, metavar="NPZ", help="images.npz beside each --attack-rows file")
    add("--out", required=True, type=Path, metavar="PREFIX", help="path of the figure without its suffix")
    return arguments


def of_table(draw: Callable, choose: Callable = lambda table: table) -> tuple[Callable, list[str]]:
    """A figure of what is chosen from a table, all of it unless told otherwise."""

    def drawn(args: argparse.Namespace) -> tuple[Figure, pd.DataFrame]:
        chosen = choose(pd.read_csv(args.table))
        return draw(chosen), chosen

    return drawn, ["table"]


def success_vs_steps(args: argparse.Namespace) -> tuple[Figure, pd.DataFrame]:
    drawn = plots.success_by_steps(pd.concat(map(pd.read_parquet, args.sanity_rows), ignore_index=True))
    return plots.success_vs_steps(drawn), drawn


def heatmap(args: argparse.Namespace) -> tuple[Figure, pd.DataFrame]:
    drawn = plots.heatmap_cells(pd.read_csv(args.table), args.kind, args.eps)
    return plots.heatmap(drawn), drawn


def training_curves(args: argparse.Namespace) -> tuple[Figure, pd.DataFrame]:
    read = [pd.read_csv(path).assign(model=model) for path, model in zip(args.curves, args.models, strict=True)]
    drawn = plots.long_curves(pd.concat(read, ignore_index=True))
    return plots.training_curves(drawn), drawn


def adversarial_examples(args: argparse.Namespace) -> tuple[Figure, pd.DataFrame]:
    """The first model chooses the questions; every model is shown on them, with its own adversarial images."""
    pairs = before_and_after(args)
    compared = compared_on_the_first(pairs)
    images = {
        after.model.iloc[0]: read_images(path, args.eps, len(after))
        for path, (_, after) in zip(args.images, pairs, strict=True)
    }  # fmt: skip
    return plots.adversarial_examples(compared, images), compared


def thoughts(args: argparse.Namespace) -> tuple[Figure, pd.DataFrame]:
    drawn = compared_on_the_first(before_and_after(args))
    return plots.thoughts(drawn), drawn


def before_and_after(args: argparse.Namespace) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The rows of each model on its clean images, and on its adversarial ones at the radius asked for."""
    clean, swept = map(pd.read_parquet, args.clean_rows), map(pd.read_parquet, args.attack_rows)
    return list(zip(clean, [rows[rows.eps == args.eps] for rows in swept], strict=True))


def compared_on_the_first(pairs: list[tuple[pd.DataFrame, pd.DataFrame]]) -> pd.DataFrame:
    """Every model's words on the questions that the first model's rows choose."""
    chosen = plots.choose_examples(*pairs[0])
    return pd.concat([plots.compare_examples(chosen, *pair) for pair in pairs], ignore_index=True)


def read_images(path: Path, eps: int, n: int) -> dict[str, np.ndarray]:
    """The clean and the adversarial images of an archive, uint8 [n, H, W, 3].

    Raises ValueError naming the archive if it lacks the radius or holds not n images of each.
    """
    with np.load(path) as archive:
        if f"eps{eps}" not in archive:
            raise ValueError(f"{path}: no images within eps {eps}; re-run its attack with that radius")
        images = {"clean": archive["clean"], "images": archive[f"eps{eps}"]}
    if any(len(stack) != n for stack in images.values()):
        raise ValueError(f"{path}: {[len(stack) for stack in images.values()]} images for {n} rows; re-run its attack")
    return images


FIGURES = {
    "accuracy_vs_eps": of_table(plots.accuracy_vs_eps, plots.pgd_sweep),
    "certified_vs_radius": of_table(plots.certified_vs_radius),
    "smoothed_attack": of_table(plots.smoothed_attack),
    "resistance": of_table(plots.resistance, plots.resistance_points),
    "pixels_and_words": of_table(plots.pixels_and_words),
    "image_edits": of_table(plots.image_edits, plots.drawn_image_edits),
    "abstention": of_table(plots.abstention),
    "chain": of_table(plots.chain),
    "success_vs_eps": of_table(plots.success_vs_eps, plots.success_by_eps),
    "success_vs_steps": (success_vs_steps, ["sanity_rows"]),
    "transfer_matrix": of_table(plots.transfer_matrix),
    "sanity": of_table(plots.sanity_table),
    "thoughts": (thoughts, ["clean_rows", "attack_rows", "eps"]),
    "heatmap": (heatmap, ["table", "kind", "eps"]),
    "training_curves": (training_curves, ["models", "curves"]),
    "adversarial_examples": (adversarial_examples, ["clean_rows", "attack_rows", "images", "eps"]),
}


if __name__ == "__main__":
    main()
