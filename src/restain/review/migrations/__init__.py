"""The steps of a study's store, in the order of their names; one that has shipped is never changed, another follows."""
