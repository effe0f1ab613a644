"""What documents are built by; the pages themselves are beside it."""
