"""A plan as text no wider than a screen."""

from collections.abc import Sequence

from iddpm.stages.inspect import aligned

WIDTH = 120
LEAST_NAME = 12


def cut_to_width(rows: list[list[str]]) -> list[str]:
    """Lines of a table of at most WIDTH characters: names in the first column lose their middle where needed."""
    widest = max(len(line) for line in aligned([["", *row[1:]] for row in rows]))
    room = max(WIDTH - widest, LEAST_NAME)
    return aligned([[_shortened(row[0], room), *row[1:]] for row in rows])


def _shortened(name: str, room: int) -> str:
    if len(name) <= room:
        return name
    kept = room - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"


def quantity(value: float, units: Sequence[str] = ("", " K", " M", " G", " T", " P")) -> str:
    """Three digits and a unit, each a thousand of the one before."""
    unit = 0
    while round(value, 1) >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}{units[unit]}" if value else "-"


def size(count: float) -> str:
    """Bytes."""
    return quantity(count, (" B", " kB", " MB", " GB", " TB", " PB"))


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, length in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.995 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 0.1 else "< 0.1 s" if seconds else "-"


def power(value: float) -> str:
    """Operations, of which there are many."""
    return f"{value:.2e}".replace("e+", "e") if value else "-"


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Lines of at most WIDTH characters, all but the first indented."""
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
