"""Images that know whose they are: which row of a batch each belongs to, through all that an attack does to them."""

from collections.abc import Iterable

import torch
from torch import Tensor

# What torch's functions do with images, by their names: work on each pixel by itself, move pixels, resize images.
PIXELWISE = {
    "add", "sub", "mul", "div", "clamp", "min", "max", "clone", "detach", "to", "float", "contiguous",
    "requires_grad_", "add_", "__rsub__",
}  # fmt: skip
MOVING = {"__getitem__", "view", "reshape", "unsqueeze", "expand", "cat", "split"}
RESIZING = {"interpolate", "pad"}
DESCRIPTORS = {"__get__", "__len__"}


class Followed(Tensor):
    """Images each of whose values carries the number of its row.

    `rows`: integers of the images' shape, or None where they are not known. A function that works on each pixel by
    itself keeps them, if all images in it agree; one that moves pixels moves their numbers alike; one that resizes
    images keeps the numbers of whole images. Whatever else there is loses them: no row is ever guessed.
    """

    rows: Tensor | None = None

    @classmethod
    def of(cls, images: Tensor, rows: Tensor) -> "Followed":
        """The images [B, ...] of the rows [B]."""
        self = images.as_subclass(cls)
        self.rows = _spread(rows, images.shape)
        return self

    def each(self) -> Tensor | None:
        """The row of each image, [B]; None where it is not known, or an image is put together from several rows."""
        if self.rows is None:
            return None
        numbers = self.rows.flatten(1)
        return numbers[:, 0] if (numbers == numbers[:, :1]).all() else None

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found, name = super().__torch_function__(func, types, args, kwargs), func.__name__
        if name == "__setitem__":
            _put(args[0], _written(*args))
        elif name == "__set__":
            _put(args[0], _numbers(args[1]) if func.__self__.__name__ == "data" else _numbers(args[0]))
        elif name in MOVING:
            _put(found, _moved(func, args, kwargs))
        elif name in PIXELWISE:
            _put(found, _agreed(found, (*args, *kwargs.values())))
        elif name in RESIZING:
            rows = args[0].each() if isinstance(args[0], Followed) else None
            _put(found, None if rows is None else _spread(rows, found.shape))
        elif name not in DESCRIPTORS:
            _put(found, None)
        return found


def rows_of(images: Tensor) -> Tensor:
    """The row of each image [B].

    Raises LookupError where one is not known: to answer it after the prompt of another row would be a silent guess.
    """
    rows = images.each() if isinstance(images, Followed) else None
    if rows is None:
        raise LookupError(
            "the attack shows images of which it is not known to which questions they belong, and each question has a "
            "prompt of its own: something was done to the images that safemed.evaluation.followed_rows does not follow"
        )
    return rows


def _spread(rows: Tensor, shape: Iterable[int]) -> Tensor:
    """The number of each image's row [B] in every place of the images."""
    shape = tuple(shape)
    return rows.view(-1, *[1] * (len(shape) - 1)).expand(shape)


def _put(images: object, rows: object) -> None:
    """Give images, or each of several, their numbers; nothing else takes any."""
    if isinstance(images, Followed):
        images.rows = rows
    elif isinstance(images, tuple | list):
        for place, one in enumerate(images):
            _put(one, None if rows is None else rows[place])


def _numbers(images: object) -> object:
    """The numbers of images, or of each of several; None where they are not all known."""
    if isinstance(images, tuple | list):
        each = [_numbers(one) for one in images]
        return None if any(one is None for one in each) else each
    return images.rows if isinstance(images, Followed) else None


def _plain(value: object) -> object:
    """A value without any Followed in it."""
    if isinstance(value, tuple | list):
        return type(value)(_plain(one) for one in value)
    return value.as_subclass(Tensor) if isinstance(value, Followed) else value


def _moved(func, args: tuple, kwargs: dict) -> object:
    """The numbers, moved as the images are. They may lie otherwise in memory, so that a view of them is no view."""
    numbers, move = _numbers(args[0]), Tensor.reshape if func.__name__ == "view" else func
    return None if numbers is None else move(numbers, *_plain(args[1:]), **kwargs)


def _agreed(found: object, values: tuple) -> Tensor | None:
    """The numbers of a result of images, where they all have the same ones and none is stretched over others."""
    known = [value.rows for value in values if isinstance(value, Followed) and value.rows is not None]
    if not known or not isinstance(found, Tensor):
        return None
    alike = all(one is known[0] or torch.equal(one, known[0]) for one in known)
    return known[0] if alike and known[0].shape == found.shape else None


def _written(images: Tensor, index: object, value: object) -> Tensor | None:
    """The numbers of images after some values of others, or a number, have been written into them."""
    rows = _numbers(images)
    if rows is None or not isinstance(value, Tensor):
        return rows
    numbers = _numbers(value)
    if numbers is None:
        return None
    rows = rows.clone()
    rows[_plain(index)] = numbers
    return rows
