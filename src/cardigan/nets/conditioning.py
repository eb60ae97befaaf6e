"""Class conditioning: one-hot vectors, an embedding concatenated to z, a projection in D."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding

from cardigan.nets.minibatch_stddev import Features
from cardigan.shapes import ClassWeights, Labels, Latents, Logits


def one_hot_labels(labels: Labels | None, num_classes: int) -> Float[Tensor, "batch classes"]:
    """Return 1 at each row's class and 0 elsewhere."""
    # PyTorch's one_hot reads the labels on the host, which waits for a GPU.
    labels = require_labels(labels)
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()


def require_labels(labels: Labels | ClassWeights | None) -> Labels | ClassWeights:
    assert labels is not None, "a class-conditional network was called without labels"
    return labels


def mixed_rows(
    table: Float[Tensor, "classes features"], labels: Labels | ClassWeights | None
) -> Float[Tensor, "batch features"]:
    """Return the table's row of each label, or the weighted sums of rows. One-hot weights give the row bit for bit."""
    labels = require_labels(labels)
    return labels.to(table.dtype) @ table if labels.is_floating_point() else embedding(labels, table)


class ConditionalLatent(nn.Module):
    """Concatenates z with a one-hot vector or a learned embedding of the class. Without classes, returns z.

    Class weights mix the embeddings. The embedding has min(num_classes, latent_size) dimensions.
    """

    def __init__(self, latent_size: int, num_classes: int, learned_embedding: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding = (
            nn.Embedding(num_classes, min(num_classes, latent_size)) if num_classes and learned_embedding else None
        )
        self.out_features = latent_size + (self.embedding.embedding_dim if self.embedding else num_classes)

    def forward(self, z: Latents, labels: Labels | ClassWeights | None) -> Float[Tensor, "batch size"]:
        return torch.cat([z, self._condition(labels).to(z.dtype)], dim=1) if self.num_classes else z

    def _condition(self, labels: Labels | ClassWeights | None) -> Float[Tensor, "batch features"]:
        labels = require_labels(labels)
        if labels.is_floating_point():
            return mixed_rows(self.embedding.weight, labels) if self.embedding else labels
        return self.embedding(labels) if self.embedding else one_hot_labels(labels, self.num_classes)


class Projection(nn.Module):
    """The inner product of features with a learned class embedding (arXiv:1802.05637, eq. 3, first term)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, in_features)
        # The same distribution as PyTorch's linear layers, to whose output the projection is added.
        nn.init.uniform_(self.embedding.weight, -(in_features**-0.5), in_features**-0.5)

    def forward(self, features: Features, labels: Labels | None) -> Logits:
        return (features.float() * self.embedding(require_labels(labels))).sum(dim=1)


class Head(nn.Module):
    """Logits from D's last features: a linear map plus, with classes, a projection (arXiv:1802.05637, eq. 3)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 1)
        self.projection = Projection(in_features, num_classes) if num_classes else None

    def forward(self, features: Features, labels: Labels | None) -> Logits:
        logits = self.linear(features).flatten().float()
        return logits + self.projection(features, labels) if self.projection else logits
