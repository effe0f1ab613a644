"""What keeps the process of a server in order: threads, sockets, signals, memory."""
