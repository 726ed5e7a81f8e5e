"""``python -m socratic.cli``."""

from socratic.cli import main

main()
