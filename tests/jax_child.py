"""What the JAX engine makes of a trained model, in a process of its own: Keras computes with one framework in each, and
here TensorFlow cannot be imported. `python jax_child.py FOLDER OUT.npz`; what it found out in words is on stdout."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace


class NoTensorFlow:
    """As where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(folder, out):
    sys.meta_path.insert(0, NoTensorFlow())
    from workers import engines, golden, trained_models, weights

    engine = engines.module("jax")
    import numpy as np
    from small_models import SIZE, offer_small

    from workers.scoring import Scorer

    offer_small(SimpleNamespace(setattr=setattr))
    model = trained_models.load_folder(folder)
    values = weights.read(folder, model)
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), dtype=np.uint8)
    arrays, told = {}, {}
    for precision in engine.PRECISIONS:
        loaded = engine.load(model, values, batch_size=4, precision=precision)
        several = list(engines.passes(loaded, pixels))
        alone = [engine.predict(loaded, one[None]) for one in pixels]
        for name in ("class_scores", "last_map", "features"):
            arrays[f"{precision}/{name}"] = np.concatenate([getattr(one, name) for one in several])
            arrays[f"{precision}/alone/{name}"] = np.concatenate([getattr(one, name) for one in alone])
        told[precision] = engine.describe(loaded)
    arrays["scored"] = np.array([one.score for one in Scorer.load(folder, **at("float32")).predict(pixels)])
    compiled = vars(engine.load(model, values, batch_size=1))["run"]
    told["float32 is"] = "highest" in compiled.as_text()
    told["can"] = [precision for precision in ("float32", "float16", "bfloat16", "int8") if engine.can(precision)]
    asked = {"precision": {"precision": "bfloat16"}, "device": {"device": "gpu:0"}}
    told["refused"] = {name: said(engine.load, model, values, batch_size=1, **one) for name, one in asked.items()}
    told["refused"]["report"] = said(Scorer.load, folder, **at("float16"))
    told["failed"] = [
        failed(engine, loaded, pixels[:1], text) for text in ("RESOURCE_EXHAUSTED: Out of memory", "lost")
    ]
    (seen,) = Scorer.load(trained_models.SHIPPED, **at("float32")).predict(golden.picture(224)[None])
    told["golden"] = seen.score
    told["heat"] = float(seen.heat().max())
    told["preallocate"] = os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]
    told["loaded"] = sorted({"tensorflow", "openvino"} & sys.modules.keys())
    np.savez(out, **arrays)
    print(json.dumps(told))


def at(precision):
    return {"batch_size": 2, "threads": None, "device": "cpu", "engine": "jax", "precision": precision}


def failed(engine, loaded, pixels, text):
    import dataclasses

    import jax

    def run(batch):
        raise jax.errors.JaxRuntimeError(text)

    return said(engine.predict, dataclasses.replace(loaded, run=run), pixels)


def said(call, *arguments, **named):
    from db.errors import Refused

    try:
        call(*arguments, **named)
    except (Refused, MemoryError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
