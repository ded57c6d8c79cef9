"""What the model runs next."""

from agent.inference.batching import PATIENCE, Waiting, next_batch, to_shed


def job(number: int, **changes: object) -> Waiting:
    values: dict[str, object] = {
        "job": number,
        "session": number,
        "batch_key": "decode",
        "committed": True,
        "urgency": 0,
        "place": number,
    }
    return Waiting(**{**values, **changes})  # type: ignore[arg-type]


def test_nothing_waits_nothing_runs() -> None:
    assert next_batch([], 8) == []


def test_committed_work_goes_before_speculation() -> None:
    line = [job(1, committed=False, batch_key="a"), job(2, batch_key="b")]
    assert next_batch(line, 8) == [2]


def test_sessions_share_a_batch_but_one_session_never_does() -> None:
    line = [job(1), job(2), job(3, session=1), job(4, batch_key="encode"), job(5)]
    assert next_batch(line, 8) == [1, 2, 5]


def test_a_batch_is_bounded_and_a_lone_job_does_not_wait_for_one() -> None:
    assert next_batch([job(n) for n in range(10)], 4) == [0, 1, 2, 3]
    assert next_batch([job(1)], 4) == [1]


def test_what_cannot_be_batched_runs_alone() -> None:
    assert next_batch([job(1, batch_key=None), job(2, batch_key=None)], 8) == [1]


def test_less_urgent_work_gives_way_but_not_for_ever() -> None:
    patient = job(0, urgency=1, batch_key="x")
    assert next_batch([patient, job(PATIENCE - 1)], 1) == [PATIENCE - 1]
    assert next_batch([patient, job(PATIENCE + 1)], 1) == [0]


def test_overload_sheds_the_newest_speculation_only() -> None:
    line = [job(1), job(2, committed=False), job(3, committed=False), job(4)]
    assert to_shed(line, 4) == []
    assert to_shed(line, 3) == [3]
    assert to_shed(line, 1) == [3, 2]
