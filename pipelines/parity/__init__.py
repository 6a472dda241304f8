"""The zero-skew proof: stream, offline SQL, brute force and logged vectors give one answer, whatever dies on the way"""
