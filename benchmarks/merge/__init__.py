"""What merging streams is worth: a frozen suffix on one stacked batch, tuned blocks as one grouped convolution."""
