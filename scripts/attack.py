"""Attack a model on the evaluation questions and score the text it generates from the stored 8-bit images.

Goes on after a kill with the batch that it was at. A batch that runs out of memory is halved; a question whose loss,
gradient or logits are not numbers is stored as "failed", which no table counts as an answer.

An attack that knows a hint is on the question after it: the clean words, the loss and the verdict are under the hint.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from safemed.attacks.threat_model import l2_levels
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import arguments, registry
from safemed.evaluation.batching import halving
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.models.vlm import VLM
from safemed.utils import cli, cost, files, provenance, resume

log = logging.getLogger(__name__)


def main() -> None:
    """Write a folder with rows.parquet (one row a question and eps), images.npz (clean, eps1, ...) and cost.json."""
    parser = arguments.evaluation_parser(__doc__)
    parser.add_argument("--attack", required=True, help="clean, or the name of the settings' attack")
    parser.add_argument("--eps", type=float, nargs="+", required=True, help="radii: 8-bit levels, or L2; 0 for clean")
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="attacks whose survivors alone are attacked")
    parser.add_argument("--templates", type=Path, nargs="?", help="the file of templates, for an attack with a hint")
    args = parser.parse_args()
    cli.start_logging()
    if args.attack == "clean" and args.eps != [0]:
        parser.error(f"attack clean has eps 0, not {args.eps}")
    meter = cost.CostMeter("attack", args.model)
    vlm = VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), args.settings["questions"], args.seed)
    longest = args.settings["max_new_tokens"][args.variant]
    attack = args.settings.get(args.attack)
    evaluator = registry.evaluator_for(vlm, questions, args.variant, longest, attack, args.seed, args.templates)
    with files.atomic_folder(args.out, resume=True) as folder:
        before = {str(path): files.content_hash(path / "rows.parquet") for path in args.before}
        told = {"attack": args.attack, "eps": args.eps, "before": before}
        inputs = (args.weights / "cost.json", args.data / "splits.csv", *filter(None, [args.templates]))
        identity = resume.identity(args, __file__, *inputs) | told
        shards = PartialResults(folder / "shards", identity, meter, vlm.passes)
        rows, images = evaluate(evaluator, args, shards)
        rows.to_parquet(folder / "rows.parquet", index=False)
        np.savez_compressed(folder / "images.npz", clean=evaluator.images.numpy(), **images)
        meter.write(folder / "cost.json", vlm.passes, attack=args.attack)
        provenance.write(folder, args, __file__)
        shards.remove()


def evaluate(evaluator: Evaluator, args, shards: PartialResults) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Rows of all questions and radii, and for each radius the stored images, uint8 [N, H, W, 3]."""
    earlier = Earlier(evaluator, args.before, args.eps)
    batches = evaluator.batches(torch.arange(len(evaluator)), args.settings["batch_size"])
    for done, rows in enumerate(tqdm(batches, desc=args.attack, disable=not cli.watched()), 1):
        if shards.has(done):
            continue
        table, images = swept(Sweep(evaluator, rows, args, earlier), args.eps)
        shards.write(done, table, images)
        right = table.groupby("eps").outcome.agg(lambda outcomes: (outcomes == "right").mean())
        log.info("%d/%d batches, right in this one %s", done, len(batches), right.round(3).to_dict())
    table, images = shards.rows(), shards.images()
    order = torch.cat(batches).argsort()  # back to the order of the questions
    table = table.sort_values(["eps", "row"], ignore_index=True).drop(columns="row")
    names = [f"eps{eps:g}" for eps in sorted(args.eps)]
    return table, dict(zip(names, images[:, order.numpy()], strict=True))


class Earlier:
    """What cheaper attacks have broken: for each question the image that did it, or the clean one."""

    def __init__(self, evaluator: Evaluator, folders: list[Path], radii: list[float]):
        if folders and len(radii) != 1:
            raise ValueError(f"--before needs one radius, got {radii}")
        self.images = evaluator.images.clone()
        broken = torch.zeros(len(evaluator), dtype=torch.bool)
        for folder in folders:
            rows = pd.read_parquet(folder / "rows.parquet")
            rows = rows[rows.eps == radii[0]]
            if rows.question_id.tolist() != [row["question_id"] for row in evaluator.rows]:
                raise ValueError(f"{folder}: other questions, or none at eps {radii[0]:g}; re-run that attack")
            fell = torch.tensor(rows.outcome.isin(["wrong", "unparsable"]).to_numpy()) & ~broken
            with np.load(folder / "images.npz") as archive:
                self.images[fell] = torch.from_numpy(archive[f"eps{radii[0]:g}"])[fell]
            broken |= fell


class Sweep:
    """A batch of questions on its way from radius to radius, ascending.

    A question that is wrong on its clean image stays as it is. One whose text is not right keeps the image that it is
    scored on, which is within every larger radius too: only survivors are attacked on. One that cannot be evaluated is
    failed from that radius on. All tensors and lists have one entry a question of the batch.
    """

    def __init__(self, evaluator: Evaluator, rows: torch.Tensor, args, earlier: Earlier):
        n = len(rows)
        self.evaluator, self.rows, self.args = evaluator, rows, args
        self.stored, self.steps = earlier.images[rows].clone(), torch.zeros(n, dtype=torch.long)
        self.tried = torch.zeros(n, dtype=torch.bool)  # by this attack, at this radius or a smaller one
        self.words, self.texts, self.why = [""] * n, [""] * n, [""] * n
        self._guarded(torch.arange(n), lambda part: self._read(self.words, part, evaluator.images[rows[part]]))
        self.texts = list(self.words)
        if args.before:
            self._guarded(self._live(), lambda part: self._read(self.texts, part, self.stored[part]))

    def attack(self, eps: float) -> None:
        """Attack the survivors within eps, 0 for no attack."""
        self.steps = torch.zeros_like(self.steps)
        live = self._live()
        if eps:
            self.tried[live] = True
            self._guarded(live, lambda part: self._attack(part, eps))

    def table(self, eps: float) -> pd.DataFrame:
        """One row a question: the outcome of the text generated from its stored image, whose distance is checked."""
        settings = self.args.settings.get(self.args.attack) or {}
        clean, norm = self.evaluator.images[self.rows], settings.get("norm", "linf")
        linf = (self.stored.int() - clean.int()).abs().flatten(1).amax(1)  # [b], 8-bit levels
        l2 = l2_levels(self.stored, clean)
        if (far := (linf if norm == "linf" else l2).max().item()) > eps:
            raise RuntimeError(f"a stored image is {far:g} away from its clean one in {norm}, eps is {eps:g}")
        table = pd.DataFrame([self.evaluator.about(i, self.args) for i in self.rows.tolist()])
        table["row"], table["attack"] = self.rows.numpy(), self.args.attack
        table["hint"] = [self.evaluator.rows[i].get("hint", "") for i in self.rows.tolist()]
        table["norm"], table["eps"] = norm, float(eps)
        table["function"], table["sigma"] = settings.get("function", "generate"), settings.get("sigma", 0.0)
        read = list(zip(self.texts, self.rows.tolist(), strict=True))
        table["outcome"] = [self.evaluator.outcome(text, row) for text, row in read]
        table["answer"] = [self.evaluator.answer(text, row) for text, row in read]
        table["text"], table["linf"], table["l2"] = self.texts, linf.numpy(), l2.numpy()
        table["steps"], table["attacked"] = self.steps.numpy(), self.tried.numpy()
        failed = [bool(why) for why in self.why]
        table.loc[failed, ["outcome", "answer"]] = FAILED, ""
        table.loc[failed, "text"] = [why for why in self.why if why]
        return table

    def _live(self) -> torch.Tensor:
        """The questions that are right on both the clean and the stored image."""
        right = self.evaluator.right(self.words, self.rows) & self.evaluator.right(self.texts, self.rows)
        return torch.nonzero(right & torch.tensor([not why for why in self.why]))[:, 0]

    def _attack(self, part: torch.Tensor, eps: float) -> None:
        """Attack some of the questions, and read the images that this left."""
        settings, words = self.args.settings, [self.words[i] for i in part.tolist()]
        config = registry.read_attack_config(
            self.args.attack, settings[self.args.attack], self.args.variant, settings["amp"]
        )
        found = registry.run_attack(self.evaluator, words, self.rows[part], config, eps, self.args.seed)
        self._read(self.texts, part, found.images)
        self.stored[part], self.steps[part] = found.images, found.steps

    def _read(self, texts: list[str], part: torch.Tensor, images: torch.Tensor) -> None:
        """Generate the texts of some of the questions from these images."""
        for i, text in zip(part.tolist(), self.evaluator.answers(images, self.rows[part]), strict=True):
            texts[i] = text

    def _guarded(self, which: torch.Tensor, work) -> None:
        """`work` on some of the questions, if any, in halves where it must be."""
        if len(which):
            list(halving(which, work, self._fail))

    def _fail(self, part: torch.Tensor, why: str) -> None:
        self.why[int(part)] = why


def swept(sweep: Sweep, radii: list[float]) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of a batch at all radii, and its stored images [radii, b, H, W, 3]."""
    tables, images = [], []
    for eps in sorted(radii):
        sweep.attack(eps)
        tables.append(sweep.table(eps))
        images.append(sweep.stored.clone().numpy())
    return pd.concat(tables, ignore_index=True), np.stack(images)


if __name__ == "__main__":
    main()
