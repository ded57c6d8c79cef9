"""Two processes that train together, as torchrun starts them: forked by a server that has loaded torch already."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lcm.training.processes import Processes

Work = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one of them ended."""

    value: Any = None
    """what its work gave"""
    error: str = ""
    """the class and message of what it raised"""


def two_processes(folder: Path, work: Work, *given: Any, seconds: float = 60) -> list[Ended]:
    """`work(processes, *given)` in each; both have ended, and neither had to be stopped.

    Args:
        folder: an empty one, where they meet.
        work: what a module holds by name.
        given: what can be pickled.
        seconds: after so many they hang.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([work.__module__])
    folder.mkdir(exist_ok=True)
    answers = [server.Pipe(duplex=False) for _ in range(2)]
    both = [
        server.Process(target=_joined, args=(rank, folder / "meeting", answers[rank][1], work, given))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    try:
        ended = []
        for rank, (receiver, _) in enumerate(answers):
            assert receiver.poll(seconds), f"process {rank} hangs"
            ended.append(receiver.recv())
        return ended
    finally:
        for process in both:
            process.join(5)
            process.kill()


def _joined(rank: int, meeting: Path, answer: Any, work: Work, given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        ended = Ended(work(Processes.joined("cpu"), *given))
    except Exception as error:  # noqa: BLE001, whatever it is, the test is told
        traceback.print_exc()
        ended = Ended(error=f"{type(error).__name__}: {error}")
    answer.send(ended)
    dist.destroy_process_group()
