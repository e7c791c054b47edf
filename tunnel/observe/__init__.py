"""Counters, drop reasons and whatever else shows what a running tunnel does."""
