"""Drift: is what the models see, say and meet still what it was? One base, one file per detector, one declaration"""
