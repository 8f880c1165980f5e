"""Networks that find keypoints."""
