"""Training and its evidence: data and splits, augmentation, the loop, frozen bases, metrics, audit, report, studies.

The model that ships, `covid-resnet50` 1.2, was made in steps on 2 busy CPU cores, about three hours together. Seeds
are fixed, but threads add up in any order: expect the same figures, not the same bytes. DATA/cxr is the COVID-19
Radiography Database, FIRST a ResNet-50 pre-trained on other chest X-rays (no COVID-19 image, no ImageNet).

    COMMON="--freeze-through conv2_block3_out --batch-size 32 --label-smoothing 0.03 --no-thumbnails"
    BFLOAT="--normalise --precision mixed_bfloat16"
    # version 1.0, from FIRST: without BatchNormalization, batches of 16 (of 32 in the first stage), smoothing 0.05
    #   --stage 128:4:2e-4, 160:5:1.5e-4, 224:3:1e-4, 224:2:8e-5
    # version 1.1, from 1.0 with its BatchNormalization put back; first by a script around the same loop, before `train`
    # existed: --stage 160:8:4e-4 (stopped after 7), --stage 160:18:5e-4 (the 14th epoch was kept); then
    nightread train DATA/cxr --name covid-resnet50 --version 1.1 --weights THAT $COMMON $BFLOAT \\
        --stage 224:5:2e-4 --seed 7
    nightread train … --weights covid-resnet50-1.1 … --stage 224:6:2e-4 --seed 8 --out … (the fifth epoch was kept)
    # version 1.2, from 1.1, one command; the sixth epoch of the second stage was kept (least validation loss)
    nightread train DATA/cxr --name covid-resnet50 --version 1.2 --weights covid-resnet50-1.1 $COMMON $BFLOAT \\
        --stage 160:16:5e-4 --stage 224:8:2e-4 --seed 9
    python -m workers.training.examine covid-resnet50-1.2 DATA --photographs PHOTOGRAPHS
"""

import os

# Before Keras loads TensorFlow: its start-up notes are no message of ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
