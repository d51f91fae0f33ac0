"""The steps from released stores of the server to the tables of today; one that has shipped is never changed."""
