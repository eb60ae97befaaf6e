"""HTTP server for a generator. Requests are batched by one worker, and the same seed always gives the same image."""
