"""Pure thinking: (observed, now) -> Plan, one module per kind.

No input or output, no clock, no randomness: a plan is a function of its arguments, so tests are
tables. What a plan says is carried out by `controllers`.
"""
