"""Networks, views, objectives, the only training loop and the only inference loop."""
