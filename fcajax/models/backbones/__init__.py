"""Networks that classify images, and that other tasks build on."""
