"""What benchmarks measure with: clocks, loops, clients, and what else the machine did."""
