"""Fetching data: torchvision's code, from a server on this machine, with small archives."""

import gzip
import hashlib
import http.server
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from picture_files import MNIST_FILES, accept, write_cifar10, write_mnist, write_svhn
from torchvision.datasets import CIFAR10, MNIST, SVHN

from byzshield_exp.commands import prepare as command
from byzshield_exp.datasets import cifar10, mnist, official, svhn
from byzshield_exp.datasets import prepare as preparing


class Site:
    """A server of files. ``cut`` is after how many bytes it hangs up; ``asked`` what it was."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        self.cut: int | None = None
        self.meanwhile = lambda: None  # is called while a file comes
        self.is_silent = threading.Event()
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
        path = self.folder / handler.path.lstrip("/")
        is_probe = handler.headers.get("Method") == "HEAD"  # torchvision looks for redirections
        if not is_probe:
            self.asked.append(handler.path)
        if not path.is_file():
            handler.send_error(404)
            return
        content = b"" if is_probe else path.read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if not is_probe:
            self.meanwhile()
        handler.wfile.write(content[: self.cut])

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Site(tmp_path / "served")
    made.folder.mkdir()
    yield made
    made.close()


@pytest.fixture
def prepare(capsys):
    """``prepare(*arguments) -> (exit code, out, err)``."""

    def call(*arguments):
        return command.main([str(argument) for argument in arguments]), *capsys.readouterr()

    return call


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(site, tmp_path, monkeypatch):
    """An archive like the official one, on the site; what is in it."""
    original = tmp_path / "original"
    pictures = write_cifar10(original, each=10)
    accept(monkeypatch, original)
    archive = site.folder / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as content:
        content.add(original / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "url", f"{site.url}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    return pictures


@pytest.fixture
def packed_mnist(site, monkeypatch):
    """Its four files on the site, behind an address that is closed; small ones are official."""
    arrays = write_mnist(site.folder / "there", packed=True)
    files = [(f"{name}.gz", md5(site.folder / "there" / f"{name}.gz")) for name in MNIST_FILES]
    monkeypatch.setattr(MNIST, "resources", files)
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", f"{site.url}/there/"])
    small = official.Official("MNIST", 12, 5, (1, 28, 28), 10)
    monkeypatch.setitem(official.OFFICIAL, "mnist", small)
    return arrays


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


CIFAR_FILES = sorted(
    [
        ".prepare.lock", CIFAR10.filename, "cifar-10-batches-py/batches.meta",
        *(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)),
        "cifar-10-batches-py/test_batch",
    ]
)  # fmt: skip


def test_an_archive_is_fetched_checked_and_unpacked(site, prepare, cifar, tmp_path):
    root = tmp_path / "new" / "data"
    code, out, err = prepare("dataset=cifar10", f"dataset.root={root}")
    assert (code, err) == (0, "")
    assert out == f"fetching cifar10 into {root}\ncifar10: done, in {root}\n"
    assert files_of(root) == CIFAR_FILES
    data, (train, test) = cifar10(root=str(root)), cifar
    assert np.array_equal(data.train_images.numpy(), train.images)
    assert np.array_equal(data.test_images.numpy(), test.images)


def test_what_is_there_is_not_fetched_again_and_may_be_read_only(
    site, prepare, cifar, tmp_path, monkeypatch
):
    def lock(file, how):
        raise OSError("read only")

    monkeypatch.setattr("fcntl.lockf", lock)
    root = tmp_path / "original"
    assert prepare("dataset=cifar10", f"dataset.root={root}") == (
        0, f"cifar10: all is there, in {root}\n", "",
    )  # fmt: skip
    assert ".prepare.lock" not in files_of(root)
    assert site.asked == []


def test_the_four_files_of_mnist_from_the_second_address(site, prepare, packed_mnist, tmp_path):
    root = tmp_path / "data"
    code, _, err = prepare("dataset=mnist", f"dataset.root={root}")
    assert (code, err) == (0, "")
    data = mnist(root=str(root))
    assert data.test_labels.tolist() == packed_mnist["t10k-labels-idx1-ubyte"].tolist()
    assert np.array_equal(data.train_images[:, 0].numpy(), packed_mnist["train-images-idx3-ubyte"])
    assert site.asked == [f"/there/{name}.gz" for name in MNIST_FILES]
    assert "all is there" in prepare("dataset=mnist", f"dataset.root={root}")[1]


def test_packed_files_that_were_put_there_are_unpacked(site, prepare, packed_mnist, tmp_path):
    """Also those that the first edition had fetched."""
    root = tmp_path / "data"
    write_mnist(root / "MNIST" / "raw", packed=True)
    with pytest.raises(ValueError, match="has no MNIST/raw/train-images-idx3-ubyte: fetch it once"):
        mnist(root=str(root))
    assert prepare("dataset=mnist", f"dataset.root={root}")[0] == 0
    assert mnist(root=str(root)).num_train == 12
    assert site.asked == []


def test_unpacking_that_was_cut_is_done_again_without_a_download(
    site, prepare, packed_mnist, tmp_path
):
    root = tmp_path / "data"
    assert prepare("dataset=mnist", f"dataset.root={root}")[0] == 0
    asked = len(site.asked)
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert prepare("dataset=mnist", f"dataset.root={root}")[0] == 0
    assert path.read_bytes() == whole
    assert len(site.asked) == asked


def test_svhn_and_its_extra_pictures(site, prepare, tmp_path, monkeypatch):
    write_svhn(tmp_path / "original")
    accept(monkeypatch, tmp_path / "original")
    (tmp_path / "original" / "SVHN").rename(site.folder / "svhn")
    splits = {
        split: [f"{site.url}/svhn/{name}", name, checksum]
        for split, (_, name, checksum) in SVHN.split_list.items()
    }
    monkeypatch.setattr(SVHN, "split_list", splits)
    root = tmp_path / "data"
    assert prepare("dataset=svhn", f"dataset.root={root}")[0] == 0
    assert svhn(root=str(root)).num_train == 25
    assert "SVHN/extra_32x32.mat" not in files_of(root)
    assert prepare("dataset=svhn", f"dataset.root={root}", "dataset.extra=true")[0] == 0
    assert svhn(root=str(root), extra=True).num_train == 32
    assert site.asked == [f"/svhn/{part}_32x32.mat" for part in ("train", "test", "extra")]


@pytest.mark.parametrize("trouble", ["cut", "checksum", "closed", "silent"])
def test_a_download_that_fails_is_one_line_and_starts_again(
    site, prepare, cifar, tmp_path, monkeypatch, trouble
):
    root, path = tmp_path / "data", site.folder / CIFAR10.filename
    content, url = path.read_bytes(), CIFAR10.url
    if trouble == "cut":
        site.cut = len(content) // 3
    if trouble == "checksum":
        path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    if trouble == "closed":
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:9/{path.name}")
    if trouble == "silent":
        monkeypatch.setattr(preparing, "_TIMEOUT_S", 0.2)
        site.meanwhile = lambda: site.is_silent.wait(60)
    code, out, err = prepare("dataset=cifar10", f"dataset.root={root}")
    assert (code, out) == (1, f"fetching cifar10 into {root}\n")
    assert "byzshield_exp: cifar10 cannot be fetched (" in err
    assert len(err.splitlines()) == 1
    with pytest.raises(ValueError, match="has no cifar-10-batches-py/data_batch_1"):
        cifar10(root=str(root))
    site.is_silent.set()
    site.cut = None
    path.write_bytes(content)
    monkeypatch.setattr(CIFAR10, "url", url)
    assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    assert files_of(root) == CIFAR_FILES


def test_an_archive_that_was_put_there_is_used_and_damaged_files_are_replaced(
    site, prepare, cifar, tmp_path
):
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(site.folder / CIFAR10.filename, root)
    assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    for name in ("data_batch_3", "batches.meta"):
        (root / CIFAR10.base_folder / name).write_bytes(b"cut")
        assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    (root / CIFAR10.base_folder / "test_batch").unlink()
    assert prepare("dataset=cifar10", f"dataset.root={root}")[0] == 0
    assert files_of(root) == CIFAR_FILES
    assert cifar10(root=str(root)).num_train == 50
    assert site.asked == []


def test_pictures_that_are_not_the_official_ones_are_kept_and_told_of(prepare, tmp_path):
    """A run reads them; the command says so before it fetches or writes anything."""
    write_mnist(tmp_path / "MNIST" / "raw")
    write_mnist(tmp_path / "MNIST" / "raw", packed=True)
    before = files_of(tmp_path)
    assert mnist(root=str(tmp_path)).num_train == 12
    code, out, err = prepare("dataset=mnist", f"dataset.root={tmp_path}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert (
        "train-images-idx3-ubyte is not the official file (9424 bytes instead of 47040016): " in err
    )
    assert err.endswith("delete it to have that one fetched; a run reads what is there\n")
    assert files_of(tmp_path) == before


def test_an_archive_that_lacks_a_file_is_one_line(site, prepare, cifar, tmp_path, monkeypatch):
    archive = site.folder / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as content:
        content.add(tmp_path / "original" / CIFAR10.base_folder / "test_batch", "test_batch")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    code, _, err = prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")
    assert code == 1
    assert "cifar10: the archive lacks files, or unpacking it failed" in err
    assert len(err.splitlines()) == 1


def test_a_home_folder_can_be_given(prepare, cifar, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare("dataset=cifar10", "dataset.root=~/data")[0] == 0
    assert files_of(tmp_path / "data") == CIFAR_FILES


def test_a_progress_bar_is_for_terminals(prepare, cifar, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert "100" in prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")[2]


# The lock.

HOLD = "import fcntl,sys;f=open(sys.argv[1],'a');fcntl.lockf(f,2);print('held',flush=True);input()"
TRY = "import fcntl,sys;f=open(sys.argv[1],'a');fcntl.lockf(f,6)"


def test_no_other_process_gets_the_lock_while_a_file_comes(site, prepare, cifar, tmp_path):
    def attempt():
        asked = [sys.executable, "-c", TRY, str(tmp_path / "data" / preparing.LOCK)]
        codes.append(subprocess.run(asked, capture_output=True).returncode)

    codes: list[int] = []
    site.meanwhile = attempt
    assert prepare("dataset=cifar10", f"dataset.root={tmp_path / 'data'}")[0] == 0
    attempt()
    assert codes == [1, 0]


class Here(threading.Thread):
    """The command in this process."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self.arguments = ["dataset=cifar10", f"dataset.root={root}"]
        self.start()

    def run(self):
        self.code = command.main(self.arguments)


@pytest.mark.parametrize("is_done", [True, False])
def test_who_waits_fetches_what_is_still_missing(site, cifar, tmp_path, capsys, is_done):
    """Also where the other process was killed."""
    root = tmp_path / "data"
    root.mkdir()
    asked = [sys.executable, "-c", HOLD, str(root / preparing.LOCK)]
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            here, told = Here(root), ""
            deadline = time.monotonic() + 60
            while "waiting for another process that fetches data into" not in told:
                assert time.monotonic() < deadline
                told += capsys.readouterr().out
                time.sleep(0.01)
            assert site.asked == []
            if is_done:
                shutil.copytree(
                    tmp_path / "original" / CIFAR10.base_folder, root / CIFAR10.base_folder
                )
            assert here.is_alive()
        finally:
            other.kill()
    here.join(60)
    assert here.code == 0
    assert f"cifar10: done, in {root}" in capsys.readouterr().out
    assert len(site.asked) == (0 if is_done else 1)
    assert cifar10(root=str(root)).num_train == 50


# What is typed.


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
    for dataset in official.OFFICIAL:
        code, out, err = cli(f"dataset={dataset}", f"dataset.root={tmp_path}/none", "q=0")
        assert (code, out) == (2, "")
        command_line = f"byzshield prepare dataset={dataset} dataset.root={tmp_path}"
        assert command_line in err
        assert len(err.splitlines()) == 1


def test_official_packed_files_are_torchvisions(tmp_path, monkeypatch):
    """What a test changes for small files is what decides: another MD5 is not accepted."""
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"x"))
    path.with_suffix("").write_bytes(b"x")
    with pytest.raises(ValueError, match="1 bytes instead of 60008"):
        preparing._refuse_others("mnist", tmp_path)
    files = [(name, md5(path) if name == path.name else old) for name, old in MNIST.resources]
    monkeypatch.setattr(MNIST, "resources", files)
    preparing._refuse_others("mnist", tmp_path)
