"""How GRPO and SFT alter rows: misleading hints before the question, and images without what is asked for."""

import argparse

from safemed.stress.hints import Templates


def templates(args: argparse.Namespace) -> Templates | None:
    """What the words of the method's augmentation are read from; None for an augmentation without any.

    Raises ValueError where no file is given.
    """
    augmentation = args.settings["augmentation"]
    if not (augmentation.get("hints") or augmentation.get("erased")):
        return None
    if not args.templates:
        raise ValueError("augmentation.hints and augmentation.erased need the file of templates: --templates")
    return Templates.read(args.templates)
