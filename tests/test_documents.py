"""The documents: sentences that can be read, links that lead somewhere, names that exist."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from test_rooms import MAY_IMPORT

from ldseg_monai import __version__

ROOT = Path(__file__).parents[1]
CARDS = sorted(ROOT.glob("bundles/*/docs/README.md"))
OTHERS = [ROOT / f"{name}.md" for name in ("CONTRIBUTING", "SECURITY")]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *OTHERS, *CARDS]
FINDINGS = sorted(ROOT.glob("docs/findings/*.md"))
MAX_SENTENCE = 25  # words
MAX_PARAGRAPH = 60
MAX_LINE = 100  # characters


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


pages = pytest.mark.parametrize("path", PAGES, ids=name)
pages_and_findings = pytest.mark.parametrize("path", [*PAGES, *FINDINGS], ids=name)


def prose(text: str) -> list[str]:
    """Lines that are no code, no table, no picture and no heading; such a one leaves an empty line."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    aside = re.compile(r"\||#|!\[")
    return ["" if aside.match(line) else line for line in text.splitlines()]


def paragraphs(text: str) -> list[str]:
    """Paragraphs and items of lists, each on one line."""
    blocks = re.sub(r"\n(?=(?:[-*]|\d+\.) )", "\n\n", "\n".join(prose(text)))
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", blocks) if block.strip()]


def words(sentence: str) -> int:
    """How many; a piece of code is one, a link is its text."""
    plain = re.sub(r"`[^`]*`", "code", re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", sentence))
    return len([word for word in plain.split() if re.search(r"\w", word)])


def sentences(paragraph: str) -> list[str]:
    abbreviations = re.sub(r"\b(al|Eq|vs|e\.g|i\.e)\.", r"\1", paragraph)
    return re.split(r"(?<=[.?!])[*)]*\s+(?=[A-Z0-9`*\[(\"])", abbreviations)


def test_sentences_and_paragraphs_are_told_apart() -> None:
    text = "# Title\n\nOne is `a. b` here. Two\nis by B et al. (2024).\n- An item.\n- Another.\n"
    text += "\n| a. table | of any length |\n\n```\ncode. Is not prose.\n```\n"
    found = paragraphs(text)
    assert found == ["One is `a. b` here. Two is by B et al. (2024).", "- An item.", "- Another."]
    assert [words(sentence) for sentence in sentences(found[0])] == [4, 7]


@pages
def test_sentences_are_short(path: Path) -> None:
    found = [sentence for part in paragraphs(path.read_text()) for sentence in sentences(part)]
    assert [sentence for sentence in found if words(sentence) > MAX_SENTENCE] == []


@pages
def test_paragraphs_are_short(path: Path) -> None:
    text = re.sub(r"^## \*\*References.*", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [part for part in paragraphs(text) if words(part) > MAX_PARAGRAPH] == []


@pages
def test_no_parenthesis_has_two_numbers(path: Path) -> None:
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "", "\n".join(paragraphs(path.read_text())))
    number = re.compile(r"\d{4}-\d\d-\d\d|(?<![\w-])\d[\d.,]*(?!\w)")  # a date is one
    found = re.findall(r"\([^()]*\)", text)
    assert [part for part in found if len(number.findall(part)) > 1] == []


@pages_and_findings
def test_lines_are_wrapped(path: Path) -> None:
    assert [line for line in prose(path.read_text()) if len(line) > MAX_LINE] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pages_and_findings
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    dead = []
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def is_there(dotted: str) -> bool:
    """Whether a name is a module, or something in one."""
    parent, _, attribute = dotted.rpartition(".")
    try:
        return hasattr(import_module(parent), attribute) or find_spec(dotted) is not None
    except ModuleNotFoundError:
        return False


@pages_and_findings
def test_names_of_the_package_exist(path: Path) -> None:
    names = set(re.findall(r"\bldseg_monai(?:\.\w+)+", path.read_text()))
    assert {dotted for dotted in names if not is_there(dotted)} == set()


def test_changelog_names_what_things_are_called_now() -> None:
    rows = re.findall(r"^\| `ldseg_monai.*\| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    names = set(re.findall(r"\bldseg_monai(?:\.\w+)+", " ".join(rows)))
    assert len(names) > 10 and {dotted for dotted in names if not is_there(dotted)} == set()


@pytest.mark.parametrize("file", ["CHANGELOG.md", "CITATION.cff"])
def test_version_is_the_package_s(file: str) -> None:
    latest = re.search(r"^(?:## \[|version: )([\d.]+)", (ROOT / file).read_text(), re.MULTILINE)
    assert latest and latest[1] == __version__


@pages_and_findings
def test_programs_and_configs_exist(path: Path) -> None:
    text = path.read_text()
    modules = re.findall(r"python -m (benchmarks[\w.]+)", text)
    files = [f"{module.replace('.', '/')}.py" for module in modules]
    files += re.findall(r"\b(?:docs|tests|benchmarks)/[\w./-]+\.(?:yaml|py)\b", text)
    files += re.findall(r"\bbundles/[a-z]\w+/[\w./-]+\.\w+", text)
    ours = [file for file in files if not file.startswith("bundles/my_organ/")]
    assert [file for file in ours if not (ROOT / file).is_file()] == []


def test_the_map_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text().partition("## Map")[2]
    rooms = re.findall(r"^\| `ldseg_monai/(\w+)`", text, re.MULTILINE)
    assert sorted(rooms) == sorted(
        path.parent.name for path in ROOT.glob("ldseg_monai/*/__init__.py")
    )
    top = re.findall(r"`(\w+)/`", text)
    assert {"bundles", "benchmarks", "docs", "tests"} == set(top)
    assert [folder for folder in top if not (ROOT / folder).is_dir()] == []


def test_the_picture_of_the_rooms_is_their_table() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    picture = text.partition("```mermaid")[2].partition("```")[0]
    reached: dict[str, set[str]] = {room: set() for room in MAY_IMPORT}
    for room, other in re.findall(r"(\w+) --> (\w+)", picture):
        assert other in MAY_IMPORT[room], f"{room} may not import {other}"
        reached[room].add(other)
    for _ in MAY_IMPORT:
        for room, others in reached.items():
            reached[room] = others.union(*(reached[other] for other in others))
    assert {room: MAY_IMPORT[room] - reached[room] for room in reached} == {
        room: set() for room in MAY_IMPORT
    }
    table = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| (.*) \|$", text, re.MULTILINE))
    written = {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in table.items()}
    for room in MAY_IMPORT.keys() - {"clients", "tools"}:
        assert written[room] == MAY_IMPORT[room], room
    assert written["clients"] == MAY_IMPORT["tools"] - MAY_IMPORT["clients"] - {"clients"} | {
        "tools"
    }


def test_the_readme_s_overlay_puts_another_denoiser_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [overlay] = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    (tmp_path / "mine.yaml").write_text(overlay)
    (tmp_path / "my_denoiser.py").write_text(
        "from ldseg_monai.networks import LatentDenoiser\n\n\n"
        "class MyDenoiser(LatentDenoiser):\n"
        "    def __init__(self, latent_channels, embedding_channels):\n"
        "        super().__init__(3, latent_channels, embedding_channels, [32], 1, [False])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_denoiser", raising=False)  # of another test
    config = ConfigParser()
    train = ROOT / "bundles" / "ldseg_knee3d" / "configs" / "train.yaml"
    config.read_config([str(train), str(tmp_path / "mine.yaml")])
    network = config.get_parsed_content("network_def")
    assert type(network.denoiser).__name__ == "MyDenoiser"


@pytest.mark.parametrize("path", CARDS, ids=name)
def test_a_card_has_a_title_of_its_own_and_a_picture(path: Path) -> None:
    text = path.read_text()
    titles = [card.read_text().splitlines()[0] for card in CARDS]
    assert len(set(titles)) == len(CARDS) and "Model Title" not in text
    assert re.search(r"^!\[.+]\(phantom\.png\)$", text, re.MULTILINE)
