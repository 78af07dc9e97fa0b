"""Named datasets are fetched whole or not at all, and used only as they were published, or with a word about it."""

import gzip
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SHARED, Cli

TABLE = gzip.compress(b"mol_id,smiles\n" + b"".join(b"TOX%d,CCO\n" % i for i in range(2_000)), mtime=0)
Serve = Callable[[bytes, int], None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A server on this machine in DeepChem's place, that promises so many bytes and sends these."""
    answer: dict[str, object] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(answer["promised"]))
            self.end_headers()
            self.wfile.write(answer["content"])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr("molgen.data.download.TOX21_URL", f"http://127.0.0.1:{server.server_port}/tox21.csv.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def set_answer(content: bytes, promised: int) -> None:
        answer.update(content=content, promised=promised)

    yield set_answer
    server.shutdown()
    server.server_close()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_download_that_is_cut_short_is_refused_and_leaves_nothing(cli: Cli, serve: Serve, data: Path) -> None:
    for content, promised in (
        (TABLE[:500], len(TABLE)),  # the connection ends
        (TABLE[:500], 500),  # the server has only a part
        (b"<html>log in first</html>", 25),
        (TABLE[:-1] + b"\1", len(TABLE)),
        (b"", 0),
    ):
        serve(content, promised)
        done = cli("data", "get", "tox21")
        assert (done.code, done.out) == (2, "")
        assert "tox21 cannot be fetched" in done.err
        assert "Traceback" not in done.err
        assert not list(data.rglob("*tox21*"))


def test_a_whole_download_takes_its_name_and_another_table_is_said_to_be_one(
    cli: Cli, serve: Serve, data: Path
) -> None:
    serve(TABLE, len(TABLE))
    done = cli("data", "get", "tox21")
    assert done.code == 0, done.err
    assert [path.name for path in data.iterdir()] == ["tox21.csv.gz"]
    assert (data / "tox21.csv.gz").read_bytes() == TABLE
    assert done.err.count("another table than DeepChem's") == 1


def test_a_table_cut_short_by_an_earlier_version_is_refused_with_what_to_do(cli: Cli, data: Path) -> None:
    data.mkdir()
    (data / "tox21.csv.gz").write_bytes(TABLE[:1_000])
    for command in (("data", "get", "tox21"), ("data", "clean", "tox21", "-o", "x.smi")):
        done = cli(*command)
        assert done.code == 2
        assert "tox21.csv.gz: damaged or cut short" in done.err
        assert "delete it, and `molgen data get tox21`" in done.err


@pytest.mark.parametrize("name", ["tox21.csv", "tox21.csv.gz"])
def test_deepchems_table_is_known_however_it_is_compressed(cli: Cli, data: Path, name: str) -> None:
    source = SHARED / "data" / "tox21.csv.gz"
    if not source.exists():
        pytest.skip("needs tox21.csv.gz in ../shared/data")
    data.mkdir()
    content = gzip.decompress(source.read_bytes())
    (data / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    done = cli("data", "get", "tox21")
    assert (done.code, done.err) == (0, "")


def test_files_of_moses_that_are_not_as_published_are_refused(cli: Cli, data: Path, moses_files: Path) -> None:
    (data / "moses").mkdir(parents=True)
    for file in moses_files.iterdir():
        (data / "moses" / file.name).symlink_to(file)
    assert cli("data", "get", "moses").code == 0
    changed = data / "moses" / "test.csv.gz"
    changed.unlink()
    lines = gzip.decompress((moses_files / "test.csv.gz").read_bytes()).splitlines(keepends=True)
    changed.write_bytes(gzip.compress(b"".join(lines[:-1])))
    Path("x.smi").write_text("CCO\n")
    for command in (("data", "get", "moses"), ("eval", "x.smi", "--reference", "moses")):
        done = cli(*command)
        assert done.code == 2
        assert "test.csv.gz: not the file that MOSES publishes" in done.err
