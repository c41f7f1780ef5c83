"""The demo and the command line: what they print, write and return."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

import fastbp
from fastbp import demo
from fastbp.__main__ import main


def test_split_is_the_same_each_time_and_stratified():
    fastbp.manual_seed(0)
    first = demo.split_digits()
    fastbp.manual_seed(1)
    second = demo.split_digits()
    assert all((a == b).all().item() for a, b in zip(first, second, strict=True))
    assert list(first.train_x.shape) == [1438, 64] and list(first.test_x.shape) == [359, 64]
    assert first.train_x.max().item() == 1.0 and first.train_x.dtype == fastbp.float32
    counts = [(first.test_y == digit).sum().item() for digit in range(10)]
    assert all(35 <= count <= 37 for count in counts)


def test_demo_learns_and_draws(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "new")]) == 0
    output = capsys.readouterr()
    accuracy = float(output.out.split("test accuracy")[1].split("%")[0])
    assert 97.0 <= accuracy <= 100.0
    assert "steps of 32 images at" in output.out and "images/s" in output.out
    assert "epoch 40/40" in output.err
    picture = ElementTree.parse(tmp_path / "new" / "digits.svg").getroot()
    text = " ".join(picture.itertext())
    for label in (
        f"{accuracy:.1f}% of 359",
        "training images",
        "test images",
        "epoch",
        "accuracy (%)",
        "loss",
        "misread",
    ):
        assert label in text


def test_demo_is_repeatable_and_quiet(tmp_path, capsys):
    def run(seed: int) -> str:
        main(["demo", "--quiet", "--epochs", "2", "--seed", str(seed), "--out", str(tmp_path)])
        return capsys.readouterr().out

    first = run(5)
    assert first.count("\n") == 1 and first.startswith("test accuracy")
    assert run(5) == first


def test_demo_fails_below_the_required_accuracy(tmp_path, capsys):
    assert main(["demo", "--quiet", "--epochs", "1", "--batch-size", "700", "--out", str(tmp_path)]) == 1
    assert "is below 97% after 1 epoch\n" in capsys.readouterr().err
    assert (tmp_path / "digits.svg").exists()


def test_demo_reports_an_unwritable_place(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["demo", "--quiet", "--epochs", "1", "--out", str(tmp_path / "file")]) == 1
    assert "cannot write the picture" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--batch-size", "x"], ["--unknown"]])
def test_demo_checks_its_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", *arguments])
    assert caught.value.code == 2
    assert "usage: python -m fastbp demo" in capsys.readouterr().err


@pytest.mark.parametrize("misread", [0, 3, 40])
@pytest.mark.parametrize("epochs", [1, 7, 1000])
def test_pictures_of_all_sizes_are_well_formed(misread, epochs):
    history = [demo.EpochResult(2.3 / (i + 1), 1 - 0.9 / (i + 1), 2.3, 0.1) for i in range(epochs)]
    items = [demo.Misread([[0.0, 1.0] * 4] * 8, 3, 8, 0.5)] * misread
    text = demo.draw_picture(history, items, "a < b & c", "")
    picture = ElementTree.fromstring(text)
    words = " ".join(picture.itertext())
    assert "a < b & c" in words and "nan" not in text
    assert words.count("read 8, is 3") == min(misread, 12)


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    report = demo._progress(2)
    report(1, demo.EpochResult(1.0, 0.5, 1.0, 0.5))
    report(2, demo.EpochResult(1.0, 0.5, 1.0, 0.5))
    error = capsys.readouterr().err
    assert "\r[" + "#" * 15 + "." * 15 + "]" in error and error.endswith("50.0%\n")


def test_command_line(capsys):
    assert main(["info"]) == 0
    assert capsys.readouterr().out.strip()
    assert main(["--help"]) == 0
    assert "demo" in capsys.readouterr().out
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage:")
    assert main(["nonsense"]) == 2
    assert "no such command: nonsense" in capsys.readouterr().err
