"""The documentation site: pages of docs/, the README, and pages made from the code; built, then every link is checked.

    python scripts/make/site_pages.py          # or `make docs`: into build/site/html
    python scripts/make/site_pages.py --pages  # only the pages, into build/site/pages

`mkdocs.yml` names the pages in their order. Zensical builds them; mkdocs-material reads the same file.
"""

import argparse
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import unquote, urlsplit

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import molgen
from molgen.cli.main import app
from molgen.config import NAMED, Config, recipes
from molgen.optimize.options import OptimizeOptions

ROOT = Path(__file__).parents[2]
PAGES, HTML = ROOT / "build" / "site" / "pages", ROOT / "build" / "site" / "html"
# Code, which is left alone, or a link: its label, which may be code, and its target.
_CODE_OR_LINK = re.compile(r"```.*?```|(!?\[(?:`[^`\n]+`|[^\]`])*\])\(([^)\s]+)\)|`[^`\n]+`", re.S)
# Where the site has what a page of the repository links to; other files of the repository are not on the site.
_MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "molgen/config.py": "reference/configuration.md",
    "configs": "reference/configuration.md#recipes",
    "docs/first_day.ipynb": "first_day.md",
    "shipped/druglike/README.md": "druglike.md",
    "shipped/moses-small/README.md": "moses-small.md",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", action="store_true", help="only write the pages")
    options = parser.parse_args()
    write_pages(PAGES)
    if not options.pages:
        build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "mkdocs.yml"]
        subprocess.run(build, cwd=ROOT, check=True)
        if broken := broken_links(HTML):
            raise SystemExit("broken links:\n" + "\n".join(broken))
        print(f"{len(list(HTML.rglob('*.html')))} pages, no broken link: {HTML / 'index.html'}")


def write_pages(target: Path) -> None:
    """Replaces the pages and pictures that the site is built from."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "reference").mkdir(parents=True)
    for path in (ROOT / "docs").iterdir():
        if path.suffix in {".png", ".svg", ".css"}:
            shutil.copyfile(path, target / path.name)
        elif path.suffix == ".md":
            _write(target / path.name, relinked(path.read_text(encoding="utf-8"), "docs"))
    cards = [f"shipped/{name}/README.md" for name in ("druglike", "moses-small")]
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", *cards):
        folder = Path(name).parent.as_posix()
        text = (ROOT / name).read_text(encoding="utf-8")
        _write(target / _MOVED[name], relinked(text, "" if folder == "." else folder))
    _write(target / "first_day.md", notebook_page(json.loads((ROOT / "docs" / "first_day.ipynb").read_text())))
    _write(target / "reference" / "cli.md", cli_page())
    _write(target / "reference" / "configuration.md", configuration_page())
    _write(target / "reference" / "api.md", api_page())


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def relinked(text: str, folder: str) -> str:
    """A page that lies in a folder of the repository, with its links as they are on the site."""

    def moved(match: re.Match[str]) -> str:
        label, link = match[1], match[2]
        if not label:
            return match[0]
        if urlsplit(link).scheme or link.startswith("#"):
            return match[0]
        path, hash_mark, anchor = link.partition("#")
        place = (ROOT / folder / path).resolve().relative_to(ROOT).as_posix()
        if place in _MOVED:
            return f"{label}({_MOVED[place]}{hash_mark + anchor if '#' not in _MOVED[place] else ''})"
        if place.startswith("docs/"):
            return f"{label}({place.removeprefix('docs/')}{hash_mark}{anchor})"
        return label[1:-1] if label.startswith("[`") else f"{label[1:-1]} (`{place}`)"

    return _CODE_OR_LINK.sub(moved, text)


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook with its results as a page."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                html = re.sub(r"\n\s*\n", "\n", "".join(data["text/html"]))  # an empty line would end the block
                parts.append(f'<div class="result" markdown="0">\n{html}\n</div>')
            elif "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                parts.append(f'<img alt="the result of this cell" src="data:image/png;base64,{picture}">')
            else:
                text = "".join(output.get("text") or data.get("text/plain") or "")
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def cli_page() -> str:
    """Every command with its arguments and options, from the program itself."""
    root = typer.main.get_command(app)
    parts = ["# Command line", _paragraph(root.help), _parameters(root)]
    for path, command in _commands(root, ("molgen",)):
        if not command.hidden:
            arguments = [p for p in command.params if p.param_type_name == "argument"]
            words = [
                f"{p.metavar or p.name.upper()}" if p.required else f"[{p.metavar or p.name.upper()}]"
                for p in arguments
            ]
            usage = " ".join([*path, *words, "[OPTIONS]"])
            parts += [f"## {' '.join(path)}", _paragraph(command.help), f"```text\n{usage}\n```", _parameters(command)]
    return "\n\n".join(part for part in parts if part)


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _parameters(command: Any) -> str:
    """A list of arguments and options, which reads well on a narrow screen too."""
    lines = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        is_option = parameter.param_type_name == "option"
        names = ", ".join([*parameter.opts, *parameter.secondary_opts]) if is_option else parameter.name.upper()
        shown = getattr(parameter, "show_default", None)
        default = shown if isinstance(shown, str) else parameter.default
        about = [f"variable `{parameter.envvar}`"] if parameter.envvar else []
        if default not in (None, "", False) and not callable(default) and not _is_missing(default):
            about.append(f"default `{default}`")
        note = f" ({', '.join(about)})" if about else ""
        lines.append(f"- `{names}`{note}: {_text(getattr(parameter, 'help', '') or '')}")
    return "\n".join(lines)


def _is_missing(value: object) -> bool:
    return type(value).__name__ == "Sentinel" or str(value).startswith("Sentinel")


def configuration_page() -> str:
    """Every setting with its default and its docstring, then the recipes."""
    parts = [
        "# Configuration",
        "Written under a section in a YAML file (`--config FILE.yaml`), or on the command line as "
        "`--set section.key=value`. A recipe holds only what differs from these defaults.",
    ]
    for name, section in Config.model_fields.items():
        kind = section.annotation
        assert kind is not None
        parts += [f"## {name}", _paragraph(kind.__doc__)]
        parts += [
            f"- `{name}.{key}` ({_values(field)}; default {_default(field)})\n\n    {_text(field.description or '')}"
            for key, field in kind.model_fields.items()
        ]
    parts += ["## Named datasets", "\n".join(f"- `{name}`: {text}" for name, text in NAMED.items())]
    parts += ["## Recipes", "`molgen train --config NAME` takes one of these:"]
    parts += [f"### {name}\n\n```yaml\n{text.rstrip()}\n```" for name, text in recipes().items()]
    return "\n\n".join(parts)


def _values(field: FieldInfo) -> str:
    limits = [text for text in map(_limit, field.metadata) if text]
    return ", ".join([_kind(field.annotation), *limits])


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return " / ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    if arguments:
        return f"{origin.__name__} of {' to '.join(_kind(argument) for argument in arguments)}"
    return "null" if annotation is NoneType else str(annotation.__name__)


def _limit(metadata: object) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{sign} {getattr(metadata, key)}" for key, sign in signs.items() if hasattr(metadata, key))


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return ""
    return f"`{json.dumps(field.default, default=str)}`"


def api_page() -> str:
    """The public names with their signatures and docstrings."""
    parts = [
        "# Python",
        "`import molgen` gives these names. They load at first use, so the import itself costs nothing.",
    ]
    for name in molgen.__all__:
        value = getattr(molgen, name)
        if inspect.isclass(value):
            parts += _class(name, value)
        elif callable(value):
            function = getattr(value, name, value)  # `optimize` is a package that can be called
            parts += [f"## {name}", _signature(f"molgen.{name}", function), inspect.getdoc(function) or ""]
    return "\n\n".join([*parts, *_class("OptimizeOptions", OptimizeOptions)])


def _class(name: str, value: type) -> list[str]:
    parts = [f"## {name}", _doctested(inspect.getdoc(value) or "")]
    if not issubclass(value, BaseModel):  # the page on the configuration has its fields
        parts.insert(1, _signature(f"{value.__module__}.{name}", value))
    for member, attribute in vars(value).items():
        function = inspect.unwrap(getattr(attribute, "__func__", attribute))
        if inspect.isfunction(function) and not member.startswith("_") and inspect.getdoc(function):
            parts += [f"### {name}.{member}", _signature(member, function), inspect.getdoc(function) or ""]
    return parts


def _signature(name: str, value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        text = "()"
    text = re.sub(r"(?:\w+\.)+(?=[A-Z])", "", text)  # types without their modules
    one_line = f"{name}{text}"
    if len(one_line) > 100:
        one_line = re.sub(r", (?=\*?\w+(?::|,|\)| =))", ",\n    ", one_line)
    return f"```python\n{one_line}\n```"


def _doctested(text: str) -> str:
    """A docstring whose lines of code are marked as such."""
    return re.sub(r"((?:^\w[\w.]* = .*\n?)+)", lambda m: f"```python\n{m[1].rstrip()}\n```\n", text, flags=re.M)


def _paragraph(text: str | None) -> str:
    return inspect.cleandoc(text or "")


def _text(text: str) -> str:
    """Text of a docstring in Markdown: `<bos>` and its like are no HTML."""
    return re.sub(r"(?<!`)(<\w+>)(?!`)", r"`\1`", " ".join(text.split()))


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values[key] or "" for key in ("id", "name") if key in values}
        if link := values.get("href" if tag in ("a", "link") else "src"):
            self.links.append(link)


def broken_links(site: Path) -> list[str]:
    """`page: link` for each link inside the site that leads nowhere, its anchor included."""
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links are absolute, for any place
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            has_anchor = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            if not target.exists() or not has_anchor:
                broken.append(f"{path.relative_to(site.resolve())}: {link}")
    return broken


if __name__ == "__main__":
    main()
