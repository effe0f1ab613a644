"""What deploys do to the requests of other tasks."""
