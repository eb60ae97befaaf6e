"""How a network learns of class labels: one-hot planes, an embedding next to z, a projection in D."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cardigan.nets.pacgan import Features
from cardigan.shapes import Labels, Latents, Logits


def one_hot_labels(labels: Labels | None, num_classes: int) -> Float[Tensor, "batch classes"]:
    """Return 1 in each row's own class and 0 elsewhere."""
    # PyTorch's one_hot reads the labels on the host, which waits for a GPU.
    labels = require_labels(labels)
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()


def require_labels(labels: Labels | None) -> Labels:
    assert labels is not None, "a network built for classes was called without labels"
    return labels


class ConditionalLatent(nn.Module):
    """z, and beside it what says the class, if there are classes: its one-hot row, or a learned embedding of it.

    An embedding has as many numbers as there are classes, where z is longer than that: more could say no more.
    """

    def __init__(self, latent_size: int, num_classes: int, learned_embedding: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding = (
            nn.Embedding(num_classes, min(num_classes, latent_size)) if num_classes and learned_embedding else None
        )
        self.out_features = latent_size + (self.embedding.embedding_dim if self.embedding else num_classes)

    def forward(self, z: Latents, labels: Labels | None) -> Float[Tensor, "batch size"]:
        if not self.num_classes:
            return z
        condition = (
            self.embedding(require_labels(labels)) if self.embedding else one_hot_labels(labels, self.num_classes)
        )
        return torch.cat([z, condition.to(z.dtype)], dim=1)


class Projection(nn.Module):
    """How well features suit a class: their inner product with its learned embedding (arXiv:1802.05637, eq. 3, the first term)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, in_features)
        nn.init.uniform_(
            self.embedding.weight, -(in_features**-0.5), in_features**-0.5
        )  # as PyTorch's linear layers, which it is added to

    def forward(self, features: Features, labels: Labels | None) -> Logits:
        return (features.float() * self.embedding(require_labels(labels))).sum(dim=1)


class Head(nn.Module):
    """A linear map of D's last features and, if there are classes, their projection on the class (arXiv:1802.05637, eq. 3)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 1)
        self.projection = Projection(in_features, num_classes) if num_classes else None

    def forward(self, features: Features, labels: Labels | None) -> Logits:
        logits = self.linear(features).flatten().float()
        return logits + self.projection(features, labels) if self.projection else logits
