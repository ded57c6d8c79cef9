"""The subcommands of `noema`, one module each: `add_parser` describes it, its `run` does it.

Modules here import nothing heavy before `run`, so that `noema --help` answers at once.
"""
