"""The parts a page is made of, and their rendering as HTML that needs nothing beside it, and as Markdown."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
WIDE = 1.8
"""Ratio of sides from which a picture takes the page's whole width."""
CRISP = 480
"""Pixels of width."""


@dataclass(frozen=True)
class Text:
    """A paragraph; what stands between backticks is code."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Heading:
    """Of a part of a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Tile:
    """A number worth seeing first."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Numbers worth seeing first."""

    kind: ClassVar[str] = "tiles"
    tiles: list[Tile]


@dataclass(frozen=True)
class Cell:
    """Of a table: a value, an interval or remark to it, a mark (best, good, bad, unsure, or hash in small print)."""

    text: str
    note: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """Its title, and whether numbers stand in it."""

    title: str
    numbers: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first of each row names it. `set_apart` are numbers of rows that summarise others."""

    kind: ClassVar[str] = "table"
    columns: list[Column]
    rows: list[list[Cell]]
    caption: str = ""
    set_apart: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A file of the report's folder; a plot has an SVG beside its PNG and may change its colours with the page's."""

    file: str
    caption: str
    width: int
    height: int
    plot: bool

    @property
    def wide(self) -> bool:
        return self.width > WIDE * self.height

    @property
    def crisp(self) -> bool:
        """Small enough to be shown pixel by pixel, or enlarged; a larger one may be reduced, which needs smoothing."""
        return not self.plot and self.width <= CRISP

    @classmethod
    def of(cls, path: Path, caption: str) -> "Picture":
        with Image.open(path) as image:
            return cls(path.name, caption, *image.size, plot=path.with_suffix(".svg").exists())


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other as the page's width allows."""

    kind: ClassVar[str] = "pictures"
    pictures: list[Picture]


@dataclass(frozen=True)
class Notes:
    """Remarks, each a line; warnings, if they have a title."""

    kind: ClassVar[str] = "notes"
    title: str
    notes: list[str]


@dataclass(frozen=True)
class Code:
    """Text as it is."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Fold:
    """What a reader opens at will."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: list["Block"]
    open: bool = False


Block = Text | Heading | Tiles | Table | Pictures | Notes | Code | Fold


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Page:
    """Sections without content are left out."""

    title: str
    subtitle: str
    sections: list[Section] = field(default_factory=list)


def write_page(page: Page, folder: Path) -> None:
    """report.html, with the pictures of `folder` inside it, and report.md, which refers to them."""
    page = Page(page.title, page.subtitle, [section for section in page.sections if section.blocks])
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "inline": _inline,
        "md": _markdown,
        "embedded": lambda picture: _embedded(folder, picture),
    }
    for name in ("report.html", "report.md"):
        text = environment.get_template(name).render(page=page)
        (folder / name).write_text(text, encoding="utf-8")


def _embedded(folder: Path, picture: Picture) -> str:
    """A picture as a data URI; a plot's SVG, which is sharp at any size."""
    path = folder / picture.file
    if picture.plot:
        path = path.with_suffix(".svg")
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _inline(text: str) -> Markup:
    """Escaped text with `code` as HTML."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its second is one
        return escape(text)
    shown = (
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )
    return Markup("").join(shown)


def _markdown(text: str) -> str:
    """Text in which nothing but `code` is read as Markdown or HTML."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:
        return _escaped("".join(parts))
    return "`".join(part.replace("|", "\\|") if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _escaped(text: str) -> str:
    for character in "\\*[]|":
        text = text.replace(character, f"\\{character}")
    return text.replace("&", "&amp;").replace("<", "&lt;")


def joined(names: Sequence[str], most: int = 3) -> str:
    """'a, b and c'; from the fourth on only how many."""
    shown = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else ""


def number(value: float, digits: int = 4) -> str:
    """With so many significant digits, whole numbers with separators."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def hashed(sha256: str) -> Cell:
    """A hash or commit, whole, broken into lines."""
    return Cell(f"`{sha256}`", mark="hash")
