"""Jobs in groups that share a prefix: who goes first, how many at a time, what an error ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from icl_vision.asking.jobs import Job, Order, run_jobs

ORDERS: tuple[Order, ...] = ("together", "in turn")


def jobs(
    log: list[tuple[str, int, int]], sizes: Sequence[int], fails: tuple[int, int] | None = None
) -> list[list[Job]]:
    """So many jobs a group, each of which says when it starts and ends."""

    def job(group: int, number: int) -> Job:
        async def run() -> None:
            log.append(("start", group, number))
            await asyncio.sleep(0)
            log.append(("end", group, number))
            if fails == (group, number):
                raise ValueError(f"{group}/{number}")

        return run

    return [[job(group, number) for number in range(size)] for group, size in enumerate(sizes)]


def starts(log: list[tuple[str, int, int]]) -> list[tuple[int, int]]:
    return [(group, number) for what, group, number in log if what == "start"]


@pytest.mark.parametrize("order", ORDERS)
async def test_the_first_of_each_group_is_alone_and_no_more_run_than_may(order: Order) -> None:
    log: list[tuple[str, int, int]] = []
    await run_jobs(jobs(log, [4, 0, 3]), concurrency=2, order=order)
    assert sorted(starts(log)) == [(0, 0), (0, 1), (0, 2), (0, 3), (2, 0), (2, 1), (2, 2)]
    for group in (0, 2):
        assert log.index(("end", group, 0)) < log.index(("start", group, 1))
    running = most = 0
    for what, *_ in log:
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most == 2


async def test_groups_together_or_one_after_the_other() -> None:
    log: list[tuple[str, int, int]] = []
    await run_jobs(jobs(log, [3, 3]), concurrency=1, order="in turn")
    assert starts(log) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    log.clear()
    await run_jobs(jobs(log, [3, 3]), concurrency=1, order="together")
    assert starts(log) == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (1, 2)]


async def test_nobody_idles_for_the_sake_of_an_order() -> None:
    log: list[tuple[str, int, int]] = []
    await run_jobs(jobs(log, [3, 3]), concurrency=8, order="in turn")
    assert sorted(starts(log)[:2]) == [(0, 0), (1, 0)]
    assert log.index(("end", 0, 0)) < log.index(("start", 0, 1))
    assert log.index(("end", 1, 0)) < log.index(("start", 1, 1))


@pytest.mark.parametrize("order", ORDERS)
async def test_without_a_lead_all_start_in_their_order(order: Order) -> None:
    log: list[tuple[str, int, int]] = []
    await run_jobs(jobs(log, [3, 2]), concurrency=5, lead=False, order=order)
    assert log[:5] == [("start", group, number) for group, number in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]]
    await run_jobs([], concurrency=3, order=order)


@pytest.mark.parametrize("order", ORDERS)
async def test_the_first_error_ends_everything(order: Order) -> None:
    log: list[tuple[str, int, int]] = []
    with pytest.raises(ValueError, match="0/0"):
        await run_jobs(jobs(log, [50, 0], fails=(0, 0)), concurrency=4, order=order)
    assert starts(log) == [(0, 0)]
    assert len(asyncio.all_tasks()) == 1  # nothing is left running


async def test_who_is_free_at_the_moment_of_an_error_starts_nothing() -> None:
    started: list[str] = []

    def sudden(name: str, error: bool = False) -> Job:
        async def run() -> None:
            started.append(name)
            if error:
                raise ValueError(name)

        return run

    with pytest.raises(ValueError, match="bad"):
        await run_jobs([[sudden("bad", True), sudden("later"), sudden("last")]], concurrency=3, lead=False)
    assert started == ["bad"]


async def test_cancelled_it_leaves_nothing_running() -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(run_jobs([[slow] * 5, [slow] * 5], concurrency=4))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1
