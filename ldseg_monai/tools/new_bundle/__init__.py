"""`ldseg new-bundle`: a bundle for a data set of one's own."""
