"""The scikit-learn estimator `GAN`."""
