"""The steps from released stores of a study to the tables of today; one that has shipped is never changed."""
