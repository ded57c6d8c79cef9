"""The core: what decides in a session. Ordered inputs in, domain events and requests out. All of it pure.

    turn.py       the turn machine; ear.py, open_turns.py, answering.py and speculation.py are its parts
    inputs.py     all that can differ between two runs, and what is asked of the models; input_log.py writes both down
    events.py     what the core says happened
    context.py    the conversation so far; reply_timeline.py what of the replies was heard
    kept_core.py  a core that outlives its process; core_state.py makes bytes of it, stored_session.py rows

Knows nothing of sockets, clocks, tasks, devices or models.
"""
