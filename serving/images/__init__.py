"""From the bytes of image files to rows."""
