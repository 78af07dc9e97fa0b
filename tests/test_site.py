"""The documentation: the site's pages, its links, and every command and block of code in docs/."""

import contextlib
import functools
import http.server
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from browser import CHROMEDRIVER, CHROMIUM, Browser, browser
from conftest import SMALL, Cli
from test_documents import commands

import molgen
import site_pages
from molgen.cli.main import app
from molgen.config import Config

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
DOCUMENTS = PAGES | {"README.md": (ROOT / "README.md").read_text(encoding="utf-8")}
# Who runs the blocks of code of a page. A page that is not here may have none.
RUN = {"guide.md", "README.md"}  # by test_documents
RUN |= {"install.md", "huggingface.md", "evaluation.md", "focused.md"}  # here
RUN |= {"fragments.md", "prediction.md", "conditions.md"}  # by test_fragments, test_prediction and test_asked_values
NOT_RUN = {
    "scale.md": "needs several processes, a cluster, or hours; test_processes has its commands in small",
    "long.md": "hours; test_long_training has its settings in small",
    "stability.md": "hours; test_scripts has its command",
    "benchmarks.md": "`make bench` takes ten minutes; test_bench has it in small",
}


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    site_pages.write_pages(folder)
    return folder


@pytest.fixture(scope="session")
def built() -> Path:
    """The site, built strictly."""
    if find_spec("zensical") is None:
        pytest.skip("needs the extra docs")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make" / "site_pages.py")], cwd=ROOT, check=True)
    return site_pages.HTML


def test_a_page_with_code_is_run_or_says_why_not() -> None:
    with_code = {name for name, text in DOCUMENTS.items() if re.search("```(sh|python)", text)}
    assert with_code == RUN | NOT_RUN.keys()


def command_lines(text: str) -> Iterator[str]:
    """Every command of molgen in blocks of code, fenced or indented, and in `code`; without what a shell adds."""
    text = text.replace("\\\n", " ")
    found = re.findall(
        r"^(?:    |\t)?(molgen [^\n]*)", "\n".join(re.findall(r"```(?:sh|text)?\n(.*?)```", text, flags=re.S)), re.M
    )
    found += re.findall(r"^    (molgen [^\n]*)", text, re.M)
    found += re.findall(r"`(molgen [^`\n]*)`", re.sub("```.*?```", "", text, flags=re.S))
    for line in found:
        # an option in prose may stand without its value, and a pattern (`molgen …`) is no command
        if not re.search(r"corpus 1$|…|\.\.\.|[A-Z]{3,}=|\[|\bmolgen [A-Z0-9(]", line):
            yield line


def words_of(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|><;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|><;"):
            break
        words.append(word)
    return words


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_in_the_documents_has_options_that_exist(name: str) -> None:
    history = name == "log.md"  # experiments of their day, with the options of their day
    for line in [] if history else command_lines(DOCUMENTS[name]):
        group = typer.main.get_command(app)
        words = words_of(line)[1:]
        while words and hasattr(group, "commands"):
            if words[0].startswith("-"):  # an option of all commands: -q and -v stand before one
                words = words[1:] if words[0] in {"-q", "-v"} else []
                continue
            assert words[0] in group.commands, line
            group, words = group.commands[words[0]], words[1:]
        if not words or hasattr(group, "commands"):
            continue
        try:
            group.make_context("molgen", list(words))
        except Exception as error:
            text = str(getattr(error, "message", error))
            assert "requires an argument" in text or "Missing argument" in text, f"{line}: {text}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["huggingface.md", "install.md", "evaluation.md", "focused.md"])
def test_every_block_of_the_page_runs(
    name: str, cli: Cli, moses_mini: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MOLGEN_DATA", str(Path("no-data").absolute()))  # MOSES would be cleaned for minutes
    Path("mine.csv").write_text("smiles\n" + "\n".join(moses_mini[:60]) + "\n")
    Path("samples.smi").write_text("\n".join(moses_mini[60:90]) + "\n")
    Path("actives.smi").write_text("\n".join(moses_mini[:60]) + "\n")
    little = [part for setting in [*SMALL, "training.epochs=2"] for part in ("--set", setting)]
    if name == "evaluation.md":
        assert cli("train", "mine.csv", "--out", "runs/mine", *little).code == 0
    for line in commands(DOCUMENTS[name]):
        words = shlex.split(line.replace("train moses-mini", "train mine.csv"))
        assert words[0] == "molgen", line
        words = [{"moses-mini": "mine.csv", "20000": "20"}.get(word, word) for word in words]
        if words[1] == "train":
            words += ["--set", "training.epochs=1"] if "--init" in words else little
        words += ["-n", "60"] if words[1] == "eval" and "runs/mine" in words else []
        if "--show-completion" in words:
            continue  # it asks which shell runs the tests; test_habits completes
        code, _, err = cli(*words[1:])
        assert code == 0, f"{line}: {err}"
    for block in re.findall(r"```python\n(.*?)```", DOCUMENTS[name], flags=re.S):
        Path("block.py").write_text(block.replace("[:1000]", "[:300]"))
        done = subprocess.run([sys.executable, "block.py"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_pages_from_the_code_name_every_command_setting_and_public_name(pages: Path) -> None:
    cli_page, settings, api = ((pages / "reference" / f"{n}.md").read_text() for n in ("cli", "configuration", "api"))
    for command in ("train", "sample", "eval", "score", "optimize", "export", "doctor", "data encode"):
        assert f"## molgen {command}\n" in cli_page
    assert "MOLGEN_DEVICE" in cli_page
    for section, field in Config.model_fields.items():
        assert field.annotation is not None
        assert all(f"`{section}.{key}`" in settings for key in field.annotation.model_fields)
    assert all(f"## {name}\n" in api for name in molgen.__all__ if name != "__version__")


def test_every_page_of_docs_is_in_the_navigation(pages: Path) -> None:
    named = set(re.findall(r"([\w/-]+\.md)", (ROOT / "mkdocs.yml").read_text()))
    assert named == {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}


@pytest.mark.parametrize(
    ("folder", "written", "expected"),
    [
        ("docs", "[x](guide.md#a)", "[x](guide.md#a)"),
        ("docs", "[x](../README.md)", "[x](index.md)"),
        ("docs", "[x](../molgen/config.py)", "[x](reference/configuration.md)"),
        ("docs", "[`cli.py`](../molgen/cli/main.py)", "`cli.py`"),
        ("docs", "[the code](../molgen/cli/main.py)", "the code (`molgen/cli/main.py`)"),
        ("", "![p](docs/samples.png)", "![p](samples.png)"),
        ("", "[x](https://example.org/a.md)", "[x](https://example.org/a.md)"),
        ("", "`C[N](=O)`", "`C[N](=O)`"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(folder: str, written: str, expected: str) -> None:
    assert site_pages.relinked(written, folder) == expected


def test_a_link_to_nowhere_is_found_and_a_good_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#there">x</a><a href="b.html#gone">x</a><a href="c.html">x</a>'
        '<img src="no.png"><a href="https://example.org/">x</a><a href="#top">x</a>'
    )
    (tmp_path / "b.html").write_text('<h2 id="there"></h2>')
    assert site_pages.broken_links(tmp_path) == ["a.html: b.html#gone", "a.html: c.html", "a.html: no.png"]


@pytest.mark.slow
def test_the_site_builds_strictly_without_a_broken_link_and_can_be_searched(built: Path) -> None:
    assert site_pages.broken_links(built) == []
    assert (built / "search.json").stat().st_size > 100_000
    for path in built.rglob("*.html"):  # nothing is fetched from elsewhere when a page is read
        assert not re.search(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="https?:', path.read_text()), path


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder at an address of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def shown(window: Browser, address: str, width: int, dark: bool) -> dict[str, object]:
    window.look(width, dark)
    window.visit(address)
    window.run("localStorage.clear(); sessionStorage.clear()")  # a reader who comes for the first time
    window.visit(address)
    script = """
        await new Promise(done => setTimeout(done, 300));
        return {wide: document.documentElement.scrollWidth > innerWidth,
                scheme: document.body.getAttribute('data-md-color-scheme'),
                title: document.querySelector('h1').innerText}"""
    return dict(window.run(script))


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver")
def test_pages_fit_a_narrow_and_a_wide_window_in_light_and_dark(built: Path, tmp_path: Path) -> None:
    with served(built) as address, browser(tmp_path / "profile") as window:
        for page in ("index", "install", "guide", "first_day", "huggingface", "reference/cli", "reference/api"):
            for width, dark in ((390, False), (1400, True)):
                found = shown(window, f"{address}/{page}.html", width, dark)
                assert found["wide"] is False, (page, width)
                assert found["scheme"] == ("slate" if dark else "default"), page
                assert found["title"]
        assert window.log() == []
        window.run("document.querySelector('.md-search__button').click()")
        time.sleep(1)
        window.devtools("Input.insertText", text="temperature")
        time.sleep(2)
        assert "temperature" in str(window.run("return document.body.innerText")).lower()
