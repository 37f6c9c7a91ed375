"""All measurements, one after the other."""

from bench import calls, cold, idle_memory, reload, throughput

for measurement in (cold, reload, throughput, idle_memory, calls):
    measurement.main()
