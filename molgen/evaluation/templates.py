"""The Jinja environment of molgen's pages: every string is escaped, an undefined name is an error."""

from importlib import resources

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from molgen.evaluation.charts import anchor

_LONGEST = 400


def environment(*packages: str) -> Environment:
    """Templates of these packages, the first that has one of a name."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package, "") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"text": text, "percent": percent, "anchor": anchor}
    return made


def text(string: str) -> str:
    """A string from data, to be escaped: cut when very long, what cannot be seen written out."""
    cut = string if len(string) <= _LONGEST else f"{string[:_LONGEST]}… ({len(string):,} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def percent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def asset(name: str) -> str:
    """The text of a style sheet or script of the pages."""
    return resources.files("molgen.evaluation").joinpath(name).read_text(encoding="utf-8")
