"""Images to train on: folders of class folders, Fashion-MNIST, scenes with captions."""
