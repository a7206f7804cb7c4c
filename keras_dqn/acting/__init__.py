"""Acting and collecting on the host: policies, exploration, stepping environments."""
