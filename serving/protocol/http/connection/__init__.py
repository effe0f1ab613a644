"""HTTP/1.1 on connections, within limits of sizes, counts and times."""
