"""The page of `molgen eval --report`: what it says, what it must never do, and how it behaves in a real browser."""

import base64
import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMEDRIVER, CHROMIUM, Browser, browser
from conftest import SHARED
from conftest import evaluate_with as evaluate

from molgen.chem.pool import Workers
from molgen.chem.smiles import canonical
from molgen.evaluation.evaluate import Evaluation
from molgen.evaluation.report import page, write_report
from molgen.machine import Runtime
from molgen.metrics.metric import MetricValues
from molgen.metrics.moses import PUBLISHED
from molgen.metrics.references import ReferenceCache, ReferenceSet
from molgen.runs import LOG_COLUMNS, Run

# Each of these is a failure of another cause; the last one hides a character that cannot be seen.
BROKEN = ["c1ccccc", "c1cccc1C", "CC(C)(C)(C)C", "", "CC<script>alert(1)</script>", "CCé", "CC\u200bO"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, pool: Workers) -> ReferenceCache:
    return ReferenceCache(Runtime("cpu", workers=pool), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def generated(moses_mini: list[str], library: ReferenceCache) -> Evaluation:
    """300 samples of a small model, some of them broken, and one that training has."""
    path = SHARED / "oracle" / "generated_1060.smi"
    drawn = path.read_text().splitlines() if path.exists() else [s[:-1] for s in moses_mini[1000:1300]]
    samples = [*BROKEN, *drawn[:290], moses_mini[0], moses_mini[0], "C1CC1.[Na+].[Cl-]"]
    return evaluate(
        samples,
        metrics=("basic", "chem"),
        training=moses_mini[:400],
        held_out=moses_mini[500:700],
        name="runs/<b>generated.smi",
        references=library,
    )


@pytest.fixture(scope="module")
def of_run(moses_mini: list[str], library: ReferenceCache, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Samples with what a run has besides: likelihoods and a log."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    (folder / "config.yaml").touch()
    run = Run(folder)
    epochs = range(1, 13)
    run.write_log(
        {
            **dict.fromkeys(LOG_COLUMNS, 0.0),
            "epoch": i,
            "train_nll": 20 + 30 / i,
            "val_nll": 22 + 20 / i,
            "val_top1": 0.8 - 0.3 / i,
        }
        for i in epochs
    )
    evaluation = evaluate(
        moses_mini[700:800] + moses_mini[1000:1030],
        metrics=("basic", "chem"),
        training=moses_mini[600:1010],
        held_out=moses_mini[500:700],
        name=str(folder),
        references=library,
    )
    random = np.random.default_rng(0)
    nll = {name: random.gamma(9, scale, 500) for name, scale in (("test", 2.7), ("training", 2.5), ("samples", 2.8))}
    return replace(evaluation, run=run, nll=nll)


@pytest.fixture(scope="module")
def html(generated: Evaluation) -> str:
    return page([generated])


class Parsed(HTMLParser):
    """Tags with their attributes, and the rows of each table by its caption."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._text: list[str] = []
        self._caption = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr" and self._caption:
            self.tables[self._caption].append([])
        if tag in ("th", "td", "caption"):
            self._text = []

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        text = " ".join("".join(self._text).split())
        if tag == "caption":
            self._caption = text
            self.tables[text] = []
        elif tag in ("th", "td") and self._caption:
            self.tables[self._caption][-1].append(text)
        elif tag == "table":
            self._caption = ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def visible(html: str) -> str:
    """The text without tags, its spaces made single."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


# ---- the file


def test_the_page_asks_the_network_for_nothing(html: str) -> None:
    assert not re.search(r"https?://|@import|url\(", html)
    parsed = Parsed(html)
    assert not any("src" in attributes or "srcset" in attributes for _, attributes in parsed.tags)
    assert [link["href"] for link in parsed.all("link")] == ["data:,"]
    assert all(str(a["href"]).startswith("#") for a in parsed.all("a"))


def test_the_policy_allows_this_script_only(html: str) -> None:
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = next(m["content"] for m in Parsed(html).all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}';" in policy


def test_strings_from_data_stay_text(generated: Evaluation) -> None:
    evil = '"><img src=x onerror=alert(1)>'
    evaluation = replace(generated, name=evil, notes=[evil], figures=MetricValues({"novelty": None}, {"novelty": evil}))
    parsed = Parsed(page([evaluation, evaluation]))
    assert not parsed.all("img")
    assert not parsed.all("b") or all(str(b.get("class")).startswith("chip") for b in parsed.all("b"))
    assert len(parsed.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_a_failed_sample_with_markup_is_shown_as_it_is(html: str) -> None:
    assert "<code>CC&lt;script&gt;alert(1)&lt;/script&gt;</code>" in html


def test_what_cannot_be_seen_is_written_out_and_what_is_very_long_is_cut(library: ReferenceCache) -> None:
    html = page([evaluate(["CC\u200bO", "C\x00", "(" * 9000], references=library)])
    assert "<code>CC\\u200bO</code>" in html
    assert "<code>C\\x00</code>" in html
    assert "… (9,000 characters)" in html
    assert "\x00" not in html
    assert "(" * 500 not in html


def test_every_string_from_data_is_escaped_cut_and_made_visible(generated: Evaluation) -> None:
    evil = '<img src=x>&"\x00\u202e' + "y" * 600
    chemistry = generated.findings.chemistry
    shares = {evil: {f"{evil}:{evil}": 0.5}}
    evaluation = replace(
        generated,
        name=evil,
        notes=[evil],
        figures=MetricValues({"validity": 0.5, "novelty": None}, {"novelty": evil}),
        samples=[evil] * len(generated.samples),
        training=ReferenceSet.of(evil, ["C"]),
        findings=replace(
            generated.findings,
            baselines={evil: MetricValues({"validity": 0.1})},
            chemistry={
                "samples": chemistry["samples"]._replace(shares=shares, new_rings=Counter({evil: 3})),
                "training": chemistry["training"]._replace(shares={}),
            },
        ),
    )
    for html in (page([evaluation]), page([evaluation, evaluation])):
        assert html.count("… (") > 10
        assert not re.search("y{401}", html)
        assert all(c.isprintable() or c in "\n\N{NO-BREAK SPACE}" for c in html)
        assert not Parsed(html).all("img")
        assert "&amp;amp;" not in html


def test_no_template_is_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("report.html.jinja", "report_parts.html.jinja", "report.css", "report.js"):
        (tmp_path / name).write_text("foreign")
    monkeypatch.chdir(tmp_path)
    html = page([Evaluation("x", MetricValues())])
    assert "<h1>x</h1>" in html
    assert "foreign" not in html


def test_what_the_page_is_made_of_is_installed_with_the_package() -> None:
    root = Path(__file__).parents[1]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = {path.name for path in (root / "molgen" / "evaluation").iterdir() if path.is_file()}
    assets = {name for name in files if not name.endswith(".py")}
    assert {"report.html.jinja", "report.css"} <= assets
    assert all(any(fnmatch(name, pattern) for pattern in patterns["molgen.evaluation"]) for name in assets)


def test_the_file_is_replaced_as_a_whole(generated: Evaluation, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    write_report([generated], target)
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert target.stat().st_size < 1_500_000
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# ---- what it says


def test_failures_are_counted_by_cause_with_their_share_of_all_samples(generated: Evaluation, html: str) -> None:
    assert generated.profile is not None
    counts = Counter(generated.profile.failures.values())
    assert counts.keys() >= {"syntax", "kekulisation", "valence", "empty", "not ASCII"}
    text = visible(html.split('id="failures"')[1].split("<section")[0])
    assert f"{sum(counts.values())} of 300 samples" in text
    for cause, count in counts.items():
        assert re.search(rf"{cause} .*? {count} {count / 3:.1f} %", text), cause


def test_at_most_eight_distinct_examples_of_a_cause_are_shown(library: ReferenceCache) -> None:
    html = page([evaluate([*["C("] * 3, *(f"C({'C' * i}" for i in range(1, 20))], references=library)])
    assert re.findall(r"<li><code>(.*?)</code></li>", html) == ["C("] + [f"C({'C' * i}" for i in range(1, 8)]


def test_a_histogram_has_the_shares_that_a_hand_counts() -> None:
    evaluation = Evaluation("x", MetricValues())
    evaluation.findings.nearest = {
        "samples": np.array([0.11, 0.12, 0.51, 1.0], np.float32),
        "held-out": np.array([0.51, 0.51, 0.12, 0.3, 0.3], np.float32),
    }
    head, *rows = Parsed(page([evaluation])).tables["Similarity: share of molecules, %"]
    assert head[1:] == ["held-out", "samples"]
    assert len(rows) == 40
    filled = {row[0]: row[1:] for row in rows if row[1:] != ["0.0 %", "0.0 %"]}
    assert filled == {
        "0.1 to 0.125": ["20.0 %", "50.0 %"],
        "0.3 to 0.325": ["40.0 %", "0.0 %"],
        "0.5 to 0.525": ["40.0 %", "25.0 %"],
        "0.975 to 1": ["0.0 %", "25.0 %"],
    }


def test_each_property_is_compared_with_training_and_held_out_molecules(generated: Evaluation, html: str) -> None:
    tables = Parsed(html).tables
    for name, values in zip(("logP", "SA", "QED", "weight"), generated.findings.properties["samples"].T, strict=True):
        head, *rows = tables[f"{name}: share of molecules, %"]
        assert head[1:] == ["training", "test", "samples"]
        for column in (1, 2, 3):
            assert sum(float(row[column].split()[0]) for row in rows) == pytest.approx(100, abs=2.1)
        assert f"samples {np.median(values):.3g}" in html


def test_headline_figures_stand_beside_their_floor_or_their_reason(generated: Evaluation, html: str) -> None:
    head = visible(html.split("<header>")[1].split("</header>")[0])
    validity = generated.figures.values["validity"]
    assert re.search(rf"validity .*? {validity:.3f}", head)
    assert "no training set: name it with --train" in visible(page([Evaluation("x", _without_training())]))


def test_baselines_explain_themselves_and_biased_fcd_has_its_star() -> None:
    evaluation = Evaluation("x", MetricValues({"n_samples": 100, "n_valid": 90, "validity": 0.9, "FCD/Test": 3.2}))
    for name in ("floor", "copy", "add-carbon"):
        evaluation.findings.baseline(name).values |= {"n_valid": 90, "FCD/Test": 2.5}
    html = page([evaluation])
    assert all(f"<dt>{name}</dt>" in html for name in ("floor", "copy", "add-carbon"))
    assert "<dt>held-out</dt>" not in html
    assert "3.200<sup>*</sup>" in html
    assert "biased upwards" in html
    assert "floor 2.500*" in html


def test_published_rows_stand_beside_as_many_samples_only() -> None:
    few = Evaluation("x", MetricValues({"n_samples": 10_000, "n_valid": 10_000, "FCD/Test": 0.3}))
    many = Evaluation("x", MetricValues({"n_samples": 30_000, "n_valid": 30_000, "FCD/Test": 0.3}))
    assert all(name.split()[0] not in page([few]) for name in PUBLISHED)
    assert all(name.split()[0] in page([many]) for name in PUBLISHED)


def test_new_ring_systems_are_drawn_the_most_frequent_first(generated: Evaluation) -> None:
    chemistry = generated.findings.chemistry["samples"]
    # the first is no SMILES at all, the second a part of a molecule that is none itself
    rings = Counter({"c1ccc<1": 1, "c1cccn1": 2, "C1CCC1": 3})
    findings = replace(generated.findings, chemistry={"samples": chemistry._replace(new_rings=rings)})
    html = page([replace(generated, findings=findings)])
    part = html.split('id="new-ring-systems"')[1].split("<section")[0]
    assert re.findall(r"<strong>(\d)</strong> molecules?</p><code>(.*?)</code>", part) == [
        ("3", "C1CCC1"),
        ("2", "c1cccn1"),
        ("1", "c1ccc&lt;1"),
    ]
    assert part.count("<svg") == 2
    assert "not drawn" in part


def test_the_grid_has_distinct_valid_samples_in_their_order(generated: Evaluation, html: str) -> None:
    expected = list(dict.fromkeys(c for c in map(canonical, generated.samples) if c is not None))[:120]
    cards = [row for row in Parsed(html).all("tr") if "data-smiles" in row]
    assert [card["data-smiles"] for card in cards] == expected
    for card in cards[:5]:
        smiles, similarity = generated.neighbours[str(card["data-smiles"])]
        assert float(str(card["data-similarity"])) == pytest.approx(similarity, abs=1e-4)
        assert f"<code>{smiles}</code>" in html


def test_a_very_large_molecule_is_named_and_not_drawn(library: ReferenceCache) -> None:
    html = page([evaluate(["C" * 151, "C" * 150], references=library)])
    drawings = re.findall(r'class="molecule"><(?:p|svg) class="(\w+)"', html)
    assert drawings == ["undrawn", "mol"]
    assert f"<code>{'C' * 151}</code>" in html


def test_a_sample_that_training_has_is_not_novel(moses_mini: list[str], library: ReferenceCache) -> None:
    known, new = canonical(moses_mini[0]), "CCOC(=O)CCCc1ccccc1"
    html = page([evaluate([str(known), new], metrics=("chem",), training=moses_mini[:50], references=library)])
    cards = {row["data-smiles"]: row for row in Parsed(html).all("tr") if "data-smiles" in row}
    assert "data-novel" not in cards[known]
    assert "data-novel" in cards[new]
    assert html.count("In the training set.") == 1


def test_curves_and_likelihoods_are_those_of_the_run(of_run: Evaluation) -> None:
    assert of_run.run is not None
    tables = Parsed(page([of_run])).tables
    log = of_run.run.log()
    assert tables["NLL: nats per molecule"][1:] == [
        [f"epoch {row['epoch']:g}", f"{row['train_nll']:.4g}", f"{row['val_nll']:.4g}"] for row in log
    ]
    assert len(tables["top-1: share of tokens"]) == 1 + len(log)
    assert tables["NLL: share of molecules, %"][0][1:] == ["training", "test", "samples"]


def test_several_evaluations_share_references_and_bear_letters(generated: Evaluation, of_run: Evaluation) -> None:
    html = page([generated, of_run, generated])
    parsed = Parsed(html)
    head = parsed.tables["logP: share of molecules, %"][0]
    assert head[1:] == ["training of A", "test", "A samples", "B samples", "C samples"]
    figures = parsed.tables["Figures of the samples and of what they are compared with"][0]
    assert [title[:7] for title in figures if "floor" in title] == ["A C flo", "B floor"]
    assert "3 evaluations side by side" in html
    assert len({card["data-set"] for card in parsed.all("tr") if "data-set" in card}) == 3


def test_nothing_known_is_a_page_without_parts() -> None:
    html = page([Evaluation("empty", MetricValues())])
    assert "<h1>empty</h1>" in html
    assert all(part not in html for part in ('id="properties"', 'id="failures"', 'id="molecules"'))


def test_samples_of_which_none_is_valid_make_a_page(library: ReferenceCache) -> None:
    html = page([evaluate(["C(", ""], metrics=("basic", "chem"), references=library)])
    assert "2 of 2 samples" in html
    assert 'id="molecules"' not in html


def _without_training() -> MetricValues:
    figures = MetricValues({"validity": 0.5})
    figures.missing("novelty", "no training set: name it with --train")
    return figures


# ---- in a browser


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("needs chromium and chromedriver on the PATH")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, generated: Evaluation, of_run: Evaluation) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    write_report([generated], folder / "one.html")
    write_report([of_run, generated], folder / "two.html")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def opened(window: Browser, files: dict[str, Path]) -> Browser:
    window.look(1600)
    window.open(files["one"])
    return window


def shown(window: Browser, key: str) -> list[float]:
    """A value of the cards that can be seen, in the order in which they are seen."""
    script = (
        "const place = row => [row.getBoundingClientRect().y, row.getBoundingClientRect().x];"
        "return [...document.querySelectorAll('.cards tbody tr')].filter(row => row.offsetParent)"
        f".map(row => [...place(row), row.dataset.{key}]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(row => row[2])"
    )
    return [float(value) for value in window.run(script)]


def press(window: Browser, selector: str) -> None:
    window.run(f"document.querySelector(`{selector}`).click()")


def status(window: Browser) -> str:
    return str(window.run("return document.querySelector('[role=status]').textContent"))


def fill(window: Browser, selector: str, value: str) -> None:
    window.run(
        f"const field = document.querySelector('{selector}'); field.value = '{value}';"
        "field.dispatchEvent(new Event('input', {bubbles: true}))"
    )


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("width", [380, 1600])
def test_the_page_is_quiet_and_never_wider_than_the_window(
    window: Browser, files: dict[str, Path], name: str, width: int
) -> None:
    window.log()
    window.look(width)
    window.open(files[name])
    assert window.run("return document.documentElement.scrollWidth") <= width
    assert window.log() == []


def test_a_foreign_script_is_refused(opened: Browser) -> None:
    opened.log()
    opened.run(
        "const s = document.createElement('script'); s.textContent = 'window.foreign = 1'; document.body.append(s)"
    )
    assert opened.run("return window.foreign === undefined")
    assert any("Content Security Policy" in message for message in opened.log())


def test_sorting_orders_the_cards_and_says_so(opened: Browser) -> None:
    before = shown(opened, "order")
    assert before == sorted(before)
    press(opened, "th[data-key=qed] button")
    values = shown(opened, "qed")
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 50
    sorts = "return [...document.querySelectorAll('.cards [aria-sort]')].map(th => th.dataset.key + ' ' + th.ariaSort)"
    assert [s for s in opened.run(sorts) if not s.endswith("none")] == ["qed descending"]
    assert status(opened).endswith("by QED, descending")
    press(opened, "th[data-key=qed] button")
    assert shown(opened, "qed") == sorted(values)
    assert status(opened).endswith("by QED, ascending")


def test_a_key_press_sorts(opened: Browser) -> None:
    opened.run("document.querySelector('th[data-key=similarity] button').focus()")
    for kind in ("keyDown", "keyUp"):
        opened.devtools("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")
    values = shown(opened, "similarity")
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_filters_hide_cards_and_tell_how_many_are_left(opened: Browser) -> None:
    every = len(shown(opened, "order"))
    assert status(opened) == f"Showing {every} of {every} molecules, by drawing order"
    smiles = opened.run("return [...document.querySelectorAll('[data-smiles]')].map(row => row.dataset.smiles)")
    fill(opened, "#contains", "C(=O)N")
    left = sum("C(=O)N" in s for s in smiles)
    assert 0 < left < every
    assert len(shown(opened, "order")) == left
    assert status(opened).startswith(f"Showing {left} of {every} ")
    fill(opened, "#contains", "")
    fill(opened, "#least-qed", "0.8")
    values = shown(opened, "qed")
    assert 0 < len(values) < every
    assert min(values) >= 0.8
    fill(opened, "#contains", "no such SMILES")
    assert status(opened).startswith("Showing 0 of ")


def test_only_novel_molecules_and_those_of_one_set_can_be_asked_for(window: Browser, files: dict[str, Path]) -> None:
    window.open(files["two"])
    every = len(shown(window, "order"))
    fill(window, "#of-set", "B")
    of_b = len(shown(window, "order"))
    press(window, "#only-novel")
    novel = len(shown(window, "order"))
    assert novel < of_b < every or novel == of_b < every
    seen = window.run(
        "return [...document.querySelectorAll('.cards tbody tr')].filter(row => row.offsetParent)"
        ".every(row => row.dataset.set === 'B' && 'novel' in row.dataset)"
    )
    assert seen


def test_the_values_under_the_pointer_are_those_of_the_table(opened: Browser) -> None:
    said, row = opened.run(
        "const plot = document.querySelector('.plot'), svg = plot.querySelector('svg');"
        "const box = svg.getBoundingClientRect();"
        "svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.right - 1, clientY: box.top + 9}));"
        "const cells = [...plot.querySelector('tbody tr:last-child').cells].map(cell => cell.textContent);"
        "return [plot.querySelector('.readout').textContent, cells]"
    )
    assert said == f"{row[0]}: training {row[1]}, test {row[2]}, samples {row[3]}"


def test_a_smiles_is_copied_or_at_least_selected(opened: Browser) -> None:
    press(opened, ".copy")
    said = opened.run(
        "await new Promise(done => setTimeout(done, 200)); return document.querySelector('.copy').textContent"
    )
    assert said in ("Copied", "Selected")


CONTRASTS = """
const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
const channels = colour => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = rgb => {
  const [r, g, b] = rgb.map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const [r, g, b, a] = channels(getComputedStyle(e).backgroundColor);
    if (a === 255) return [r, g, b];
  }
  return [255, 255, 255];
};
const results = {};
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.matches('script, title, desc, .hidden')) continue;
  const style = getComputedStyle(element);
  const ink = light(channels(element.closest('svg') ? style.fill : style.color).slice(0, 3));
  const paper = light(behind(element));
  const contrast = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  const name = element.tagName + '.' + (element.getAttribute('class') ?? '');
  results[name] = Math.min(results[name] ?? 99, contrast);
}
return {paper: light(behind(document.body)), results};
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_contrast_in_both_themes(window: Browser, files: dict[str, Path], dark: bool) -> None:
    window.look(1600, dark)
    window.open(files["two"])
    measured = window.run(CONTRASTS)
    assert (measured["paper"] < 0.05) if dark else (measured["paper"] > 0.9)
    assert len(measured["results"]) > 30
    assert {name: ratio for name, ratio in measured["results"].items() if ratio < 4.5} == {}


def test_every_picture_control_table_and_heading_has_its_name_and_place(
    window: Browser, files: dict[str, Path]
) -> None:
    window.open(files["two"])
    found = window.run("""
const all = selector => [...document.querySelectorAll(selector)];
const text = id => document.getElementById(id)?.textContent.trim();
const list = (e, name) => (e.getAttribute(name) ?? '').split(' ').filter(Boolean);
const named = e => e.getAttribute('aria-label') || list(e, 'aria-labelledby').map(text).join('');
const ids = all('[id]').map(e => e.id);
return {
  pictures: all('svg[role=img]').length,
  unnamed: all('svg[role=img], [role=region], nav, section').filter(e => !named(e)).map(e => e.outerHTML.slice(0, 80)),
  silent: all('svg:not([role=img]):not([aria-hidden=true])').length,
  charts: all('.plot svg').filter(s => !s.querySelector('title') || !s.querySelector('desc')).length,
  unlabelled: all('input, select').filter(e => !e.labels.length).map(e => e.id),
  mute: all('button').filter(e => !(e.ariaLabel || e.textContent.trim())).length,
  uncaptioned: all('table').filter(t => !t.caption?.textContent).length,
  unscoped: all('th').filter(th => !th.scope).length,
  broken: all('[aria-labelledby], [aria-describedby]').flatMap(
    e => [...list(e, 'aria-labelledby'), ...list(e, 'aria-describedby')]
  ).filter(id => !text(id)),
  repeated: ids.filter((id, i) => ids.indexOf(id) !== i),
  headings: all('h1, h2, h3, h4').map(h => Number(h.tagName[1])),
  landmarks: ['header', 'nav', 'main', 'footer'].map(name => all(`body ${name}`).length),
  links: all('a').filter(a => !document.querySelector(a.getAttribute('href'))).length,
  language: document.documentElement.lang, title: document.title,
};""")
    headings: Sequence[int] = found.pop("headings")
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(headings))
    assert found.pop("pictures") > 100
    assert found.pop("landmarks") == [1, 1, 1, 1]
    assert found.pop("language") == "en"
    assert "small" in found.pop("title")
    assert {name: value for name, value in found.items() if value} == {}


def test_a_reader_who_wants_no_motion_gets_none_and_paper_has_no_controls(opened: Browser) -> None:
    scroll = "return getComputedStyle(document.documentElement).scrollBehavior"
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    opened.devtools("Emulation.setEmulatedMedia", features=features)
    assert opened.run(scroll) == "auto"
    assert opened.run("return document.getAnimations().length") == 0
    opened.devtools("Emulation.setEmulatedMedia", media="print", features=[])
    seen = "return ['.tools', 'nav', '.copy', '.cards thead'].filter(s => document.querySelector(s).checkVisibility())"
    assert opened.run(seen) == []
    assert opened.run("return document.querySelector('.cards tbody tr').checkVisibility()")
    opened.devtools("Emulation.setEmulatedMedia", media="", features=[])


def test_without_the_script_all_molecules_show_and_nothing_is_dead(html: str) -> None:
    assert '<div class="tools" hidden>' in html
    assert '<thead role="rowgroup" hidden>' in html
    parsed = Parsed(html)
    assert all("hidden" in b for b in parsed.all("button") if b.get("class") == "copy")
    assert not any("hidden" in row for row in parsed.all("tr"))
