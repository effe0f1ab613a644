"""What task models share: segments, their costs, and the plan. Pure functions of the digest chains."""
