"""Pushes: what a user says to an answer in a second turn."""

from dataclasses import dataclass

PUSHES = {"silent": "neutral", "doubt": "neutral", "wrong": "negative", "right": "positive"}  # each with its polarity
KINDS = ("silent", "doubt", "claim")  # of wordings: one of a claim serves wrong and right ones


@dataclass(frozen=True)
class Push:
    """One wording. kind: silent says nothing of the answer, doubt doubts it, claim names {option} or {letter}. train:
    whether training may draw it.
    """

    name: str
    kind: str
    text: str
    train: bool
