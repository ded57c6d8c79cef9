"""`python -m agent` is `noema`."""

from agent.cli import run

if __name__ == "__main__":
    run()
