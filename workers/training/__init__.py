"""Fine-tuning and its evidence: data and splits, augmentation, the loop, metrics, the gate, the report.

The model that ships was made by these commands (85 minutes on 2 busy CPU cores; DATA and the base as in `../shared`).
Each stage keeps the epoch with the least validation loss: the third of four, fourth of five, third of three and first
of two. Seeds are fixed, but threads add up in any order: expect the same figures, not the same bytes.

    T="python -m workers.training.finetune DATA/cxr"
    $T --base resnet50_cxr_notop.weights.h5 --stage 128:4:2e-4 --batch-size 32 --out a.safetensors
    $T --start a.safetensors --stage 160:5:1.5e-4 --out b.safetensors
    $T --start b.safetensors --stage 224:3:1e-4 --out c.safetensors
    $T --start c.safetensors --stage 224:2:8e-5 --out d.safetensors
    python -m workers.training.ship d.safetensors DATA/cxr --version 1.0 --out workers/shipped/covid-resnet50 \\
        --reference f.safetensors
    python -m workers.training.parity workers/shipped/covid-resnet50 f.safetensors DATA/cxr -n 200
    python -m workers.training.examine workers/shipped/covid-resnet50 DATA --photographs PHOTOGRAPHS
"""
