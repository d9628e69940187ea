"""Us beside what people would use instead: interleaved in one run, on the same inputs; `--help` has the choices.

    python benchmarks/peers.py --setup DIR        # once: the peers' own environments (PyPI; about 12 GB)
    python benchmarks/peers.py --environments DIR --name NAME

The work is in the package beside this file; `benchmarks/README.md` has more.
"""

from peers.cli import main  # the package beside this file, which Python prefers to this file

if __name__ == "__main__":
    main()
