"""The graph that scoring runs: one pass gives class scores, the last convolutional map and the gate's features.

Backend-neutral Keras: TensorFlow and JAX compile the same one, each in its engine's module.
"""

import keras

from workers import networks
from workers.networks import Weights
from workers.trained_models import TrainedModel

# In front of the convolutions, and exact: in half precision scaled pixels lose a sixteenth of a grey level or more.
EXACT = frozenset({"pixels", "channels", "scaling"})


def serving_graph(model: TrainedModel, weights: Weights, precision: str = "float32") -> keras.Model:
    """Build the folded network with its weights and three outputs.

    uint8 (B, S, S, 1) -> class scores (B, C), last map (B, h, w, c), features (B, F), all float32; the features
    are the means of the gate's layers side by side. At a half precision ("float16", "bfloat16") the convolutions up to
    the last map compute in it; scaling, head and means stay float32. Raises ModelRefused where weights do not fit.
    """
    plain = networks.build(model.architecture, model.head, len(model.classes), input_size=model.input_size)
    graph = networks.fold(plain)
    if precision != "float32":
        graph = _in_halves(graph, model.map_layer, precision)
    networks.assign(graph, weights)
    scores = graph.output
    if len(model.classes) == 2:
        scores = keras.layers.Concatenate(name="class_scores")([1.0 - scores, scores])
    pooled = [_means(graph.get_layer(name).output) for name in model.gate.layers]
    features = keras.layers.Concatenate(name="features")(pooled) if len(pooled) > 1 else pooled[0]
    last_map = keras.ops.cast(graph.get_layer(model.map_layer).output, "float32")
    return keras.Model(graph.input, [scores, last_map, features])


def _means(value: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.GlobalAveragePooling2D(dtype="float32")(value)


def _in_halves(graph: keras.Model, map_layer: str, precision: str) -> keras.Model:
    """The same network, drawn anew without its weights, whose layers up to the last map compute at a half precision.
    Told layer by layer: Keras's global policy would bind whatever else this process builds."""
    base = keras.Model(graph.input, graph.get_layer(map_layer).output)
    halved = {layer.name for layer in base.layers} - EXACT
    policy = keras.DTypePolicy(f"mixed_{precision}")

    def drawn(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config() | ({"dtype": policy} if layer.name in halved else {})
        return layer.__class__.from_config(config)

    return keras.models.clone_model(graph, clone_function=drawn)
