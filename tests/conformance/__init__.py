"""A hostile WireGuard peer that judges any implementation by the rules of whitepaper and Linux.

    python -m tests.conformance --program wireguard-go --program tunnel-wg

`noise` and `wire` are the peer's own protocol, `peer` what it can do, `subject` what it asks of the
implementation under test, `program` one that runs, `cases/` the rules, `judge` runs them, `report`
prints what came of it.
"""
