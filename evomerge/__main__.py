"""`python -m evomerge` is the `evomerge` command."""

from evomerge.cli import main

if __name__ == "__main__":
    main()
