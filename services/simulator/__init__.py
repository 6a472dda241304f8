"""The live half of the simulated marketplace: shoppers ask for feeds, click and buy; new items and shoppers arrive."""
