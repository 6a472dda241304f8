"""The shop: the pages that shoppers see. It asks the recommender for feeds and tells the collector what happened."""
