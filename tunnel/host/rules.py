"""Policy routing rules: those of full tunnels."""

from typing import Any

from tunnel.host.iproute import IPRoute
from tunnel.host.rtnetlink import VERSIONS, absent_is_fine, family, step
from tunnel.host.state import Rule

_FIB_RULE_INVERT = 2
_FR_ACT_GOTO = 2  # linux/fib_rules.h
_NO_SUPPRESSION = 0xFFFFFFFF
_WHOLE_MARK = 0xFFFFFFFF


def list_rules(netlink: IPRoute) -> set[Rule]:
    """All rules that match a whole fwmark, of any program."""
    found = set()
    for version in VERSIONS:
        for message in netlink.rule("dump", family=family(version)):
            mark = message.get_attr("FRA_FWMARK")
            if mark is None or message.get_attr("FRA_FWMASK", _WHOLE_MARK) != _WHOLE_MARK:
                continue
            rule = Rule(
                version,
                int(message.get_attr("FRA_PRIORITY") or 0),
                int(mark),
                int(message.get_attr("FRA_TABLE") or message["table"]),
                invert=bool(message["flags"] & _FIB_RULE_INVERT),
                suppress_default=message.get_attr("FRA_SUPPRESS_PREFIXLEN") == 0,
                goto=int(message.get_attr("FRA_GOTO") or 0),
            )
            found.add(rule)
    return found


def add_rule(netlink: IPRoute, rule: Rule) -> None:
    """Add one that is not there yet."""
    with step("add", rule):
        netlink.rule("add", **_fields(rule))


def remove_rule(netlink: IPRoute, rule: Rule) -> None:
    """Remove exactly this one, if it is there."""
    with step("remove", rule), absent_is_fine():
        # The kernel deletes the first rule that has the given attributes, whatever else it has,
        # and does not compare the inversion: only ask when the very rule is there.
        if rule in list_rules(netlink):
            netlink.rule("del", **_fields(rule))


def _fields(rule: Rule) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "family": family(rule.version),
        # Without a priority pyroute2 gives each rule the same one, and their order turns round.
        "priority": rule.priority,
        "fwmark": rule.mark,
    }
    if rule.goto:
        fields |= {"action": _FR_ACT_GOTO, "FRA_GOTO": rule.goto}
    else:
        fields["table"] = rule.table
    if rule.invert:
        fields["flags"] = _FIB_RULE_INVERT
    if rule.suppress_default:
        fields["FRA_SUPPRESS_PREFIXLEN"] = 0
    return fields
