"""The studio: a local web app that shows runs during and after training, and explores their generators.

It only reads run directories and never writes to them. It does not import the trainer.
"""
