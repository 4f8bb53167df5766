"""Listeners hear of what happens while they listen."""

from pipeline.events import Event, listening, tell


def test_a_listener_hears_until_its_context_ends() -> None:
    heard: list[Event] = []
    tell(Event("a", "started"))
    with listening(heard.append):
        tell(Event("a", "line", "text"))
    tell(Event("a", "finished"))
    assert heard == [Event("a", "line", "text")]
