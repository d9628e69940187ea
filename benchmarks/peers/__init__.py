"""The comparison with peers, room by room.

    cli ──► tasks (what is compared) ──► harness (who runs when) ──► worker, one process a peer ──► adapters
                                             └──► report (ratios, tables, JSON)

Only a worker imports a framework, each in its own interpreter: the peers pin versions that do not fit together.
"""
