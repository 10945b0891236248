"""`python -m cosyvoice_cpu`."""

from cosyvoice_cpu.cli import main

main()
