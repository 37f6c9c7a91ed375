"""All measurements, one after the other."""

from bench import cold, idle_memory, reload, throughput

for measurement in (cold, reload, throughput, idle_memory):
    measurement.main()
