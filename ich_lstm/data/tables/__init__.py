"""Tables as people and spreadsheets save them."""
