"""`tunnel doctor`: why does nothing flow?

    facts = await gather("wg0", options)     # looks at the machine, the conf and the daemon, and
    report = diagnose(facts)                 # sends probes; the rest is a pure function of it

What may be wrong is one small check each, in the modules `conf`, `keys`, `routing`, `firewall`,
`forwarding` and `liveness`; `diagnosis` puts them in order. `rules` and `hooks` read what others
wrote: netfilter's rules and a conf's commands. A remedy is one line of shell, or says what to do.
"""

from tunnel.doctor.diagnosis import diagnose
from tunnel.doctor.elsewhere import examine_elsewhere, join_inside
from tunnel.doctor.facts import DEFAULT_WAIT, Facts, Options
from tunnel.doctor.findings import Finding, Report
from tunnel.doctor.gathering import gather

__all__ = [
    "DEFAULT_WAIT",
    "Facts",
    "Finding",
    "Options",
    "Report",
    "diagnose",
    "examine_elsewhere",
    "gather",
    "join_inside",
]
