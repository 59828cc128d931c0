"""Biomarkers: which features tell the classes of a label apart, by tests and by selections within training sets, and
what several training sets and methods agree on.

    moderated            t and F with variances drawn towards each other, of measured values
    negative_binomial    of counts
    differences          what a test says; false discovery rates
    stability            selections in halves of the rows; how stable a selection is
    planted              what a test finds of differences that are planted into a training set
    enrichment           sets of genes among the features
"""
