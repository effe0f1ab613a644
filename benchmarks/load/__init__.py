"""A running server under load: closed and open loop, mixes of tasks, MLPerf's scenarios, and what the bare engine would answer."""
