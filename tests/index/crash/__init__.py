"""Proof that what an index acknowledges is there after the process, or the machine, has died.

Clients (`clients`) work on an index and write down on disk what they ask for and what is acknowledged (`ledger`). The
process that holds the index (`worker`) is killed (`kills`), or what it did to its files is recorded by a library between it
and the system (`recorder.c`, `record`) and replayed up to any moment as a disk would have it after a power cut (`disk`,
`power_cuts`). Beside them backups are taken, one after another (`copies`). `audit` and `audit_copies` then hold what is found
against what was written down. `lifecycle` is an index that is made, dropped and restored.
"""
