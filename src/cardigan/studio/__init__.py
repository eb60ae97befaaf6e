"""The studio: a local web app that shows runs during and after training, and explores their generators.

It reads what training wrote. It writes only `studio.json` of a run, and moves runs to the trash. It does not import the
trainer.
"""
