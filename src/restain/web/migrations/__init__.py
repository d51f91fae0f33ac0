"""The steps of the server's store, in the order of their names; one that has shipped is never changed, another follows."""
