"""The benchmarks, room by room; `README.md` says what each one measures.

    run ──► tasks (what is compared) ──► harness (who runs when) ──► worker (one process per peer) ──► peers/
     │                                       └──► checks (equal results first) ──► report (ratios, tables, JSON)
     └──► parity, compare_poolings, gpu: one process each

Only a worker imports a framework, each with its own interpreter: the peers pin versions that exclude each other.
"""
