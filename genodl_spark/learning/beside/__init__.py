"""What may stand beside the networks of a model: fitted to the rows that they learn from, stored with their weights,
and blended with them in the shares that were best of rows held out.

    linear           over k-mers and positions of sequences; linear_fits: how it is fitted
    boosted          trees over bases of sequences
    forest           over measured values; forest_bounds: what forests of values may cost
    ridge            a regression over measured values
    blend            a network and what stands beside it as one

`fit` gives arrays by name, of rows and targets; `part` makes a module of such arrays: x (M or 1, B, *inputs) ->
(M or 1, B, outputs), logits of classes or standardised values. training/beside.py fits them, one rank a training set.
"""
