"""Whether a volume shows a head, by its bone and what the bone encloses."""
