"""Policy routing rules: those of full tunnels."""

from tunnel.host import link_messages
from tunnel.host.link_messages import FIB_RULE_INVERT, RuleEntry
from tunnel.host.rtnetlink import VERSIONS, Rtnetlink, absent_is_fine, step
from tunnel.host.state import Rule

_WHOLE_MARK = 0xFFFFFFFF


def list_rules(netlink: Rtnetlink) -> set[Rule]:
    """All rules that match a whole fwmark, of any program."""
    return {
        Rule(
            version,
            entry.priority,
            entry.mark,
            entry.table,
            invert=bool(entry.flags & FIB_RULE_INVERT),
            suppress_default=entry.suppressed == 0,
            goto=entry.goto,
        )
        for version in VERSIONS
        for entry in link_messages.list_rules(netlink, version)
        if entry.mark is not None and entry.mask == _WHOLE_MARK
    }


def add_rule(netlink: Rtnetlink, rule: Rule) -> None:
    """Add one that is not there yet."""
    with step("add", rule):
        link_messages.add_rule(netlink, _entry(rule))


def remove_rule(netlink: Rtnetlink, rule: Rule) -> None:
    """Remove exactly this one, if it is there."""
    with step("remove", rule), absent_is_fine():
        # The kernel deletes the first rule that has the given attributes, whatever else it has,
        # and does not compare the inversion: only ask when the very rule is there.
        if rule in list_rules(netlink):
            link_messages.remove_rule(netlink, _entry(rule))


def _entry(rule: Rule) -> RuleEntry:
    return RuleEntry(
        rule.version,
        rule.priority,
        rule.table,
        rule.mark,
        flags=FIB_RULE_INVERT if rule.invert else 0,
        suppressed=0 if rule.suppress_default else None,
        goto=rule.goto,
    )
