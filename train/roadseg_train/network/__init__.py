"""The U-Net, its losses, and its predictions on whole images."""
