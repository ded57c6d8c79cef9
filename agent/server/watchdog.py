"""Watchdog: notices that the model's thread hangs in one step. Decides nothing about what follows.

A thread cannot be ended from outside, and while it hangs nobody is answered: so the server tells its sessions, closes
and ends with exit code 1, for a supervisor to start it anew. Sessions that were to be resumable are found again.
"""

import asyncio
import time

from agent.errors import WorkerHung
from agent.inference.model_worker import ModelWorker

_LOOKS = 20
"""Looks in the time that a step may take"""


async def watch(worker: ModelWorker, limit_s: float) -> None:
    """Looks after the worker until cancelled. Cancelling is safe.

    Time counts only while this process runs: one that was stopped, or slept with its machine, does not hang.

    Raises:
        WorkerHung: one step takes longer than `limit_s`.
    """
    every_s = limit_s / _LOOKS
    step, spent_s, looked_at = worker.step, 0.0, time.monotonic()
    while spent_s <= limit_s:
        await asyncio.sleep(every_s)
        now = time.monotonic()
        passed_s, looked_at = min(now - looked_at, 2 * every_s), now
        spent_s = spent_s + passed_s if step is not None and worker.step == step else 0.0
        step = worker.step
    raise WorkerHung(
        f"the model has not moved for {limit_s:g} s and is taken to hang: noema ends so that it can be started again; "
        "on a machine that needs so long for one step raise server.worker_timeout_s"
    )
