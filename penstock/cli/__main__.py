"""`python -m penstock.cli`."""

from penstock.cli.app import main

main()
