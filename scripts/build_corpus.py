"""Build the corpus that reports are retrieved from: the images of the training split, each with its right answers."""

from safemed.data.dataset import load_questions
from safemed.evaluation import arguments
from safemed.retrieval import corpus
from safemed.retrieval.entries import entries_of
from safemed.utils import cli, cost, files, provenance


def main() -> None:
    """Write a folder with entries.parquet, features.npy (of the tower's pooled features), and neighbours.parquet."""
    args = arguments.evaluation_parser(__doc__).parse_args()
    cli.start_logging()
    meter, vlm = cost.CostMeter("corpus", args.model), arguments.load(args)
    questions = load_questions(args.data, "train")
    entries = entries_of(questions)
    built = corpus.Corpus(entries, corpus.pooled_features(vlm, corpus.images_of(questions, entries)))
    with files.atomic_folder(args.out) as folder:
        built.write(folder)
        if args.settings["neighbours"]:
            found = corpus.neighbours(built, questions, args.settings["words"])
            found.to_parquet(folder / "neighbours.parquet", index=False)
        meter.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)


if __name__ == "__main__":
    main()
