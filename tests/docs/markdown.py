"""Reads the fenced blocks of a Markdown page, with what the page says of each."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        heading: Of the section that it stands in.
        paragraph: The last one above it in the section; empty if there is none since the block before.
        language: What follows the opening fence.
        text: The lines between the fences, each with its end.
    """

    heading: str
    paragraph: str
    language: str
    text: str

    @property
    def file(self) -> str:
        """The file that the paragraph names last, such as `conftest.py`; empty if there is none."""
        names: list[str] = re.findall(r"`([\w/]+\.\w+)`", self.paragraph)
        return names[-1] if names else ""


def read_page(name: str) -> str:
    """The text of a page of the documentation."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def read_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks: list[Block] = []
    heading = paragraph = language = text = ""
    fenced, after_blank = False, True
    for line in page.splitlines(keepends=True):
        if line.startswith("```"):
            if fenced:
                blocks.append(Block(heading, paragraph, language, text))
                paragraph = ""
            fenced, language, text = not fenced, line.strip("`\n"), ""
        elif fenced:
            text += line
        elif line.startswith("#"):
            heading, paragraph = line.strip("# \n"), ""
        elif line.strip():
            paragraph = line if after_blank else paragraph + line
        after_blank = not line.strip()
    return blocks


def table_rows(page: str, header: str) -> list[list[str]]:
    """The cells of the table whose header is this line, row by row."""
    _, _, rest = page.partition(f"{header}\n")
    rows = rest.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
