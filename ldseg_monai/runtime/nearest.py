"""What a person may have meant by a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(
    name: str, known: Iterable[str], number: int = 1, cutoff: float = 0.6, before: str = ""
) -> str:
    """The end of a message on a name: ``; did you mean NEAREST?``, or "" where none is near.

    Args:
        name: that there is not.
        known: names that there are.
        number: of names to tell, at most.
        cutoff: how near they have to be, from 0 to 1 for the same.
        before: what each is told with, in front of it.
    """
    close = get_close_matches(name, list(known), n=number, cutoff=cutoff)
    return f"; did you mean {' or '.join(before + one for one in close)}?" if close else ""
