"""``python -m ekairos_sandbox``: the command line."""

from ekairos_sandbox.cli.main import entry

if __name__ == "__main__":
    entry()
