"""The graph that scoring runs: one pass gives class scores, the last convolutional map and the gate's features."""

import keras

from workers import networks
from workers.networks import Weights
from workers.trained_models import TrainedModel


def serving_graph(model: TrainedModel, weights: Weights) -> keras.Model:
    """Build the folded network with its weights and three outputs.

    uint8 (B, S, S, 1) -> class scores (B, C), last map (B, h, w, c), features (B, F), all float32; the features
    are the means of the gate's layers side by side. Raises ModelRefused where weights do not fit.
    """
    plain = networks.build(model.architecture, model.head, len(model.classes), input_size=model.input_size)
    graph = networks.fold(plain)
    networks.assign(graph, weights)
    scores = graph.output
    if len(model.classes) == 2:
        scores = keras.layers.Concatenate(name="class_scores")([1.0 - scores, scores])
    pooled = [keras.layers.GlobalAveragePooling2D()(graph.get_layer(name).output) for name in model.gate.layers]
    features = keras.layers.Concatenate(name="features")(pooled) if len(pooled) > 1 else pooled[0]
    return keras.Model(graph.input, [scores, graph.get_layer(model.map_layer).output, features])
