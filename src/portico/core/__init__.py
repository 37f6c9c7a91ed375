"""Decisions: routes, pool, scaling, container life, back-off, deadlines. Pure: no await, no I/O, no clock."""
