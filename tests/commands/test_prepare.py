"""Fetching data: the real code, from a server on this machine, with small archives."""

import gzip
import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from picture_files import MNIST_FILES, write_cifar10, write_mnist, write_svhn

from byzshield_exp.commands import prepare as command
from byzshield_exp.datasets import cifar10, fetch, mnist, official, svhn


class Site:
    """A server of files. ``cut`` is after how many bytes it hangs up; ``asked`` what it was."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        self.cut: int | None = None
        self.knows_ranges = self.says_length = True
        self.gate = threading.Event()  # closed: it stops after 4096 bytes
        self.gate.set()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with suppress(ConnectionError):  # the other side has hung up
                    site.answer(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler):
        place = handler.headers.get("Range")
        self.asked.append((handler.path, place))
        path = self.folder / handler.path.lstrip("/")
        if not path.is_file():
            handler.send_error(404)
            return
        content, start = path.read_bytes(), 0
        if place and self.knows_ranges:
            start = int(place.removeprefix("bytes=").removesuffix("-"))
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        if self.says_length:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        rest = content[start:] if self.cut is None else content[start : start + self.cut]
        for at in range(0, len(rest), 4096):
            handler.wfile.write(rest[at : at + 4096])
            handler.wfile.flush()
            self.gate.wait(60)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "served")
    made.folder.mkdir()
    yield made
    made.close()


@pytest.fixture
def prepare(monkeypatch, capsys):
    """``prepare(*arguments) -> (exit code, out, err)``, without pauses."""
    monkeypatch.setattr(fetch, "_PAUSE_S", 0.0)
    monkeypatch.setattr(fetch, "_TIMEOUT_S", 5.0)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments):
        return command.main([str(argument) for argument in arguments]), *capsys.readouterr()

    return call


def described(site, path, name, gives):
    content, unpacked = path.read_bytes(), (path.stat().st_size,)
    if name.endswith(".tar.gz"):
        with suppress(tarfile.TarError), tarfile.open(path) as archive:
            sizes = {member.name: member.size for member in archive if member.isreg()}
        unpacked = tuple(sizes.get(one, 0) for one in gives)
    elif name.endswith(".gz"):
        unpacked = (len(gzip.decompress(content)),)
    sha256 = hashlib.sha256(content).hexdigest()
    return official.Download((f"{site.url}/{name}",), len(content), sha256, gives, unpacked)


def served_cifar10(site, folder, extra=()):
    """An archive as the official one, on the site; its description and what is in it."""
    pictures = write_cifar10(folder, each=10)
    archive = site.folder / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        for member, data in extra:
            if isinstance(data, bytes):
                member.size = len(data)
            content.addfile(member, io.BytesIO(data) if isinstance(data, bytes) else None)
        content.add(folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
    (old,) = official.DOWNLOADS["cifar10"]
    return described(site, archive, archive.name, old.gives), pictures


@pytest.fixture
def cifar(site, tmp_path, monkeypatch):
    download, pictures = served_cifar10(site, tmp_path / "original")
    monkeypatch.setitem(official.DOWNLOADS, "cifar10", (download,))
    return download, pictures


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


CIFAR_FILES = sorted([".prepare.lock", *official.CIFAR10_TRAIN, official.CIFAR10_TEST])


def test_an_archive_is_fetched_checked_and_unpacked(site, prepare, cifar, tmp_path):
    root = tmp_path / "new" / "data"
    code, out, err = prepare("dataset=cifar10", f"dataset.root={root}")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"fetching {site.url}/cifar-10-binary.tar.gz ({fetch.megabytes(cifar[0].size)})",
        f"unpacking {root}/cifar-10-binary.tar.gz: 6 files",
        f"cifar10: done, in {root}",
    ]
    assert files_of(root) == CIFAR_FILES
    data, (train, test) = cifar10(root=str(root)), cifar[1]
    assert np.array_equal(data.train_images.numpy(), train.images)
    assert np.array_equal(data.test_images.numpy(), test.images)
    asked = len(site.asked)
    assert prepare("dataset=cifar10", f"dataset.root={root}") == (
        0, f"cifar10: all is there, in {root}\n", "",
    )  # fmt: skip
    assert len(site.asked) == asked


def test_the_four_files_of_mnist(site, prepare, tmp_path, monkeypatch):
    arrays = write_mnist(site.folder / "there", packed=True)
    downloads = [
        described(site, site.folder / "there" / f"{name}.gz", f"there/{name}.gz", one.gives)
        for name, one in zip(MNIST_FILES, official.DOWNLOADS["mnist"], strict=True)
    ]
    absent = [replace(one, urls=(f"{site.url}/absent/{one.name}", *one.urls)) for one in downloads]
    monkeypatch.setitem(official.DOWNLOADS, "mnist", tuple(absent))
    root = tmp_path / "data"
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    unpacked = raw / "t10k-labels-idx1-ubyte"  # put there by hand
    unpacked.write_bytes(
        gzip.decompress((site.folder / "there" / f"{unpacked.name}.gz").read_bytes())
    )
    code, _, err = prepare("dataset=mnist", f"dataset.root={root}")
    assert (code, err) == (0, "")
    fetched = [f"MNIST/raw/{name}.gz" for name in MNIST_FILES if name != unpacked.name]
    here = sorted([".prepare.lock", f"MNIST/raw/{unpacked.name}", *fetched])
    assert files_of(root) == here
    data = mnist(root=str(root))
    assert data.test_labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    assert np.array_equal(data.train_images[:, 0].numpy(), arrays["train-images-idx3-ubyte"])


def test_svhn_and_its_extra_pictures(site, prepare, tmp_path, monkeypatch):
    write_svhn(tmp_path / "original")
    for path in (tmp_path / "original" / "SVHN").iterdir():
        path.rename(site.folder / path.name)
    parts = [
        described(site, site.folder / one.name, one.name, one.gives)
        for one in (*official.DOWNLOADS["svhn"], official.SVHN_EXTRA)
    ]
    monkeypatch.setitem(official.DOWNLOADS, "svhn", tuple(parts[:2]))
    monkeypatch.setattr(official, "SVHN_EXTRA", parts[2])
    root = tmp_path / "data"
    assert prepare("dataset=svhn", f"dataset.root={root}")[0] == 0
    assert svhn(root=str(root)).num_train == 25
    assert "SVHN/extra_32x32.mat" not in files_of(root)
    assert prepare("dataset=svhn", f"dataset.root={root}", "dataset.extra=true")[0] == 0
    assert svhn(root=str(root), extra=True).num_train == 32
    assert [path for path, _ in site.asked] == [
        "/train_32x32.mat", "/test_32x32.mat", "/extra_32x32.mat",
    ]  # fmt: skip


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_cut_download_goes_on_or_starts_again(
    site, prepare, cifar, tmp_path, monkeypatch, knows_ranges
):
    monkeypatch.setattr(fetch, "_TRIES", 1)
    monkeypatch.setattr(fetch, "_CHUNK", 1000)
    root, size = tmp_path / "data", cifar[0].size
    site.cut, site.knows_ranges = size // 3, knows_ranges
    code, _, err = prepare("dataset=cifar10", f"dataset.root={root}")
    assert code == 1
    assert f"cut after {fetch.megabytes(size // 3)} of {fetch.megabytes(size)}" in err
    assert len(err.splitlines()) == 1
    assert files_of(root) == [".cifar-10-binary.tar.gz.partial", ".prepare.lock"]
    assert (root / ".cifar-10-binary.tar.gz.partial").stat().st_size == size // 3
    with pytest.raises(ValueError, match="has no cifar-10-batches-bin"):
        cifar10(root=str(root))
    site.cut = None
    code, out, err = prepare("dataset=cifar10", f"dataset.root={root}")
    assert (code, err) == (0, "")
    assert (f"from {fetch.megabytes(size // 3)}" in out) == knows_ranges
    assert [place for _, place in site.asked] == [None, f"bytes={size // 3}-"]
    assert files_of(root) == CIFAR_FILES
    assert cifar10(root=str(root)).num_train == 50


def test_a_line_that_breaks_often_needs_no_second_command(site, prepare, cifar, tmp_path):
    site.cut = cifar[0].size // 3 + 1
    assert prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")[0] == 0
    assert len(site.asked) == 3


def test_a_partial_file_that_is_something_else_is_fetched_anew(site, prepare, cifar, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    partial = root / ".cifar-10-binary.tar.gz.partial"
    for content in (b"x" * 1000, b"x" * cifar[0].size, b"x" * (cifar[0].size + 1)):
        partial.write_bytes(content)
        assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
        assert files_of(root) == CIFAR_FILES
        assert site.asked[-1][1] is None
        (root / "cifar-10-batches-bin" / "test_batch.bin").unlink()


def test_a_wrong_checksum_is_refused(site, prepare, cifar, tmp_path):
    path = site.folder / "cifar-10-binary.tar.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    code, _, err = prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")
    assert code == 1
    assert "cifar-10-binary.tar.gz: its checksum (SHA-256) is wrong" in err
    assert len(err.splitlines()) == 1
    assert files_of(tmp_path / "data") == [".prepare.lock"]
    assert len(site.asked) == 1  # it would be as wrong again


@pytest.mark.parametrize("content", [b"<html>log in first</html>", b"x" * 10_000_000])
@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_of_another_size_is_refused(site, prepare, cifar, tmp_path, content, says_length):
    (site.folder / "cifar-10-binary.tar.gz").write_bytes(content)
    site.says_length = says_length
    code, _, err = prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")
    assert code == 1
    if says_length:
        assert f"another file: {len(content)} bytes come instead of {cifar[0].size}" in err
    else:
        assert "cut after 0.0 MB" in err or "checksum (SHA-256) is wrong" in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("data/cifar*"))


def test_a_second_address_is_tried(site, prepare, cifar, tmp_path, monkeypatch):
    (site.folder / "other").mkdir()
    (site.folder / "other" / "cifar-10-binary.tar.gz").write_bytes(b"x" * cifar[0].size)
    urls = [f"{site.url}/{place}cifar-10-binary.tar.gz" for place in ("none/", "other/", "")]
    monkeypatch.setitem(official.DOWNLOADS, "cifar10", (replace(cifar[0], urls=tuple(urls)),))
    assert prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")[0] == 0
    assert len(site.asked) == 3


def test_without_a_server_it_is_one_line(prepare, cifar, tmp_path, monkeypatch):
    closed = replace(cifar[0], urls=("http://127.0.0.1:9/cifar-10-binary.tar.gz",))
    monkeypatch.setitem(official.DOWNLOADS, "cifar10", (closed,))
    code, out, err = prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")
    assert (code, out) == (1, "")
    assert "cifar-10-binary.tar.gz cannot be fetched (http://127.0.0.1:9/" in err
    assert "Connection refused" in err
    assert len(err.splitlines()) == 1


def test_an_archive_that_was_put_there_is_used_and_kept(site, prepare, cifar, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    archive = root / "cifar-10-binary.tar.gz"
    content = (site.folder / archive.name).read_bytes()
    for other, problem in {
        content[:-1]: f"{len(content) - 1} bytes instead of {len(content)}",
        content[:-1] + bytes([content[-1] ^ 1]): "another SHA-256",
    }.items():
        archive.write_bytes(other)
        code, out, err = prepare("dataset=cifar10", f"dataset.root={root}")
        assert (code, out) == (2, "")
        assert f"{archive} is not the official file ({problem}): delete it to have that" in err
        assert len(err.splitlines()) == 1
    archive.write_bytes((site.folder / archive.name).read_bytes())
    assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    assert files_of(root) == sorted([*CIFAR_FILES, archive.name])
    assert site.asked == []


def test_files_that_are_there_are_checked(site, prepare, cifar, tmp_path):
    root = tmp_path / "data"
    assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    path, asked = root / official.CIFAR10_TRAIN[2], len(site.asked)
    path.write_bytes(path.read_bytes()[:3073])
    (root / official.CIFAR10_TEST).unlink()
    code, out, err = prepare("dataset=cifar10", f"dataset.root={root}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"{path} is not the official file (3073 bytes instead of 30730)" in err
    assert len(site.asked) == asked
    path.unlink()
    assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    assert files_of(root) == CIFAR_FILES
    assert cifar10(root=str(root)).num_train == 50


@pytest.mark.parametrize("packed", [True, False])
def test_smaller_files_of_the_right_format_are_not_the_official_ones(prepare, tmp_path, packed):
    """A run reads them; the command says so before it fetches anything."""
    write_mnist(tmp_path / "MNIST" / "raw", packed=packed)
    assert mnist(root=str(tmp_path)).num_train == 12
    code, out, err = prepare("dataset=mnist", f"dataset.root={tmp_path}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    suffix, size = (".gz", 9_912_422) if packed else ("", 47_040_016)
    assert f"train-images-idx3-ubyte{suffix} is not the official file (" in err
    assert f" bytes instead of {size}): delete it to have that one fetched; a run reads" in err


def test_a_file_with_another_checksum_is_not_the_official_one(site, prepare, tmp_path, monkeypatch):
    write_svhn(tmp_path / "original")
    parts = []
    for one in official.DOWNLOADS["svhn"]:
        path = tmp_path / "original" / one.gives[0]
        path.rename(site.folder / path.name)
        parts.append(described(site, site.folder / path.name, path.name, one.gives))
    monkeypatch.setitem(official.DOWNLOADS, "svhn", tuple(parts))
    root = tmp_path / "data"
    for _ in range(2):
        assert prepare("dataset=svhn", f"dataset.root={root}")[0] == 0
    path = root / "SVHN" / "test_32x32.mat"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, out, err = prepare("dataset=svhn", f"dataset.root={root}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"{path} is not the official file (another SHA-256)" in err


def test_unpacking_that_was_cut_goes_on_without_a_download(
    site, prepare, cifar, tmp_path, monkeypatch
):
    root = tmp_path / "data"
    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfileobj", lambda *files: (_ for _ in ()).throw(OSError("full")))
        code, _, err = prepare("dataset=cifar10", f"dataset.root={root}")
    assert code == 1
    assert err.endswith("full\n")
    assert files_of(root) == [".cifar-10-binary.tar.gz.partial", ".prepare.lock"]
    assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    assert len(site.asked) == 1
    assert files_of(root) == CIFAR_FILES


def test_a_home_folder_can_be_given(prepare, cifar, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare("dataset=cifar10", "dataset.root=~/data")[0] == 0
    assert files_of(tmp_path / "data") == CIFAR_FILES


def member(name, **attributes):
    made = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def test_nothing_in_an_archive_leads_out_of_the_folder(site, prepare, tmp_path, monkeypatch):
    target = tmp_path / "outside.txt"
    first = official.CIFAR10_TRAIN[0]
    extra = [
        (member("../outside.txt"), b"evil"),
        (member(str(target)), b"evil"),
        (member("cifar-10-batches-bin/../../outside.txt"), b"evil"),
        (member(first, type=tarfile.SYMTYPE, linkname=str(target)), None),
        (member("cifar-10-batches-bin", type=tarfile.SYMTYPE, linkname=str(tmp_path)), None),
        (member("readme.html"), b"is not needed"),
    ]
    download, (train, _) = served_cifar10(site, tmp_path / "original", extra)
    monkeypatch.setitem(official.DOWNLOADS, "cifar10", (download,))
    root = tmp_path / "data"
    assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    assert files_of(root) == CIFAR_FILES
    assert not target.exists()
    assert not any(path.is_symlink() for path in root.rglob("*"))
    assert np.array_equal(cifar10(root=str(root)).train_images.numpy(), train.images)


def test_an_archive_that_lacks_a_file_is_one_line(site, prepare, tmp_path, monkeypatch):
    archive = site.folder / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        content.addfile(member("cifar-10-batches-bin/other.bin"), None)
    (old,) = official.DOWNLOADS["cifar10"]
    monkeypatch.setitem(
        official.DOWNLOADS, "cifar10", (described(site, archive, archive.name, old.gives),)
    )
    code, _, err = prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")
    assert code == 1
    assert "has no file cifar-10-batches-bin/data_batch_1.bin" in err
    assert len(err.splitlines()) == 1


def started(download, root):
    """The command in a process of its own, with another table."""
    code = (
        "import sys\n"
        "from byzshield_exp.datasets import official\n"
        "from byzshield_exp.commands.prepare import main\n"
        f"official.DOWNLOADS['cifar10'] = (official.Download(*{astuple(download)}),)\n"
        f"sys.exit(main(['dataset=cifar10', 'dataset.root={root}']))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(is_so):
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Here(threading.Thread):
    """The command in this process."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self.arguments = ["dataset=cifar10", f"dataset.root={root}"]
        self.start()

    def run(self):
        self.code = command.main(self.arguments)


def test_a_killed_one_leaves_the_lock_to_who_waits(site, cifar, tmp_path, capsys):
    root = tmp_path / "data"
    site.gate.clear()
    other = started(cifar[0], root)
    try:
        wait_until((root / ".cifar-10-binary.tar.gz.partial").exists)
        here = Here(root)
        told = []
        wait_until(lambda: told.append(capsys.readouterr().out) or "waiting for" in "".join(told))
        time.sleep(0.2)
        assert len(site.asked) == 1
        assert here.is_alive()
    finally:
        other.kill()
        other.communicate()
    site.gate.set()
    here.join(60)
    assert here.code == 0
    assert f"cifar10: done, in {root}" in capsys.readouterr().out
    assert len(site.asked) == 2
    assert files_of(root) == CIFAR_FILES
    assert cifar10(root=str(root)).num_train == 50


def test_who_waited_fetches_nothing(site, cifar, tmp_path):
    root = tmp_path / "data"
    site.gate.clear()
    here = Here(root)
    wait_until((root / ".cifar-10-binary.tar.gz.partial").exists)
    other = started(cifar[0], root)
    try:
        assert "waiting for another process" in other.stdout.readline()
        assert here.is_alive()
        site.gate.set()
        here.join(60)
        out, err = other.communicate(timeout=60)
    finally:
        other.kill()
        other.communicate()
    assert (here.code, other.returncode, err) == (0, 0, "")
    assert out == f"cifar10: done, in {root}\n"
    assert len(site.asked) == 1
    assert files_of(root) == CIFAR_FILES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset"], "dataset: arguments are key=value"),
        (["dataset="], "dataset=: arguments are key=value"),
        (["dataset.root=a"], "dataset is not given, there are mnist, fashion_mnist, cifar10"),
        (["datset=mnist"], "unknown key datset, there are dataset, dataset.root, dataset.extra"),
        (["dataset=cifar1"], "dataset=cifar1 is none that is fetched, there are mnist"),
        (["dataset=cifar1"], "did you mean 'cifar10'?"),
        (["dataset=digits"], "dataset=digits is none that is fetched"),
        (["dataset=mnist", "dataset=svhn"], "dataset=svhn: dataset is given twice"),
        (["dataset=svhn", "dataset.extra=yes"], "dataset.extra=yes must be one of true, false"),
        (["dataset=mnist", "dataset.extra=true"], "dataset.extra=true: only dataset=svhn has it"),
        (["dataset=cifar10", "dataset.root={file}/a"], "file/a cannot be written"),
    ],
)
def test_bad_input_is_one_line(prepare, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    code, out, err = prepare(*[one.format(file=tmp_path / "file") for one in arguments])
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert err.startswith("byzshield_exp: ")


def test_without_arguments_it_says_how(prepare):
    for arguments in ((), ("--help",)):
        code, out, _ = prepare(*arguments)
        assert code == 0
        for key in ("dataset", "dataset.root", "dataset.extra"):
            assert f"\n    {key} " in out


def test_a_run_downloads_nothing_and_names_the_command(cli, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.create_connection", refuse)
    for dataset in official.DOWNLOADS:
        code, out, err = cli(f"dataset={dataset}", f"dataset.root={tmp_path}/none", "q=0")
        assert (code, out) == (2, "")
        command_line = f"byzshield prepare dataset={dataset} dataset.root={tmp_path}"
        assert command_line in err
        assert len(err.splitlines()) == 1


def test_the_table_of_official_files_is_whole():
    downloads = [one for files in official.DOWNLOADS.values() for one in files]
    for one in (*downloads, official.SVHN_EXTRA):
        assert len(bytes.fromhex(one.sha256)) == 32
        assert one.size > 1000
        assert {url.rpartition("/")[2] for url in one.urls} == {one.name}
        assert one.is_archive == (len(one.gives) > 1)
        assert all(not Path(path).is_absolute() and ".." not in path for path in one.gives)
        assert one.is_archive or one.gives[0].endswith(f"/{one.name}")
        assert len(one.unpacked) == len(one.gives)
    assert len({one.sha256 for one in downloads}) == len(downloads) == 12
