"""Language choice: what `--language` and the settings say: one language, several (`eng,fra`), or any (`auto`).

Knows no bundle: `Models.check_languages` says which languages that comes to.
"""

from agent.errors import UsageError

AUTO = "auto"


def named(choice: str) -> list[str]:
    """The languages of a choice, as they were written; `auto` names itself."""
    return [name.strip() for name in choice.split(",")]


def is_open(choice: str) -> bool:
    """Whether it leaves open which language is spoken."""
    return choice.strip() == AUTO or "," in choice


def check_typed(choice: str) -> None:
    """Of text nobody finds out the language: one has to be named."""
    if is_open(choice):
        raise UsageError(f"the language of text is not found out; instead of '{choice}' name one, as in --language eng")
