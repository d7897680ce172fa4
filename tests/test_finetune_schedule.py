"""Which rows a fine-tuning run meets, and when: epochs, old rows among new ones, dev rows."""

from __future__ import annotations

from pathlib import Path

from training.corpus.manifest import ManifestRow
from training.finetune.material import divide
from training.finetune.row_schedule import Schedule, Size, Source


def rows_of(count: int) -> list[ManifestRow]:
    return [ManifestRow(Path(f"{index}.wav"), "x", "en", "me", "CC0-1.0") for index in range(count)]


def test_every_row_is_drawn_once_an_epoch_and_old_rows_in_their_share():
    new, old = rows_of(23), rows_of(50)
    seconds = [1.0 + index % 7 for index in range(50)]
    schedule = Schedule(
        Source(new, seconds[:23]), Source(old, seconds), size=Size(4, 12.0), keep_share=0.25, seed=3
    )
    count = schedule.batches_of(2.0)
    drawn = [[draw.row for draw in schedule.batch(number)] for number in range(count)]
    counts = [sum(batch.count(row) for batch in drawn if row in batch) for row in new]
    assert sum(len(batch) > 4 for batch in drawn) == 0
    old_batches = [
        batch for number, batch in enumerate(drawn) if int((number + 1) / 4) > number // 4
    ]
    assert abs(len(old_batches) - count / 4) <= 1
    assert min(counts) >= 2
    again = Schedule(
        Source(new, seconds[:23]), Source(old, seconds), size=Size(4, 12.0), keep_share=0.25, seed=3
    )
    assert [draw.row for draw in again.batch(count - 1)] == drawn[-1]  # without those before it
    for number in range(count):
        longest = max(seconds[int(draw.row.audio.stem)] for draw in schedule.batch(number))
        assert longest * len(drawn[number]) <= 12.0 or len(drawn[number]) == 1


def test_rows_are_divided_alike_whatever_their_order():
    rows = [ManifestRow(Path(f"{i}.wav"), f"text {i}", "en", "me", "CC0-1.0") for i in range(40)]
    train, dev = divide(rows)
    assert len(dev) == 4
    assert set(train) | set(dev) == set(rows)
    assert set(divide(rows[::-1])[1]) == set(dev)
    marked = [*rows, ManifestRow(Path("d.wav"), "x", "en", "me", "", split="dev")]
    held = [ManifestRow(Path("t.wav"), "x", "en", "me", "", split="test")]
    assert divide([*marked, *held]) == (rows, marked[-1:])
