"""Images that are uncovered cell by cell: what is shown is nested, the rest is grey, and a lesion may come last."""

import numpy as np
import pytest

from safemed.stress.erasure import GREY
from safemed.stress.reveal import revealed, turns_of_cells
from safemed.stress.reveal_orders import LESION_LAST, ORDERS, SEEDED

SIDE, CELLS, SHARES = 64, 8, (0.2, 0.4, 0.6, 0.8, 1.0)
QUESTION = {"question_id": "q1", "box": [20, 24, 30, 39]}  # with its margin of 4: columns 2-4, rows 2-5
IMAGE = np.random.default_rng(0).integers(0, 100, (SIDE, SIDE, 3)).astype(np.uint8)  # no pixel is grey


def shown(turns: np.ndarray, share: float) -> np.ndarray:
    """Which pixels are shown, [H, W]."""
    return (revealed(IMAGE, turns, share) == IMAGE).all(-1)


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_uncovered_stays_so_and_the_rest_is_grey(order):
    turns = turns_of_cells(QUESTION, SIDE, CELLS, order, 0)
    assert sorted(turns.ravel()) == list(range(CELLS**2))
    before = np.zeros((SIDE, SIDE), bool)
    for share in SHARES:
        image, now = revealed(IMAGE, turns, share), shown(turns, share)
        assert now.sum() == round(share * CELLS**2) * (SIDE // CELLS) ** 2
        assert (image[~now] == GREY).all() and (now >= before).all() and (now > before).any()
        cells = now.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS)
        assert (cells.all((1, 3)) == cells.any((1, 3))).all()  # whole cells
        before = now
    assert (revealed(IMAGE, turns, 1.0) == IMAGE).all()


def test_the_lesion_comes_last_and_all_else_in_the_seeded_turn():
    seeded, last = (turns_of_cells(QUESTION, SIDE, CELLS, order, 0) for order in (SEEDED, LESION_LAST))
    lesion = np.zeros((CELLS, CELLS), bool)
    lesion[2:6, 2:5] = True
    assert last[lesion].min() > last[~lesion].max()
    for part in (lesion, ~lesion):
        assert (np.argsort(seeded[part]) == np.argsort(last[part])).all()
    assert seeded[lesion].min() < seeded[~lesion].max()


def test_an_order_is_a_questions_own():
    one = turns_of_cells(QUESTION, SIDE, CELLS, SEEDED, 0)
    assert (one == turns_of_cells(QUESTION | {"box": []}, SIDE, CELLS, SEEDED, 0)).all()
    for other, seed in ((QUESTION | {"question_id": "q2"}, 0), (QUESTION, 1)):
        assert (one != turns_of_cells(other, SIDE, CELLS, SEEDED, seed)).any()


def test_an_image_whose_lesion_has_no_place_has_no_such_order():
    for box in ([], [0, 0, SIDE, SIDE]):
        assert turns_of_cells(QUESTION | {"box": box}, SIDE, CELLS, LESION_LAST, 0) is None
