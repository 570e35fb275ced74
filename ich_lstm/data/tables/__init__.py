"""Reading of tables as people and spreadsheets save them."""
