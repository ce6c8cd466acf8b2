"""Evidence that is revealed step by step (after MedConf, arXiv 2601.15645): images uncovered cell by cell.

An image is cut into a grid of square cells, which are uncovered one after the other; the rest is grey. What is shown
is nested: the cells of a smaller share are among those of a larger one.
"""

import numpy as np

from safemed.stress.erasure import GREY, lesion_box
from safemed.stress.reveal_orders import SEEDED
from safemed.utils.noise import named_rng


def turns_of_cells(question: dict, side: int, cells: int, order: str, seed: int) -> np.ndarray | None:
    """When each cell of an image of side x side pixels is uncovered: 0, 1, ..., as integers [cells, cells].

    A question's own, whatever else is asked. LESION_LAST takes the cells in the turn of SEEDED, but those that the
    lesion touches, with the margin of its erasure, after all others; None where the place of a lesion is not known, or
    is all of the image.
    """
    drawn = named_rng("revealed cells", f"{seed}:{question['question_id']}").permutation(cells**2)
    if order == SEEDED:
        return drawn.reshape(cells, cells)
    box = lesion_box(question, (side, side, 3))
    if box is None:
        return None
    wide = side // cells
    touched = np.zeros((cells, cells), bool)
    touched[box[1] // wide : -(-box[3] // wide), box[0] // wide : -(-box[2] // wide)] = True
    sequence = np.lexsort((drawn, touched.ravel()))
    return np.argsort(sequence).reshape(cells, cells)


def revealed(image: np.ndarray, turns: np.ndarray, share: float) -> np.ndarray:
    """The image, uint8 [H, W, 3], of which the first cells are shown, as many as come closest to the share of all."""
    shown = turns < round(share * turns.size)  # [cells, cells]
    wide = len(image) // len(turns)
    return np.where(np.kron(shown, np.ones((wide, wide), bool))[..., None], image, np.uint8(GREY))
