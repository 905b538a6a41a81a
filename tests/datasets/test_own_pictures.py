"""Your own pictures: folders and arrays, and which file is damaged."""

import json
import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import torch
from picture_files import write_folder, write_npz
from running import run_program

from byzshield_exp.datasets import image_folder, npz


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "cache"))


def assert_is(data, train, test):
    """Every pixel at its place: picture, channel, row and column."""
    for part, expected in (("train", train), ("test", test)):
        images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
        assert images.dtype == torch.uint8
        assert images.is_contiguous()
        assert labels.dtype == torch.int64
        assert np.array_equal(images.numpy(), expected.images)
        assert labels.tolist() == expected.labels.tolist()


def test_a_folder_of_pictures(tmp_path):
    parts = write_folder(tmp_path)
    data = image_folder(root=str(tmp_path))
    assert_is(data, parts["train"], parts["test"])
    assert (data.num_classes, data.augment) == (3, "none")
    (images, _), = data.chunks("test")  # fmt: skip
    pixels = parts["train"].images / 255
    mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3), ddof=1)
    for channel in range(3):
        ready = (parts["test"].images[:, channel] / 255 - mean[channel]) / std[channel]
        assert images[:, channel].numpy() == pytest.approx(ready, abs=1e-5)


def test_grey_and_transparent_pictures_become_coloured_ones(tmp_path):
    from PIL import Image

    write_folder(tmp_path)
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "train" / "ant" / "0.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 99)).save(tmp_path / "train" / "ant" / "1.png")
    data = image_folder(root=str(tmp_path))
    for channel in range(3):
        assert np.array_equal(data.train_images[0, channel].numpy(), grey)
        assert data.train_images[1, channel].unique().tolist() == [channel + 1]


@pytest.mark.parametrize(
    ("mode", "name"), [("I;16", "0.png"), ("I;16", "0.tiff"), ("I", "0.tiff"), ("F", "0.tiff")]
)
def test_pictures_of_more_than_8_bits_are_refused(tmp_path, mode, name):
    """Pillow would make 255 of all that is above."""
    from PIL import Image

    write_folder(tmp_path)
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    path = tmp_path / "test" / "cow" / name
    Image.fromarray(np.full((8, 8), 700, dtype)).save(path)
    with pytest.raises(ValueError, match=rf"{path} has more than 8 bits .* mode {mode}\)$"):
        image_folder(root=str(tmp_path))


def test_a_palette_with_transparent_colours_is_read_without_a_warning(tmp_path):
    from PIL import Image

    write_folder(tmp_path)
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([9, 9, 9, 10, 20, 30])
    picture.save(tmp_path / "train" / "ant" / "0.png", transparency=b"\x00\x80")
    data = image_folder(root=str(tmp_path))
    assert data.train_images[0, :, 0, 0].tolist() == [10, 20, 30]


def test_linked_folders_and_all_kinds_of_pictures_are_read_and_hidden_ones_are_not(tmp_path):
    from PIL import Image

    elsewhere, root = tmp_path / "elsewhere", tmp_path / "pictures"
    parts = write_folder(elsewhere)
    for part in ("train", "test"):
        (root / part).mkdir(parents=True)
        for name in ("ant", "bee", "cow"):
            (root / part / name).mkdir()
            (root / part / name / "linked").symlink_to(elsewhere / part / name)
        (root / part / ".ipynb_checkpoints").mkdir()
        (root / part / "ant" / ".hidden").mkdir()
        (root / part / "ant" / ".hidden" / "9.png").write_text("no picture")
        (root / part / "ant" / "._0.png").write_text("no picture")
    data = image_folder(root=str(root))
    assert_is(data, parts["train"], parts["test"])
    for suffix in ("jp2", "JPE", "qoi", "tga"):
        Image.new("RGB", (8, 8), (0, 0, 200)).save(root / "test" / "cow" / f"0.{suffix}")
    data = image_folder(root=str(root))
    assert len(data.test_labels) == 19
    assert data.test_images[10:14, 2].min() > 190


def test_a_home_folder_can_be_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "data")
    write_npz(tmp_path / "data" / "mine.npz")
    assert image_folder(root="~/data").num_train == 15
    assert npz(root="~/data", file="mine.npz").num_train == 25


def test_pictures_are_cropped_from_the_centre_and_resized(tmp_path):
    """A wide picture loses its sides, a picture of the right size nothing."""
    from PIL import Image

    parts = write_folder(tmp_path)
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[:, 12:28] = 200  # the middle 16 x 16
    Image.fromarray(wide).save(tmp_path / "train" / "bee" / "0.png")
    with pytest.raises(ValueError, match=r"bee/0.png has 40 x 16 pixels, .*0.png has 8 x 8: datas"):
        image_folder(root=str(tmp_path))
    data = image_folder(root=str(tmp_path), size=8)
    assert data.train_images[5, :, :, 1:-1].unique().tolist() == [200]
    assert int(data.train_images[5].min()) > 150  # the filter looks a little over the edge
    others = [place for place in range(15) if place != 5]
    assert np.array_equal(data.train_images[others].numpy(), parts["train"].images[others])
    assert image_folder(root=str(tmp_path), size=5).shape == (3, 5, 5)


def test_the_cache_is_used_while_the_files_are_the_same(tmp_path, monkeypatch):
    module = sys.modules["byzshield_exp.datasets.image_folder"]
    decode, decoded = module._decode, []

    def counted(path, size):
        decoded.append(path)
        return decode(path, size)

    monkeypatch.setattr(module, "_decode", counted)
    root = tmp_path / "pictures"
    parts = write_folder(root)

    def reads(**options):
        decoded.clear()
        data = image_folder(root=str(root), **options)
        return data, len(decoded) > 0

    assert reads()[1]
    data, again = reads()
    assert not again
    assert_is(data, parts["train"], parts["test"])
    assert reads(size=4)[1]  # another cache
    assert not reads()[1]
    path = root / "train" / "cow" / "3.png"
    path.write_bytes((root / "train" / "cow" / "4.png").read_bytes())
    data, again = reads()
    assert again
    assert np.array_equal(data.train_images[13].numpy(), parts["train"].images[14])
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1))
    assert reads()[1]
    (root / "test" / "ant" / "0.png").unlink()
    data, again = reads()
    assert again
    assert len(data.test_labels) == 14
    caches = list((tmp_path / "cache").iterdir())
    assert len(caches) == 2  # one for each size, and nothing half-written
    for cache in caches:
        cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2])
    assert reads()[1]
    assert not reads()[1]


def test_another_pillow_decodes_anew(tmp_path, monkeypatch):
    import PIL

    module = sys.modules["byzshield_exp.datasets.image_folder"]
    write_folder(tmp_path)
    image_folder(root=str(tmp_path))
    monkeypatch.setattr(PIL, "__version__", "1.0")
    monkeypatch.setattr(module, "_decoded", lambda *arguments: pytest.fail("as it should"))
    with pytest.raises(pytest.fail.Exception, match="as it should"):
        image_folder(root=str(tmp_path))


def test_the_cache_is_for_all_whom_the_umask_lets_in_and_is_whole_or_not_there(
    tmp_path, monkeypatch
):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    write_folder(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            image_folder(root=str(tmp_path))
    assert not list((tmp_path / "cache").iterdir())
    before = os.umask(0o027)
    try:
        image_folder(root=str(tmp_path))
    finally:
        os.umask(before)
    (cache,) = (tmp_path / "cache").iterdir()
    assert cache.stat().st_mode & 0o777 == 0o640


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BYZSHIELD_CACHE", str(tmp_path / "file" / "below"))
    parts = write_folder(tmp_path)
    assert_is(image_folder(root=str(tmp_path)), parts["train"], parts["test"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("nothing", "has no folder train: it needs train and test"),
        ("no test", "has no folder test: it needs train and test"),
        ("empty class", "train/dog has no pictures"),
        ("other file", r"train/dog/a\.heic is of no kind that Pillow reads: remove it, or start"),
        ("loop", r"train/bee/more/train/bee is a link to a folder that \S+/train/bee has already"),
        ("no pictures", "test has no pictures: they lie in a folder for each class"),
        ("class of the test", "test/dog is a class that .*train lacks"),
        ("cut", r"test/bee/2\.png cannot be read: "),
        ("text", r"test/bee/2\.png cannot be read: cannot identify image file"),
        ("size", r"dataset\.size=0 must be at least 1 pixel"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, damage, message):
    root, size = tmp_path / "pictures", None
    if damage != "nothing":
        write_folder(root)
    path = root / "test" / "bee" / "2.png"
    if damage == "no test":
        (root / "test").rename(root / "elsewhere")
    if damage == "empty class":
        (root / "train" / "dog").mkdir()
        (root / "train" / "dog" / ".readme.txt").write_text("to come")
    if damage == "other file":
        (root / "train" / "dog").mkdir()
        (root / "train" / "dog" / "a.heic").write_bytes(b"of a telephone")
    if damage == "loop":
        (root / "train" / "bee" / "more").symlink_to(root)
    if damage == "no pictures":
        for one in root.glob("test/*/*.png"):
            one.unlink()
    if damage == "class of the test":
        (root / "test" / "dog").mkdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-60])
    if damage == "text":
        path.write_text("no picture")
    if damage == "size":
        size = 0
    with pytest.raises(ValueError, match=message) as error:
        image_folder(root=str(root), size=size)
    assert len(str(error.value).splitlines()) == 1


def test_arrays_of_bytes(tmp_path):
    arrays = write_npz(tmp_path / "mine.npz")
    data = npz(file="mine.npz", root=str(tmp_path))
    for name, array in arrays.items():
        assert np.array_equal(getattr(data, name).numpy(), array)
    assert data.train_images.dtype == torch.uint8
    assert (data.shape, data.num_classes) == ((3, 8, 8), 10)
    assert data.mean.tolist() == pytest.approx(
        (arrays["train_images"] / 255).mean(axis=(0, 2, 3)), abs=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_grey_arrays_of_floats(tmp_path, dtype):
    train = np.random.default_rng(0).normal(5, 2, (25, 6, 7)).astype(dtype)
    write_npz(tmp_path / "mine.npz", train_images=train, test_images=train[:6] + dtype(1))
    data = npz(file="mine.npz", root=str(tmp_path))
    assert data.shape == (1, 6, 7)
    assert data.train_images.dtype == torch.float32
    assert np.array_equal(data.train_images[:, 0].numpy(), train.astype(np.float32))
    (images, _), = data.chunks("test")  # fmt: skip
    values = train.astype(np.float64)
    expected = (values[:6] + 1 - values.mean()) / values.std(ddof=1)
    assert images[:, 0].numpy() == pytest.approx(
        expected, abs=1e-2 if dtype == np.float16 else 1e-4
    )


GREY = np.zeros((6, 8, 8), np.uint8)
BAD_ARRAYS = {
    "missing": ({"test_labels": None}, "test_labels is not a file in the archive; it needs train_"),
    "objects": ({"train_labels": np.array([{}] * 25)}, "cannot be read: Object arrays cannot"),
    "channels last": (
        {"train_images": np.zeros((25, 8, 8, 3), np.uint8)},
        r"\[25, 8, 8, 3\] has its channels last: images.transpose\(0, 3, 1, 2\) is \[n, c, h, w\]",
    ),
    "two channels last": (
        {"train_images": np.zeros((25, 8, 9, 2), np.uint8)},
        r"train_images \[25, 8, 9, 2\] has its channels last",
    ),
    "five channels last": (
        {"test_images": np.zeros((6, 8, 8, 5), np.uint8)},
        r"test_images \[6, 8, 8, 5\] has its channels last",
    ),
    "dimensions": ({"test_images": GREY[0]}, r"test_images must be \[n, c, h, w\], got \[8, 8\]"),
    "none": ({"test_images": GREY[:0]}, r"test_images must be \[n, c, h, w\], got \[0, 1, 8, 8\]"),
    "whole numbers": (
        {"test_images": np.zeros((6, 3, 8, 8), np.int64)},
        "test_images must be uint8 or floats, got int64",
    ),
    "number": (
        {"test_labels": np.zeros(5, int)},
        r"test_labels must be 6 whole numbers, got \[5\]",
    ),
    "labels": ({"test_labels": np.zeros(6)}, r"must be 6 whole numbers, got \[6\] float64"),
    "negative": ({"test_labels": np.arange(6) - 1}, "test_labels has the class -1, the bound is 0"),
    "class": ({"test_labels": np.arange(6) + 5}, "test_labels has the class 10, the bound is 9"),
    "missing class": (
        {"train_labels": np.arange(25) % 10 + (np.arange(25) % 10 > 3)},
        "train_labels goes up to 10 and has no class 4",
    ),
    "from one": ({"train_labels": np.arange(25) % 10 + 1}, "goes up to 10 and has no class 0"),
    "wraps around": (
        {"test_labels": np.array([0, 1, 2, 3, 4, 2**64 - 1], np.uint64)},
        "test_labels has the class 18446744073709551615, the bound is 9",
    ),
    "large": (
        {"train_labels": np.arange(25, dtype=np.uint64) * 2**59},
        "train_labels goes up to 13835058055282163712 and has no class 1",
    ),
    "nan": (
        {"test_images": np.full((6, 3, 8, 8), np.nan)},
        "test_images has NaN, Inf or what float32 does not hold",
    ),
    "too large": ({"test_images": np.full((6, 3, 8, 8), 1e300)}, "what float32 does not hold"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_cannot_be_used_are_one_line(tmp_path, changes, message):
    write_npz(tmp_path / "mine.npz", **changes)
    with pytest.raises(ValueError, match=message) as error:
        npz(file="mine.npz", root=str(tmp_path))
    assert str(tmp_path / "mine.npz") in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_many_channels_and_rows_of_numbers_are_no_channels_last(tmp_path):
    for shape in ((64, 8, 8), (8, 8, 12), (1, 1, 30), (3, 5, 5), (2, 2, 2)):
        train = np.random.default_rng(0).integers(0, 256, (25, *shape), dtype=np.uint8)
        write_npz(tmp_path / "mine.npz", train_images=train, test_images=train[:6])
        assert npz(file="mine.npz", root=str(tmp_path)).shape == shape


def test_one_class_is_none(tmp_path):
    write_npz(tmp_path / "mine.npz", train_labels=np.zeros(25, int), test_labels=np.zeros(6, int))
    with pytest.raises(ValueError, match="there must be at least 2 classes, got 1"):
        npz(file="mine.npz", root=str(tmp_path))


@pytest.mark.parametrize("file", ["", "other.npz", "."])
def test_a_missing_file_of_arrays_is_named_by_its_keys(tmp_path, file):
    message = rf"^dataset\.file={file}: no such file below dataset\.root={tmp_path}$"
    with pytest.raises(ValueError, match=message):
        npz(file=file, root=str(tmp_path))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_read_without_many_copies_of_them(tmp_path, dtype):
    train = np.random.default_rng(0).normal(size=(4000, 1, 32, 32)).astype(dtype)  # 16 or 33 MB
    labels = np.arange(4000) % 10
    write_npz(tmp_path / "mine.npz", train_images=train, train_labels=labels, test_images=train[:6])
    tracemalloc.start()
    try:
        npz(file="mine.npz", root=str(tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * train.nbytes


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "npy"])
def test_a_damaged_file_of_arrays_is_named(tmp_path, damage):
    path = tmp_path / "mine.npz"
    write_npz(path)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    if damage == "flipped":
        path.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    if damage == "text":
        path.write_text("no arrays")
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"mine\.npz cannot be read: "):
        npz(file="mine.npz", root=str(tmp_path))


@pytest.mark.skipif("BYZSHIELD_DATA" not in os.environ, reason="BYZSHIELD_DATA is not set")
@pytest.mark.thorough
def test_a_run_on_real_pictures_in_a_folder(tmp_path):
    """CIFAR-10's own constants are those that are measured on 10,000 of its pictures."""
    (tmp_path / "cifar").mkdir()
    packed = f"{os.environ['BYZSHIELD_DATA']}/cifar10-12k-jpeg.tar"
    subprocess.run(["tar", "-xf", packed, "-C", str(tmp_path / "cifar")], check=True)
    (root,) = {path.parent for path in tmp_path.glob("cifar/**/train")}
    data = image_folder(root=str(root))
    assert (data.shape, data.num_train, len(data.test_labels)) == ((3, 32, 32), 10_000, 2_000)
    assert (data.mean * 255).tolist() == pytest.approx([125.3, 123.0, 113.9], abs=1)
    assert (data.std * 255).tolist() == pytest.approx([63.0, 62.1, 66.7], abs=1)
    done = run_program(
        "dataset=image_folder", f"dataset.root={root}", "dataset.augment=crop_flip",
        "dataset.num_validation=1000", "network=lenet", "attack=none", "steps=60",
        "eval_every=60", f"output_dir={tmp_path / 'out'}", timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("out/*/summary.json")
    assert json.loads(path.read_text())["final_validation_accuracy"] > 0.2
