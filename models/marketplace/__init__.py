"""The simulated marketplace with planted truth: one model of shoppers and items, in two forms (history and live).

`world` plants the truth, `behaviour` says what a shopper does, `history` draws thirty days of it at once, and
`truth` answers evaluation's questions. Arrays in, arrays out: no clock, no network, no files.
"""
