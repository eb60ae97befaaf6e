"""The studio: a local web page that shows runs while they train and afterwards, and what their generators have learned.

Reads run directories and never writes into one; knows nothing of training.
"""
