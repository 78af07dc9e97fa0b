"""The commands of scripts/ are where the documents say, and take the options that the documents give them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "scripts").glob("*/*.py"))
DOCUMENTS = [
    "Makefile",
    "hashes.txt",
    "CONTRIBUTING.md",
    "scripts/README.md",
    *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
]


@pytest.mark.parametrize("document", [*DOCUMENTS, *SCRIPTS])
def test_each_script_that_a_document_names_is_there_and_has_the_options(document: str) -> None:
    text = re.sub(r"\\+\n", " ", (ROOT / document).read_text(encoding="utf-8"))
    for path in re.findall(r"scripts/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path
    for path, arguments in re.findall(r"(?:python3?|\(BIN\)/python) (scripts/\S+\.py)([^`#\n]*)", text):
        source = (ROOT / path).read_text(encoding="utf-8")
        for option in re.findall(r"(?<=[\s\[])--?[a-z][\w-]*", arguments):
            assert f'add_argument("{option}"' in re.sub(r"add_argument\(\s+", "add_argument(", source), (path, option)


def test_the_table_of_scripts_names_every_script_with_its_folder() -> None:
    text = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+):(.*?)(?=^## |\Z)", text, flags=re.M | re.S))
    assert sorted(sections) == sorted({path.split("/")[1] for path in SCRIPTS})
    for path in SCRIPTS:
        _, folder, name = path.split("/")
        assert re.search(rf"\b{re.escape(name)}\b", sections[folder]), path


def test_a_script_imports_no_module_of_another_folder() -> None:
    folders = {Path(path).stem: path.split("/")[1] for path in SCRIPTS}
    assert len(folders) == len(SCRIPTS), "two scripts of one name"
    for path in SCRIPTS:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"^\s*(?:from|import) (\w+)", source, flags=re.M):
            assert folders.get(name, path.split("/")[1]) == path.split("/")[1], (path, name)
