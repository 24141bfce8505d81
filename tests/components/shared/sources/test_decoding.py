"""Many image files: the same pictures, in order, by threads and by processes, within the memory allowed."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import loky
import numpy as np
import pytest
from PIL import Image

from components.shared.errors import UserError
from components.shared.sources import decoding
from components.shared.sources.decoding import CHUNK, FEW, ImageFile, decode_all
from components.shared.sources.pixels import BadImageError, Limits, Picture, decode
from tests.helpers.image_trees import encode, picture, saved
from tests.helpers.waiting import until

SIZE = 16


@pytest.fixture
def by_processes(monkeypatch):
    """All but the first few images are decoded by processes, a few in a batch."""
    monkeypatch.setattr(decoding, "FEW", 5)
    monkeypatch.setattr(decoding, "BATCH", 7)


def flat(value, size=SIZE):
    return encode(np.full((size, size, 3), value, np.uint8))


def noted(read):
    """2,000 files of one colour each; the number of each is put into `read` when it is asked for."""
    for index in range(2000):
        read.append(index)
        yield ImageFile.of(flat(index % 251), str(index), "")


def test_many_images_come_in_order_and_are_read_only_as_needed():
    read = []
    decoded = decode_all(noted(read), SIZE)
    first = next(decoded)
    assert len(read) <= CHUNK * (2 * (os.cpu_count() or 1) + 1)
    assert [int(image.pixels[0, 0, 0]) for image in (first, *decoded)] == [i % 251 for i in range(2000)]


def test_processes_give_the_pictures_that_one_decoding_gives(by_processes):
    contents = {f"{index}.png": encode(picture(f"{index}", 20 + index % 3)) for index in range(60)}
    contents["deep.png"] = saved(Image.fromarray(np.full((20, 20), 900, np.uint16)))
    files = [ImageFile(len(data), partial(bytes, data), f"a/{name}", name, "g") for name, data in contents.items()]
    found = list(decode_all(files, SIZE, bits=12))
    for (name, data), image in zip(contents.items(), found, strict=True):
        alone = decode(data, SIZE, f"a/{name}", name, "g", 12)
        np.testing.assert_array_equal(image.pixels, alone.pixels)
        assert {**vars(image), "pixels": 0} == {**vars(alone), "pixels": 0}


@pytest.mark.parametrize("channels", [1, 4])
def test_processes_decode_other_channels_too(by_processes, channels):
    files = [
        ImageFile.of(saved(Image.fromarray(picture(str(index), SIZE)).convert("RGBA")), str(index), "")
        for index in range(20)
    ]
    found = [image.pixels for image in decode_all(files, SIZE, channels=channels)]
    alone = [decode(file.read(), SIZE, "", channels=channels).pixels for file in files]
    assert np.stack(found).shape == (20, SIZE, SIZE, channels)
    np.testing.assert_array_equal(found, alone)


def test_processes_read_only_as_needed_and_end_with_the_one_who_asks(by_processes):
    read = []
    decoded = decode_all(noted(read), SIZE)
    for _ in range(20):
        next(decoded)
    assert len(read) <= 20 + 7 * (loky.cpu_count() + 4)
    decoded.close()


@pytest.mark.parametrize("few", [5, FEW])
def test_damaged_files_among_many_are_named_and_the_others_read(monkeypatch, few):
    monkeypatch.setattr(decoding, "FEW", few)
    good = encode(picture("a", SIZE))
    files = [ImageFile.of(good if index not in (3, 70) else b"?", str(index), "") for index in range(90)]
    found = list(decode_all(files, SIZE))
    assert [index for index, image in enumerate(found) if isinstance(image, BadImageError)] == [3, 70]
    assert str(found[70]).startswith("70: can't be read as an image: not a JPEG, PNG, ")
    assert sum(isinstance(image, Picture) for image in found) == 88


@pytest.mark.parametrize("few", [0, FEW])
def test_what_can_not_be_read_or_is_too_large_is_told(monkeypatch, few):
    monkeypatch.setattr(decoding, "FEW", few)

    def refuse():
        raise UserError("x/1.png: can't be read: gone")

    files = [
        ImageFile(9, refuse, "x/1.png", "1.png"),
        ImageFile(5 << 20, refuse, "x/2.png", "2.png"),
        ImageFile.of(saved(Image.new("RGB", (3000, 2000))), "x/3.png", "3.png"),
        ImageFile.of(flat(7), "x/4.png", "4.png"),
    ]
    gone, long, large, good = decode_all(files, SIZE, limits=Limits(16))
    assert str(gone) == "x/1.png: can't be read as an image: gone; repair or remove it"
    assert "takes 5 MiB, and 4 MiB are allowed by data.memory = 16; 20 is enough" in str(long)
    assert "3,000×2,000 pixels: takes 23 MiB, and 12 MiB are allowed by data.memory = 16" in str(large)
    assert good.pixels[0, 0, 0] == 7


@pytest.mark.parametrize("few", [0, FEW])
def test_files_together_stay_within_the_limits(monkeypatch, few):
    """As if each file were as long as all together may be: no two are held at once."""
    monkeypatch.setattr(decoding, "FEW", few)
    limits, lock = Limits(64), threading.Lock()
    held, most = 0, 0
    content = saved(Image.new("RGB", (2000, 1500)))

    def read():
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.01)
        with lock:
            held -= 1
        return content

    files = [ImageFile(limits.files.total, read, "", "") for _ in range(20)]
    assert all(isinstance(image, Picture) for image in decode_all(files, SIZE, limits=limits))
    assert most == 1


def test_a_killed_process_is_told_in_one_line(by_processes):
    def files():
        for index in range(5000):
            if index == 200:
                # one that has just been started goes by this process's name for a moment
                until(children, 60)
                os.kill(children()[0], signal.SIGKILL)
            yield ImageFile.of(flat(index % 251), str(index), "")

    with pytest.raises(UserError, match="a process that decoded images was killed"):
        list(decode_all(files(), SIZE))


def children():
    """Processes of loky below this one."""
    # in full: with COLUMNS in the environment `ps` cuts lines, and what stands behind a long path is gone
    command = ["ps", "-ww", "--ppid", str(os.getpid()), "-o", "pid=,args="]
    found = subprocess.run(command, capture_output=True, text=True)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "popen_loky" in line]


@pytest.mark.slow
def test_the_processes_do_not_outlive_a_killed_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
import sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from components.shared.sources import decoding
from tests.helpers.image_trees import encode
decoding.FEW = 0
data = encode(np.zeros((8, 8, 3), np.uint8))
for index, _ in enumerate(decoding.decode_all((decoding.ImageFile.of(data, "", "") for _ in range(10**6)), 8)):
    if index == 500:
        print("ready", flush=True)
        time.sleep(600)
"""
    )
    with subprocess.Popen([sys.executable, program, Path.cwd()], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        found = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True)
        started = [int(line) for line in found.stdout.split()]
        assert started
        process.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 60)
