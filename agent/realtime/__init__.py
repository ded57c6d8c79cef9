"""The wire: OpenAI's Realtime protocol, and what concepts add to it (`noema.*`). All of it pure.

    messages.py        text frames ↔ events; client_events.py, server_events.py, noema_events.py hold the shapes
    session_object.py  the session, as clients patch it and as the server shows it; settings.py what holds of it
    machine.py         translates domain events ↔ wire; items.py, hearing.py and replying.py are its memory
    core.py            the turn machine and this one as the core of a session
    translation.py     the messages of the translation endpoint and of listeners

Knows nothing of sockets, clocks or tasks; docs/PROTOCOL.md says the same to those who write a client.
"""
