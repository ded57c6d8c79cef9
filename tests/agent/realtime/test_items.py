"""Items: added, shown, cut and taken out; and every way in which that cannot be done."""

from typing import Any

import pytest

from agent.realtime.defaults import Limits
from tests.agent.realtime.client import Client


def refused(answers: list[dict[str, Any]]) -> tuple[str, str | None]:
    """Code and field of the one error among these."""
    [error] = answers
    assert error["type"] == "error"
    return error["error"]["code"], error["error"]["param"]


def create(client: Client, **item: Any) -> list[dict[str, Any]]:
    """Adds an item."""
    return client.send("conversation.item.create", item={"type": "message", **item})


def test_history_is_given_by_both_sides() -> None:
    client = Client()
    client.write("Good morning.")
    added, done = client.write("Good morning to you.", role="assistant")
    assert added["item"] == done["item"]
    assert added["item"]["role"] == "assistant"
    assert added["item"]["content"] == [{"type": "output_text", "text": "Good morning to you."}]
    said = [(entry.role, entry.text) for entry in client.core.machine.conversation.view()]
    assert said == [(0, "Good morning."), (1, "Good morning to you.")]


def test_a_long_history_may_be_given_at_once() -> None:
    client = Client()
    client.answers = False
    for number in range(10):
        client.write(f"Question {number}.")
        client.write(f"Answer {number}.", role="assistant")
    client.answers = True
    client.catch_up()
    assert len(client.core.machine.conversation.view()) == 20


def test_a_client_may_name_its_items() -> None:
    client = Client()
    added = client.write("Hello.", id="mine")[0]
    assert added["item"]["id"] == "mine"
    assert refused(client.write("Again.", id="mine")) == ("item_create_duplicate_item_id", "item.id")
    for name in ("item_test_99", "item_test_", "item_test_x"):
        assert refused(client.write("Again.", id=name)) == ("invalid_value", "item.id")


def test_a_deleted_item_may_be_put_back_under_its_name() -> None:
    client = Client()
    name = client.write("Hello.")[0]["item"]["id"]
    assert refused(client.write("Again.", id=name)) == ("item_create_duplicate_item_id", "item.id")
    client.send("conversation.item.delete", item_id=name)
    assert client.write("Hello there.", id=name)[0]["item"]["id"] == name
    assert client.write("And again.")[0]["item"]["id"] != name


def test_items_are_appended() -> None:
    client = Client()
    first = client.send(
        "conversation.item.create",
        previous_item_id="root",
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "One."}]},
    )[0]
    assert first["previous_item_id"] is None
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Two."}]}
    second = client.send("conversation.item.create", previous_item_id=first["item"]["id"], item=item)[0]
    assert second["previous_item_id"] == first["item"]["id"]
    for place in ("root", first["item"]["id"], "nowhere"):
        answers = client.send("conversation.item.create", previous_item_id=place, item=item)
        assert refused(answers) == ("invalid_value", "previous_item_id")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"role": "user", "content": [{"type": "input_audio", "audio": "AAAA"}]}, "unsupported_content_type"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, "unsupported_content_type"),
        ({"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}, "unsupported_content_type"),
        ({"role": "user", "content": [{"type": "input_text", "text": " "}]}, "invalid_value"),
        ({"role": "user"}, "invalid_value"),
        ({"content": []}, "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "input_text", "text": "x" * 101}]}, "string_above_max_length"),
        ({"type": "function_call_output", "call_id": "c", "output": "{}"}, "unsupported_item_type"),
    ],
)
def test_what_cannot_be_taken_is_refused(item: dict[str, Any], expected: str) -> None:
    client = Client(limits=Limits(text_characters=100))
    assert refused(create(client, **item))[0] == expected
    assert client.update(noema={"resume": True})[0]["type"] == "session.updated"  # it is not too late: nothing began


def test_a_system_item_is_kept_and_warned_of_where_nobody_reads_it() -> None:
    client = Client()
    assert [message["type"] for message in client.write("Be kind.", role="system")] == [
        "conversation.item.added",
        "conversation.item.done",
    ]
    client.update(noema={})
    assert "reads no words" in client.write("Be kind.", role="system")[-1]["message"]


def test_an_item_is_shown_until_it_is_deleted() -> None:
    client = Client()
    item = client.write("Hello.")[0]["item"]
    assert client.send("conversation.item.retrieve", item_id=item["id"])[0]["item"] == item
    assert [m["type"] for m in client.send("conversation.item.delete", item_id=item["id"])] == [
        "conversation.item.deleted"
    ]
    for kind in ("retrieve", "delete"):
        answers = client.send(f"conversation.item.{kind}", item_id=item["id"], event_id="mine")
        assert refused(answers) == (f"item_{kind}_invalid_item_id", "item_id")
        assert answers[0]["error"]["event_id"] == "mine"
    assert len(client.core.machine.conversation.view()) == 0


def test_deleting_a_reply_under_way_cancels_it() -> None:
    client = Client()
    client.answers = False
    client.say()
    while not client.of("response.output_item.added"):
        client.answer_next()
    item_id = client.last("response.output_item.added")["item"]["id"]
    kinds = [message["type"] for message in client.send("conversation.item.delete", item_id=item_id)]
    assert kinds[-2:] == ["response.done", "conversation.item.deleted"]
    assert client.last("response.done")["response"]["status"] == "cancelled"


def test_the_oldest_items_leave() -> None:
    client = Client(limits=Limits(items=3))
    ids = [client.write(f"Number {n}.")[0]["item"]["id"] for n in range(5)]
    assert refused(client.send("conversation.item.retrieve", item_id=ids[1]))[0] == "item_retrieve_invalid_item_id"
    assert "last 3" in client.last("error")["error"]["message"]
    assert client.send("conversation.item.retrieve", item_id=ids[2])[0]["type"] == "conversation.item.retrieved"


def test_what_was_not_heard_of_a_reply_is_forgotten() -> None:
    client = Client()
    client.sentences = 3
    client.say()
    item_id = client.last("response.output_item.done")["item"]["id"]
    answers = client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=160)
    [truncated] = answers
    assert truncated["type"] == "conversation.item.truncated"
    assert (truncated["item_id"], truncated["content_index"], truncated["audio_end_ms"]) == (item_id, 0, 160)
    item = client.send("conversation.item.retrieve", item_id=item_id)[0]["item"]
    assert item["content"][0]["transcript"] == "sentence 0 sentence 1"
    texts = [entry.text for entry in client.core.machine.conversation.view() if entry.role == 1]
    assert texts == ["sentence 0", "sentence 1"]


def test_nothing_heard_is_no_error() -> None:
    client = Client()
    client.answers = False
    client.say()
    while not client.of("response.output_item.added"):
        client.answer_next()
    item_id = client.last("response.output_item.added")["item"]["id"]
    answers = client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0)
    assert [message["type"] for message in answers][-2:] == ["response.done", "conversation.item.truncated"]
    client.answers = True
    client.catch_up()
    assert client.types[-1] == "conversation.item.truncated"


def test_truncation_beyond_the_sound_is_refused_but_for_a_moment() -> None:
    client = Client()
    client.say()
    item_id = client.last("response.output_item.done")["item"]["id"]
    answers = client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=201)
    assert refused(answers) == ("invalid_value", "audio_end_ms")
    assert "100ms is already shorter than 201ms" in answers[0]["error"]["message"]
    answers = client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=185)
    assert answers[0]["type"] == "conversation.item.truncated"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"audio_end_ms": -1}, "audio_end_ms"), ({"content_index": 1}, "content_index")],
)
def test_only_the_one_part_can_be_truncated(fields: dict[str, int], param: str) -> None:
    client = Client()
    client.say()
    item_id = client.last("response.output_item.done")["item"]["id"]
    answers = client.send(
        "conversation.item.truncate", **{"item_id": item_id, "content_index": 0, "audio_end_ms": 0} | fields
    )
    assert refused(answers) == ("invalid_value", param)


def test_only_spoken_replies_can_be_truncated() -> None:
    client = Client()
    client.update(output_modalities=["text"])
    client.say()
    for item_id in [message["item"]["id"] for message in client.of("conversation.item.done")]:
        answers = client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0)
        assert refused(answers) == ("unsupported_content_type", "item_id")
