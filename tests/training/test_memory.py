"""What frozen nets say is computed once an image, and survives a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from icl_vision.training.memory import Memory


class Look:
    """A frozen net that counts the batches it sees."""

    def __init__(self) -> None:
        self.batches = 0

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.batches += 1
        return images.float().mean((2, 3)), images[:, :1, 0, 0].long()


def images(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, 2, 4, 4).contiguous()


def test_an_image_is_looked_at_once() -> None:
    memory, look = Memory(10), Look()
    index = torch.tensor([3, 7])
    first = memory.recall(index, images(3, 7), look)
    assert first[0].tolist() == [[3.0, 3.0], [7.0, 7.0]]
    assert first[1].dtype == torch.int64
    assert first[1].tolist() == [[3], [7]]
    again = memory.recall(index.flip(0), images(7, 3), look)
    assert again[0].tolist() == [[7.0, 7.0], [3.0, 3.0]]
    assert look.batches == 1
    memory.recall(torch.tensor([7, 8]), images(7, 8), look)
    assert look.batches == 2


def test_what_was_known_is_not_replaced() -> None:
    memory, look = Memory(4), Look()
    memory.recall(torch.tensor([0]), images(1), look)
    both = memory.recall(torch.tensor([0, 1]), images(5, 6), look)  # as if the net had added up differently
    assert both[0][:, 0].tolist() == [1.0, 6.0]


def test_it_goes_on_from_its_file_and_from_no_other(tmp_path: Path) -> None:
    file = tmp_path / "memory.safetensors"
    memory, look = Memory(4), Look()
    assert not memory.load(file, "these images")
    memory.recall(torch.tensor([2]), images(2), look)
    memory.save(file, "these images")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    resumed = Memory(4)
    assert not resumed.load(file, "other images")
    assert not Memory(5).load(file, "these images")
    assert resumed.load(file, "these images")
    assert resumed.recall(torch.tensor([2]), images(9), look)[0].tolist() == [[2.0, 2.0]]
    assert look.batches == 1


def test_a_damaged_file_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "memory.safetensors"
    memory = Memory(4)
    memory.recall(torch.tensor([2]), images(2), Look())
    memory.save(file, "these images")
    file.write_bytes(file.read_bytes()[:-3])
    assert not Memory(4).load(file, "these images")
    assert "memory.safetensors is damaged" in caplog.text
