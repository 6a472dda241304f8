"""Answers feature values by entity keys, over gRPC and HTTP: present, missing, stale or a default, and how old"""
