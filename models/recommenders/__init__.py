"""Retrieval models on sequences of items: one base, one file per model, and their blend. Evaluation compares them

To add one: a file with a class that implements the base, and its name in `family.py`. One suite tests every member.
"""
